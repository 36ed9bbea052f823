"""Depth Anything as another depth estimator: its conversion, its interface, and what it says when it cannot be had.

A tiny random network stands in for the published one: nothing here is downloaded. Without the extra [depth] the tests
that build it skip; the lock has transformers, so in CI they run.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lesionkit import depth_anything, training
from lesionkit.depth import TYPICAL_MM, DepthError, DepthNet
from lesionkit.depth_anything import SMALL, SPAN, DepthAnything, DepthAnythingError, model_size, to_relative_depth


@pytest.fixture
def transformers(absent):
    try:
        import transformers
    except ImportError:
        absent("transformers is not installed: pip install -e .[depth]")
    return transformers


@pytest.fixture
def config(transformers):
    """Dinov2 of width 32 with four layers, one for each scale of the neck; 0.1 million parameters."""
    backbone = transformers.Dinov2Config(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, mlp_ratio=2, image_size=56, patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"], apply_layernorm=True, reshape_hidden_states=False,
    )  # fmt: skip
    return transformers.DepthAnythingConfig(
        backbone_config=backbone, patch_size=14, reassemble_hidden_size=32, neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=8, head_hidden_size=8,
    )  # fmt: skip


@pytest.fixture
def model(transformers, config) -> DepthAnything:
    """Random weights, drawn wide enough for a map that is alive."""
    torch.manual_seed(0)
    model = DepthAnything(transformers.DepthAnythingForDepthEstimation(config), input_px=56)
    for name, weight in model.network.named_parameters():
        if weight.ndim > 1 and "embeddings" not in name:
            torch.nn.init.normal_(weight, std=0.2)
    torch.nn.init.constant_(model.network.head.conv3.bias, 5.0)  # its last step is a ReLU: away from zero
    return model


class Known(torch.nn.Module):
    """A network whose disparity is the mean of what it is given; keeps what it was given."""

    def forward(self, pixel_values):
        self.given = pixel_values
        return type("Output", (), {"predicted_depth": pixel_values.mean(dim=1)})


def image(b=2, h=64, w=64, seed=0) -> torch.Tensor:
    return torch.rand(b, 3, h, w, generator=torch.Generator().manual_seed(seed))


def converted(*disparity: float) -> list[float]:
    return to_relative_depth(torch.tensor(disparity).view(1, 1, 1, -1)).flatten().tolist()


# --- the conversion ------------------------------------------------------------------------------------


def test_larger_disparity_is_nearer_and_the_median_is_typical():
    depth = to_relative_depth(torch.linspace(3, 7, 1001).view(1, 1, 1, -1)).flatten()
    assert depth.median().item() == pytest.approx(TYPICAL_MM)
    assert bool((depth.diff() <= 0).all())
    assert bool((depth[20:].diff() < 0).all())  # only the farthest two per cent are as far as each other
    assert depth[:20].unique().numel() == 1
    assert (depth[20] / depth[980]).item() == pytest.approx(SPAN, rel=1e-3)


def test_five_disparities_worked_out_by_hand():
    # 101 values: the quantiles 0.02 and 0.98 are the third and the third last, 0 and 1, so that t is the disparity
    values = [0.0] * 30 + [0.5] * 41 + [1.0] * 28 + [1.5, 9.0]
    depth = converted(*values)
    # 1 / (0.1 + 0.9 t) is 10, 1.8182, 1, 0.6897, 0.5263 (t ends at 2); the median 1.8182 becomes 30 mm
    wanted = [165.0, 30.0, 16.5, 11.379, 8.684]
    assert [depth[i] for i in (0, 50, 80, 99, 100)] == pytest.approx(wanted, rel=1e-3)


def test_factor_and_shift_of_the_disparity_do_not_matter():
    disparity = image(3)[:, :1]
    torch.testing.assert_close(to_relative_depth(40 * disparity + 7), to_relative_depth(disparity), rtol=1e-3, atol=0)


def test_each_image_of_a_batch_is_converted_by_itself():
    both = torch.cat([image(1)[:, :1], 100 * image(1, seed=1)[:, :1]])
    torch.testing.assert_close(to_relative_depth(both)[:1], to_relative_depth(both[:1]))
    assert to_relative_depth(both).flatten(1).quantile(0.5, dim=1).tolist() == pytest.approx([TYPICAL_MM] * 2)


@pytest.mark.parametrize("value", [0.0, 1e-30, 1.0, -3.0, 1e30])
def test_a_flat_map_is_typical_everywhere(value):
    assert converted(*[value] * 50) == pytest.approx([TYPICAL_MM] * 50)


def test_rounding_noise_on_a_flat_map_stays_small():
    noise = torch.rand(64 * 64, generator=torch.Generator().manual_seed(0))
    depth = converted(*(100 + 1e-5 * noise).tolist())
    assert max(depth) / min(depth) < 1.01


def test_one_hot_pixel_on_a_flat_map_is_near_and_bounded():
    *wall, hot = converted(*[2.0] * 999, 1e6)
    assert wall == pytest.approx([TYPICAL_MM] * 999)
    assert TYPICAL_MM / (2 * SPAN) < hot < TYPICAL_MM / SPAN


def test_half_precision_disparity_is_computed_in_single():
    depth = to_relative_depth(torch.linspace(0, 60_000, 500).half().view(1, 1, 1, -1))
    assert depth.dtype == torch.float32
    assert bool(depth.isfinite().all())
    assert depth.min() > 0


# --- what the network is given ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "wanted"),
    [((64, 64), (518, 518)), ((256, 352), (518, 714)), ((352, 256), (714, 518)), ((1024, 1024), (518, 518))],
)
def test_model_size_keeps_the_aspect_in_multiples_of_the_patch(size, wanted):
    assert model_size(*size) == wanted


def test_the_network_sees_an_imagenet_normalised_image_of_its_size():
    model = DepthAnything(Known(), input_px=56)
    model(torch.full((1, 3, 64, 128), 0.5))
    assert model.network.given.shape == (1, 3, 56, 112)
    wanted = torch.tensor([(0.5 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (0.5 - 0.406) / 0.225]).view(1, 3, 1, 1)
    torch.testing.assert_close(model.network.given, wanted.expand_as(model.network.given))


def test_the_image_given_stays_within_its_range():
    edge = torch.zeros(1, 3, 64, 64)
    edge[..., 32:] = 1.0  # cubic interpolation overshoots here
    model = DepthAnything(Known(), input_px=70)
    model(edge)
    seen = model.network.given * model.std + model.mean
    assert seen.min() >= -1e-6
    assert seen.max() <= 1 + 1e-6


def test_where_the_network_says_near_the_map_is_small_in_the_same_place():
    bright = torch.full((1, 3, 96, 128), 0.2)
    bright[:, :, 16:48, 80:112] = 0.9  # upper right; brightness is disparity to this network
    first = DepthAnything(Known(), input_px=98)(bright).first
    assert first.shape == (1, 1, 96, 128)
    near = first < 0.5 * TYPICAL_MM
    assert near[0, 0, 18:46, 82:110].all()
    assert not near[0, 0, :, :76].any()
    assert not near[0, 0, 52:].any()


# --- the interface ---------------------------------------------------------------------------------------


def test_four_maps_as_a_depth_net_gives_them(model):
    maps = model(image(2, 64, 96))
    assert maps.first.shape == maps.second.shape == (2, 1, 64, 96)
    assert maps.first.dtype == torch.float32
    assert bool(maps.first.isfinite().all())
    assert maps.first.min() > 0
    assert maps.first.std() > 0.1  # the random network is alive, else nothing here is tested
    assert not maps.second.any()
    assert torch.equal(maps.third, maps.first)
    assert torch.equal(maps.target, maps.first)


def test_it_is_frozen(model):
    assert not model.training
    assert not any(weight.requires_grad for weight in model.parameters())
    assert not model(image(1)).target.requires_grad


def test_estimate_depth_takes_it(model):
    images = image(3, 64, 96)
    depth = training.estimate_depth(model, images, batch_size=2)
    assert depth.shape == (3, 1, 64, 96)
    torch.testing.assert_close(depth, model(images).target, rtol=1e-4, atol=1e-4)


def test_a_detector_takes_it(model):
    from lesionkit.detector import Detector, DetectorConfig
    from lesionkit.segmentation import DepthGuidedSegmenter

    detector = Detector(model, DepthGuidedSegmenter(encoder="small"), DetectorConfig(size_px=64), "cpu")
    found = detector((image(1)[0].permute(1, 2, 0).numpy() * 255).astype("uint8"))
    assert found.depth.shape == (64, 64)
    assert found.depth.min() > 0
    assert isinstance(model, DepthNet)  # what the kit's annotations ask for


@pytest.mark.parametrize("size", [(32, 64), (100, 96), (64, 80)])
def test_sizes_that_do_not_fit_are_named(size):
    with pytest.raises(DepthError, match=f"{size[1]}×{size[0]}.*multiples of 32, at least 64"):
        DepthAnything(Known())(image(1, *size))


# --- the weights ----------------------------------------------------------------------------------------


@pytest.fixture
def cache(transformers, tmp_path, monkeypatch) -> Path:
    """An empty Hugging Face cache, no network: the variables are read when the hub is imported, so its constants."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


@pytest.fixture
def stored(cache, model) -> Path:
    """The tiny network in the cache, arranged as a download leaves it; the folder of its files."""
    repository = cache / "models--depth-anything--Depth-Anything-V2-Small-hf"
    folder = repository / "snapshots" / ("0" * 40)
    model.network.save_pretrained(folder)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    return folder


def test_weights_in_the_cache_are_loaded_without_a_network(stored, model):
    loaded = DepthAnything.from_pretrained(input_px=56)
    assert torch.equal(loaded(image()).target, model(image()).target)
    assert not loaded.training


def refused(name: str = SMALL) -> str:
    """What is said when the weights cannot be had: one sentence, and no traceback of other packages behind it."""
    with pytest.raises(DepthAnythingError) as error:
        DepthAnything.from_pretrained(name)
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 600
    assert error.value.__suppress_context__ or not error.value.__context__
    return text


def test_weights_that_are_nowhere(cache):
    text = refused()
    assert all(part in text for part in (SMALL, str(cache), "offline mode", "HF_HOME", f"hf download {SMALL}"))


def test_a_network_that_does_not_answer_is_asked_once(cache, monkeypatch):
    asked = []

    def metadata(url, timeout):
        asked.append(timeout)
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", metadata)
    assert "(no route to host)" in refused()
    assert asked == [depth_anything.TIMEOUT_S]


def test_a_download_that_breaks_off(cache, transformers, monkeypatch):
    def download(name, local_files_only=False, **how):
        raise OSError("not here") if local_files_only else OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda url, timeout: None)
    monkeypatch.setattr(transformers.DepthAnythingForDepthEstimation, "from_pretrained", download)
    assert "No space left" in refused()


FILES = ("config.json", "model.safetensors")


@pytest.mark.parametrize("name", FILES)
def test_half_a_download_is_missing(stored, name):
    (stored / name).unlink()
    assert f"hf download {SMALL}" in refused()


@pytest.mark.parametrize("name", FILES)
def test_damaged_files_are_named(stored, name):
    path = stored / name
    path.write_bytes(path.read_bytes()[:-20])
    # all of the folder: the snapshot alone would be linked to the same damaged file again
    assert refused().endswith(f"if they are damaged, delete {stored.parents[1]}")


def test_a_missing_tensor_is_no_random_tensor(stored):
    tensors = load_file(stored / FILES[1])
    del tensors["head.conv3.weight"]
    save_file(tensors, stored / FILES[1], {"format": "pt"})
    assert re.search(r"1 tensors are missing .*head\.conv3\.weight", refused())


@pytest.mark.parametrize("kind", ["Base", "Large", "Metric-Indoor-Small"])
def test_other_models_are_refused(kind):
    """Two for their licence; the third says Small, but gives depth in metres: as a disparity, far would be near."""
    name = SMALL.replace("Small", kind)
    assert re.match(rf"{name} is refused: use {SMALL}, .*Apache-2\.0.*CC-BY-NC", refused(name))


def test_without_transformers(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert refused().endswith("pip install -e '.[depth]'")


def test_a_user_offline_reads_one_sentence_and_does_not_wait(transformers, tmp_path):
    """The whole way, in a process of its own: real environment variables, real traceback."""
    own = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
    code = "from lesionkit.depth_anything import DepthAnything; DepthAnything.from_pretrained()"
    begun = time.monotonic()
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=inherited | own, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    assert lines[-1].startswith("lesionkit.depth_anything.DepthAnythingError: the weights of ")
    assert str(tmp_path) in lines[-1]
    assert len(lines) < 15
    assert time.monotonic() - begun < 100
