"""What the two networks learn from: objectives, augmented batches, and the evaluation of many images."""

import pytest
import torch
from torch import nn

from lesionkit import losses, training
from lesionkit.augment import Augment, AugmentConfig
from lesionkit.depth import DepthNet
from lesionkit.fitting import TrainingError
from lesionkit.frames import rendered_frames
from lesionkit.scenes import SceneConfig
from lesionkit.segmentation import DepthGuidedSegmenter, GuidanceError
from lesionkit.training import TrainConfig, augmented, estimate_depth, fit, segment, train_depth

SIZE = 32

# --- objectives


def test_reading_b_teaches_both_networks_at_once():
    """Reading B of the method on two frames: the joint loss falls, and both networks have moved."""
    frames = rendered_frames("train", 2, 64, 0, SceneConfig.basic())
    data = {"image": frames.image, "mask": frames.mask, "depth": frames.depth, "view": frames.view}
    torch.manual_seed(0)
    both = nn.ModuleDict({"depth": DepthNet(), "segmenter": DepthGuidedSegmenter("depth", "small")})
    before = {name: [p.detach().clone() for p in part.parameters()] for name, part in both.items()}
    loss = losses.joint(losses.weighted("dice", "bce", 0.5), losses.scale_invariant_log, 0.5)
    config = TrainConfig(epochs=12, batch_size=2, ema_decay=0.5, precision="fp32")
    history = fit(both, data, training.joint_objective(loss), config, log=lambda line: None)
    assert history.loss[-1] < 0.7 * history.loss[0]
    for name, part in both.items():
        assert any(not torch.equal(a, b) for a, b in zip(before[name], part.parameters(), strict=True))


def test_reading_b_teaches_depth_through_the_segmentation_as_well():
    """With the whole weight on the segmentation, the depth network still gets a gradient: through the attention."""
    frames = rendered_frames("train", 2, 64, 0, SceneConfig.basic())
    data = {"image": frames.image, "mask": frames.mask, "depth": frames.depth, "view": frames.view}
    torch.manual_seed(0)
    both = nn.ModuleDict({"depth": DepthNet(), "segmenter": DepthGuidedSegmenter("depth", "small")})
    for attention in both["segmenter"].attention:
        nn.init.normal_(attention.layer.weight, std=0.1)  # at zero, as it begins, no gradient passes
    loss = losses.joint(losses.weighted("dice", "bce", 0.5), losses.scale_invariant_log, 1.0)
    training.joint_objective(loss)(both, data).backward()
    assert both["depth"].global_net.head.weight.grad.abs().max() > 0


# --- augmentation of batches


def test_augmented_moves_all_maps_and_fills_depth():
    mask = torch.zeros(4, 1, 64, 64)
    mask[:, :, 10:30, 10:40] = 1
    batch = {"image": mask.repeat(1, 3, 1, 1), "mask": mask, "depth": 20 + 10 * mask, "view": torch.ones_like(mask)}
    torch.manual_seed(0)
    out = augmented(Augment())(batch)
    assert (out["mask"] != mask).any()
    assert torch.equal(out["depth"] == 30, out["mask"] == 1)
    assert (out["view"] == 0).any()  # a warp opened corners
    corners = out["depth"][out["view"] == 0]
    assert bool((corners == 20).all())  # the median, not 0
    assert torch.equal(batch["mask"], mask)


def test_corners_get_the_median_of_what_is_known():
    depth = torch.linspace(10, 50, 41).view(1, 1, 1, 41).clone()
    depth[..., :20] = 0  # nearly half of it opened by a warp: 30 to 50 is left
    both = torch.cat([depth, torch.zeros_like(depth)])
    filled = augmented(lambda *maps: maps)({"image": both.repeat(1, 3, 1, 1), "depth": both})["depth"]
    assert torch.equal(filled[0, ..., 20:], depth[0, ..., 20:])
    assert bool((filled[0, ..., :20] == 40).all())
    assert bool((filled[1] == 1).all())  # nothing known: any depth that has a logarithm


# --- evaluation


@pytest.fixture(scope="module")
def some():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(5, 3, 64, 64, generator=generator), 10 + 50 * torch.rand(5, 1, 64, 64, generator=generator)


def test_estimate_depth_does_not_depend_on_the_batch_size(some):
    torch.manual_seed(0)
    net = DepthNet(pretrained=False)
    whole = estimate_depth(net, some[0], batch_size=5)
    assert whole.std() > 1e-3
    torch.testing.assert_close(estimate_depth(net, some[0], batch_size=2), whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("guidance", ["depth", "shuffled"])
def test_segment_does_not_depend_on_the_batch_size(some, guidance):
    torch.manual_seed(0)
    net = DepthGuidedSegmenter(guidance, "small")
    for layer in net.attention:
        nn.init.normal_(layer.layer.weight, std=0.3)
    whole = segment(net, *some, batch_size=5)
    torch.testing.assert_close(segment(net, *some, batch_size=2), whole, rtol=1e-4, atol=1e-4)
    assert 0 <= whole.min() < whole.max() <= 1
    if guidance == "shuffled":
        assert (segment(net, *some, seed=1) - whole).abs().max() > 1e-4


def test_shuffled_guidance_never_takes_a_frames_own_depth(some):
    """With donors the result is that of the arm `depth` on the donors; not one seed gives the frame's own."""
    torch.manual_seed(0)
    net = DepthGuidedSegmenter("shuffled", "small")
    for layer in net.attention:
        nn.init.normal_(layer.layer.weight, std=0.3)
    net.guidance = "depth"
    own = segment(net, *some)
    net.guidance = "shuffled"
    for seed in range(8):
        difference = (segment(net, *some, seed=seed) - own).abs().amax(dim=(1, 2, 3))
        assert difference.min() > 1e-5
    with pytest.raises(GuidanceError, match="at least two frames"):
        segment(net, some[0][:1], some[1][:1])


def test_a_depth_checkpoint_of_another_augmentation_is_refused(tmp_path):
    data = {"image": torch.rand(4, 3, 64, 64), "depth": torch.rand(4, 1, 64, 64) + 1, "view": torch.ones(4, 1, 64, 64)}
    config, how = TrainConfig(1, 4, precision="fp32"), {"log": lambda line: None, "checkpoint": tmp_path / "depth.pt"}
    _, history = train_depth(data, config, stages=Augment(AugmentConfig(blur=0.5)), **how)
    assert history.loss[0] > 0
    with pytest.raises(TrainingError, match="comes from another configuration"):
        train_depth(data, config, **how)
