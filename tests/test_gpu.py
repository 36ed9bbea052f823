"""What only a GPU can show: the same scenes, the same detections and a training there. Skipped without one."""

from contextlib import nullcontext

import fused
import pytest
import torch
from depth_stages import fresh_scenes
from variation import Views, unpacked

from lesionkit import frames, training
from lesionkit.augment import Augment
from lesionkit.depth import DepthNet
from lesionkit.detector import Detector
from lesionkit.devices import seed_everything
from lesionkit.fitting import TrainConfig
from lesionkit.preprocess import preprocess
from lesionkit.scenes import SceneConfig, compiled, render, render_scenes

pytestmark = pytest.mark.gpu


# Python 3.12 warns of every fork beside threads; torch's DataLoader forks, and its workers only draw numbers
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("how", [nullcontext, compiled, fused.by_kernel], ids=["plain", "compiled", "kernel"])
@pytest.mark.parametrize("name", ["standard", "hard", "examination"])
def test_scenes_are_those_of_the_cpu(gpu, name, how, monkeypatch):
    monkeypatch.setattr(render, "LARGEST_CHUNK", 8)
    config = getattr(SceneConfig, name)()
    here = render_scenes(20, 64, 3, "cpu", config)
    with how():
        there = render_scenes(20, 64, 3, "cuda", config, workers=2)
    assert there.image.device.type == "cuda"
    apart = ((there.depth.cpu() - here.depth) / here.depth).abs()
    assert (apart > 0.01).float().mean() < 0.01  # rays that graze an edge
    assert apart.median() < 1e-4
    assert (there.instance.cpu() != here.instance).float().mean() < 0.005
    assert (there.image.cpu() - here.image).abs().mean() < 0.005
    listed = [[(one.paris, round(one.size_mm, 2)) for one in lesions] for lesions in there.lesions]
    expected = [[(one.paris, round(one.size_mm, 2)) for one in lesions] for lesions in here.lesions]
    assert sum(a == b for a, b in zip(listed, expected, strict=True)) >= 18  # one at the edge of sight may come or go


def test_frames_of_a_notebook_are_those_of_the_cpu(gpu):
    """Rendered in the deterministic mode in which notebooks run."""
    seed_everything(0)
    there, here = (frames.load_frames("scenes", "train", 20, 64, 0, device=device) for device in (gpu, "cpu"))
    assert there.image.device.type == "cpu"
    assert (there.image - here.image).abs().mean() < 0.005
    assert ((there.depth - here.depth).abs() / here.depth).median() < 1e-4
    assert (there.mask != here.mask).float().mean() < 0.005


def test_preprocessing_is_that_of_the_cpu(gpu):
    image = render_scenes(4, 96, 0, "cpu", SceneConfig.hard()).image
    there, here = preprocess(image.to(gpu), 64), preprocess(image, 64)
    assert torch.equal(there.box.cpu(), here.box)
    torch.testing.assert_close(there.image.cpu(), here.image, rtol=1e-3, atol=1e-3)


def test_detections_are_those_of_the_cpu(gpu):
    image = render_scenes(4, 160, 0, "cpu", SceneConfig.standard()).image
    for frozen in (False, True):
        nets = [Detector.from_pretrained("reference", device) for device in ("cuda", "cpu")]
        there, here = (net.fuse()(image) if frozen else net(image) for net in nets)
        assert (there.probability - here.probability).abs().max() < 0.05
        assert ((there.depth - here.depth).abs() / here.depth).median() < 0.005


@pytest.mark.parametrize("stages", [Views(), Augment(training.DEPTH_AUGMENT)], ids=["views", "augment"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_depth_is_learned_from_new_scenes_in_every_epoch(gpu, stages, precision):
    """Straight from the renderer: each epoch's scenes are others, and never leave the device."""
    asked, config = [], SceneConfig.standard()

    def new_scenes(epoch: int) -> dict[str, torch.Tensor]:
        asked.append(epoch)
        few = fresh_scenes([(config, 32, 0)], 96, gpu, 32 * epoch)
        return few if isinstance(stages, Views) else dict(zip(few, unpacked(*few.values()), strict=True))

    how = TrainConfig(epochs=6, batch_size=8, sizes_px=(64, 96), precision=precision)
    net, history = training.train_depth(new_scenes, how, gpu, DepthNet(), stages, log=lambda line: None)
    assert asked == list(range(6))
    assert history.loss[-1] < history.loss[0]
    assert all(value.device.type == "cuda" for value in new_scenes(0).values())
    assert next(net.parameters()).device.type == "cuda"
