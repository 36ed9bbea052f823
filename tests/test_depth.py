"""The depth network: its four maps, their range, and that it can learn."""

import math
from itertools import pairwise

import pytest
import torch

from lesionkit.depth import (
    LOG_SPAN,
    TYPICAL_MM,
    DepthConfig,
    DepthError,
    DepthNet,
    constant_depth,
    gradient_magnitude,
    local_mean,
    luminance_depth,
    radial_depth,
    superimpose,
    to_depth,
)
from lesionkit.metrics import depth_metrics
from lesionkit.scenes import SceneConfig, render_scenes
from lesionkit.training import depth_objective

LIMITS = (TYPICAL_MM * 2.7182818**-LOG_SPAN, TYPICAL_MM * 2.7182818**LOG_SPAN)


@pytest.fixture
def net() -> DepthNet:
    """Random weights, the zero-initialised heads included, so that every map is alive."""
    torch.manual_seed(0)
    net = DepthNet(pretrained=False)
    for head in (net.local_net.head, net.refine_net.head):
        torch.nn.init.normal_(head.weight, std=0.1)
    return net.eval()


def image(b=2, h=64, w=64, seed=0) -> torch.Tensor:
    return torch.rand(b, 3, h, w, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_third_is_first_times_the_exponential_of_second(net):
    maps = net(image())
    assert maps.second.abs().max() > 0.01
    assert maps.second.min() < 0 < maps.second.max()  # signed
    # the soft limit of `to_depth` bends large logarithms only
    torch.testing.assert_close(maps.third, maps.first * torch.exp(maps.second), rtol=0.02, atol=0)
    assert not torch.allclose(maps.target, maps.third)


def test_superimpose_adds():
    assert superimpose(torch.tensor([1.0]), torch.tensor([-0.25])).item() == 0.75


def test_to_depth_starts_at_the_typical_depth_and_stays_within_its_limits():
    values = to_depth(torch.tensor([-1e4, -0.1, 0.0, 0.1, 1e4]))
    assert values[2].item() == TYPICAL_MM
    assert (values[3] / values[2]).item() == pytest.approx(1.105, abs=0.001)  # +0.1 is ten per cent further
    assert values[0].item() == pytest.approx(LIMITS[0], rel=1e-4)
    assert values[-1].item() == pytest.approx(LIMITS[1], rel=1e-4)
    assert all(a < b for a, b in pairwise(values.tolist()))


@torch.no_grad()
def test_the_local_net_begins_without_a_correction():
    torch.manual_seed(0)
    maps = DepthNet()(image())
    assert torch.equal(maps.third, maps.first)
    assert torch.equal(maps.target, maps.third)


def test_the_global_net_sees_the_whole_image_and_the_local_net_does_not(net):
    x = image(1, 128, 128).requires_grad_()
    maps = net(x)
    maps.first[0, 0, 4, 4].backward(retain_graph=True)
    assert x.grad[0, :, 100:, 100:].abs().max() > 0
    x.grad = None
    maps.second[0, 0, 4, 4].backward()
    assert x.grad[0, :, 8:, :].abs().max() == 0
    assert x.grad[0, :, :5, :5].abs().max() > 0


def test_at_most_three_million_parameters():
    assert sum(p.numel() for p in DepthNet().parameters()) <= 3_000_000


@torch.no_grad()
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_black_and_saturated_images_give_finite_depth(net, value):
    maps = net(torch.full((1, 3, 64, 96), value))
    for depth in (maps.first, maps.third, maps.target):
        assert depth.shape == (1, 1, 64, 96)
        assert bool(depth.isfinite().all())
        assert depth.min() > 0


@torch.no_grad()
def test_a_batch_of_one_is_one_of_a_batch(net):
    both = image(2)
    torch.testing.assert_close(net(both[:1]).target, net(both).target[:1], rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_half_precision_cannot_overflow(net, scale):
    """Huge outputs of the heads, as a diverging training makes them, still give finite depths and logarithms."""
    net.global_net.head.weight *= scale
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = net(image())
    for depth in (maps.first, maps.third, maps.target):
        assert depth.dtype == torch.float32
        assert LIMITS[0] * 0.99 <= depth.min() <= depth.max() <= LIMITS[1] * 1.01
        assert bool(depth.half().isfinite().all())


@pytest.mark.parametrize("size", [(32, 64), (64, 32), (100, 96), (64, 80)])
def test_sizes_that_do_not_fit_are_named(net, size):
    with pytest.raises(DepthError, match=f"{size[1]}×{size[0]}.*multiples of 32, at least 64"):
        net(image(1, *size))


def test_the_global_net_sees_half_the_resolution(net):
    """A checkerboard of single pixels is grey to it; the local net sees it."""
    board = (torch.arange(64)[:, None] + torch.arange(64)[None]) % 2
    board, grey = board.float().expand(1, 3, 64, 64), torch.full((1, 3, 64, 64), 0.5)
    with torch.no_grad():
        seen, plain = net(board), net(grey)
    torch.testing.assert_close(seen.first, plain.first)
    assert not torch.allclose(seen.second, plain.second)


def test_it_begins_from_imagenet_weights():
    torch.manual_seed(0)
    first, second = DepthNet(), DepthNet()
    torch.manual_seed(0)
    untrained = DepthNet(pretrained=False)
    stem = "global_net.encoder.stem.weight"
    assert torch.equal(first.state_dict()[stem], second.state_dict()[stem])
    assert not torch.equal(first.state_dict()[stem], untrained.state_dict()[stem])


@torch.no_grad()
@pytest.mark.parametrize(
    ("parts", "same"), [(("global",), ("first", "third")), (("global", "local"), ("third",)), (("local",), ("third",))]
)
def test_what_an_ablation_leaves_out_adds_nothing(parts, same):
    torch.manual_seed(0)
    net = DepthNet(DepthConfig(parts=parts), pretrained=False).eval()
    if net.local_net:
        torch.nn.init.normal_(net.local_net.head.weight, std=0.1)
    maps = net(image())
    for name in same:
        assert torch.equal(getattr(maps, name), maps.target)
    assert (maps.second.abs().max() > 0) == ("local" in parts)
    assert (maps.first.std() > 0) == ("global" in parts)


@pytest.mark.parametrize("parts", [(), ("globall",)])
def test_unknown_parts_are_named(parts):
    with pytest.raises(DepthError, match="name at least one of global, local, refinement"):
        DepthNet(DepthConfig(parts=parts))


def test_one_small_image_cannot_be_trained_on(net):
    with pytest.raises(DepthError, match="at least two, or 128 pixels"):
        net.train()(image(1))
    assert net(image(2)).target.isfinite().all()
    assert net(image(1, 128, 128)).target.isfinite().all()


def test_not_a_number_stays_in_its_image(net):
    """`preprocess` refuses NaN; a network that is given one all the same does not spread it over the batch."""
    both = image(2)
    both[0, 0, 10, 10] = float("nan")
    with torch.no_grad():
        assert net(both).target[1].isfinite().all()


def test_it_learns_two_scenes():
    scenes = render_scenes(2, 64, 0, "cpu", SceneConfig.basic())
    batch = {"image": scenes.image, "depth": scenes.depth, "view": torch.ones_like(scenes.mask)}
    torch.manual_seed(0)
    net = DepthNet().train()
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3)
    losses = []
    for _ in range(20):
        loss = depth_objective(net, batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert min(losses[-3:]) < 0.5 * losses[0]


def test_depth_steepness_of_a_ramp_and_of_a_plane():
    ramp = torch.exp(0.05 * torch.arange(32.0)).view(1, 1, 1, 32).repeat(1, 1, 32, 1)
    steep = gradient_magnitude(ramp)[..., 2:-2, 2:-2]
    torch.testing.assert_close(steep, torch.full_like(steep, 0.05), rtol=0, atol=1e-4)
    assert gradient_magnitude(torch.full((1, 1, 32, 32), 40.0)).max() < 1e-5
    torch.testing.assert_close(gradient_magnitude(ramp * 3), gradient_magnitude(ramp), rtol=0, atol=1e-5)


# --- trivial estimates


def test_luminance_depth_inverts_the_inverse_square_law():
    # A grey wall at 20 to 60 mm under a light at the camera: linear brightness 1/d², stored as sRGB
    depth = torch.linspace(20, 60, 64).expand(1, 1, 64, 64)
    linear = (20 / depth) ** 2
    srgb = torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    found = luminance_depth(srgb.expand(1, 3, 64, 64), blur=0.0)
    torch.testing.assert_close(found, depth / 20, rtol=1e-4, atol=1e-4)
    blurred = luminance_depth(srgb.expand(1, 3, 64, 64))
    assert depth_metrics(blurred, depth, torch.ones_like(depth))["abs_rel"] < 0.01


def test_luminance_depth_softens_a_highlight_and_survives_black():
    image = torch.full((1, 3, 100, 100), 0.5)
    image[..., 50, 50] = 1
    sharp, soft = luminance_depth(image, blur=0.0), luminance_depth(image)
    assert sharp[0, 0, 50, 50] < soft[0, 0, 50, 50] < soft[0, 0, 0, 0]
    assert luminance_depth(torch.zeros(1, 3, 8, 8)).isfinite().all()


def test_radial_depth_is_far_in_the_centre():
    found = radial_depth(torch.zeros(2, 3, 5, 9))
    assert found.shape == (2, 1, 5, 9)
    assert found[0, 0, 2, 4] == 2
    assert found[0, 0].min().item() == pytest.approx(1)
    torch.testing.assert_close(found, found.flip(2, 3))
    # a pixel half-way to the right border: 4.5 of √(5² + 9²)
    assert found[0, 0, 2, 6].item() == pytest.approx(2 - 4.5 / math.hypot(5, 9))


def test_constant_depth_knows_nothing():
    assert (constant_depth(torch.rand(2, 3, 4, 5)) == torch.ones(2, 1, 4, 5)).all()


@torch.no_grad()
def test_a_small_image_is_enlarged_for_a_network_that_wants_pixels(net):
    small = image(1, 64, 96)
    seen = torch.nn.functional.interpolate(small, size=(128, 192), mode="bilinear", align_corners=False)
    large = net(seen)
    net.sees_px = 128
    try:
        maps, same = net(small), net(seen)
    finally:
        net.sees_px = 0
    assert maps.target.shape == (1, 1, 64, 96)
    torch.testing.assert_close(maps.target, torch.nn.functional.avg_pool2d(large.target, 2), rtol=1e-5, atol=1e-5)
    assert torch.equal(same.target, large.target)


def test_a_local_mean_leaves_a_plane_as_it_is_and_knows_nothing_beyond_the_frame():
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(64.0), indexing="ij")
    plane = (3 + 0.5 * x - 0.2 * y)[None, None]
    torch.testing.assert_close(local_mean(plane, 1 / 8), plane, rtol=1e-5, atol=1e-3)
    spike = torch.zeros(1, 1, 41, 65)
    spike[..., 20, 32] = 1
    spread = local_mean(spike, 4 / 65)
    assert spread.sum() == pytest.approx(1, abs=5e-3)
    assert spread[0, 0, 20, 36] / spread[0, 0, 20, 32] == pytest.approx(math.exp(-0.5), rel=1e-3)
