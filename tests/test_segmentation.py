"""What depth change is, guidance that can only be learned, and arms that differ in what feeds them alone."""

import pytest
import torch

from lesionkit.depth import DepthNet, luminance_depth
from lesionkit.segmentation import (
    CHANGE,
    GUIDANCE,
    Context,
    DepthGuidedSegmenter,
    GuidanceError,
    depth_change,
    draw_donors,
    guidance_map,
    standardise,
)

B, SIZE = 3, 64
BRANCHED = [kind for kind in GUIDANCE if kind != "plain"]
RELIEF = [name for name in CHANGE if name.startswith("relief")]


def image(seed=0) -> torch.Tensor:
    return torch.rand(B, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def depth(seed=1) -> torch.Tensor:
    return 10 + 60 * torch.rand(B, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def make(guidance="depth", awake=True) -> DepthGuidedSegmenter:
    """A small segmenter; `awake` gives the attention layers the weights that training would."""
    torch.manual_seed(0)
    net = DepthGuidedSegmenter(guidance, encoder="small")
    if awake and guidance != "plain":
        for layer in net.attention:
            torch.nn.init.normal_(layer.layer.weight, std=0.3)
    return net.eval()


# --- context


def test_context_adds_nothing_before_training_and_then_sees_the_whole_image():
    torch.manual_seed(0)
    layer, x = Context(8), torch.rand(2, 8, 10, 10)
    assert torch.equal(layer(x), x)
    torch.nn.init.normal_(layer.project.weight)
    changed = x.clone()
    changed[:, :, -1, -1] += 5
    difference = (layer(changed) - layer(x)).abs()
    assert difference[:, :, 0, 0].min() > 0  # from the far corner
    torch.testing.assert_close(layer(x[:1]), layer(x)[:1])  # and nothing of the other image


# --- fair arms


@pytest.mark.parametrize("encoder", ["small", "efficientnet-lite0"])
def test_every_arm_with_a_branch_has_the_same_parameters_and_plain_those_of_its_rest(encoder):
    nets = {kind: DepthGuidedSegmenter(kind, encoder, pretrained=False) for kind in GUIDANCE}
    shapes = {kind: {name: p.shape for name, p in net.named_parameters()} for kind, net in nets.items()}
    assert all(shapes[kind] == shapes["depth"] for kind in BRANCHED)
    branch = ("depth_features.", "attention.")
    assert shapes["plain"] == {name: p for name, p in shapes["depth"].items() if not name.startswith(branch)}


def test_one_seed_gives_all_arms_the_same_first_weights():
    states = []
    for kind in GUIDANCE:
        torch.manual_seed(4)
        states.append(DepthGuidedSegmenter(kind, "small").state_dict())
    shared = states[list(GUIDANCE).index("plain")]
    assert all(torch.equal(state[name], value) for state in states for name, value in shared.items())


def test_the_shipped_size_of_both_networks_is_within_its_budget():
    nets = DepthNet(pretrained=False), DepthGuidedSegmenter("depth", "efficientnet-lite2", pretrained=False)
    assert sum(p.numel() for net in nets for p in net.parameters()) <= 8_200_000


@pytest.mark.parametrize("kind", BRANCHED)
def test_all_parameters_of_the_branch_receive_gradient(kind):
    net = make(kind).train()
    net(image(), depth()).logits.square().sum().backward()
    for module in (net.depth_features, net.attention):
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, name
            assert bool(parameter.grad.isfinite().all()), name
            assert parameter.grad.abs().sum() > 0, name


# --- depth change


def oblique_plane(h: int, w: int, normal=(0.5, 0.2, 1.0)) -> torch.Tensor:
    """Distance along the axis of a plane that a pinhole camera of 90 degrees sees: 20 mm away, leaning."""
    y, x = torch.meshgrid(
        (torch.arange(h) + 0.5 - h / 2) / (w / 2), (torch.arange(w) + 0.5 - w / 2) / (w / 2), indexing="ij"
    )
    a, b, c = normal
    return (20 / (a * x + b * y + c))[None, None]


def bump(h: int, w: int, height_mm: float, radius: float = 0.06) -> torch.Tensor:
    """The same plane with a bump in its middle, towards the camera; radius as a share of the width."""
    y, x = torch.meshgrid(torch.arange(h) + 0.5 - h / 2, torch.arange(w) + 0.5 - w / 2, indexing="ij")
    return oblique_plane(h, w) - height_mm * torch.exp(-(x**2 + y**2) / (2 * (radius * w) ** 2))


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (317, 250)])
def test_an_oblique_plane_has_no_relief_up_to_the_border(size):
    change = depth_change(oblique_plane(*size))
    assert change.shape == (1, 6, *size)
    assert change[:, [CHANGE.index(name) for name in RELIEF]].abs().max() < 2e-3
    assert change[:, CHANGE.index("steepness"), 2:-2, 2:-2].min() > 0.01  # it does lean


@pytest.mark.parametrize("name", RELIEF)
def test_a_bump_stands_out_and_a_hollow_lies_back(name):
    h = w = 128
    middle = (0, CHANGE.index(name), h // 2, w // 2)
    assert depth_change(bump(h, w, 2.0))[middle] > 0.02
    assert depth_change(bump(h, w, -2.0))[middle] < -0.02


def test_relief_is_the_same_whatever_the_unit_and_the_number_of_pixels():
    small, large = bump(96, 96, 2.0), bump(288, 288, 2.0)
    torch.testing.assert_close(depth_change(small * 1000), depth_change(small), rtol=0, atol=1e-4)
    seen = torch.nn.functional.avg_pool2d(depth_change(large), 3)
    inner = (slice(None), slice(1, None), slice(4, -4), slice(4, -4))
    torch.testing.assert_close(seen[inner], depth_change(small)[inner], rtol=0, atol=0.02)


@pytest.mark.parametrize("low", [1e-6, 1.0])
def test_constant_maps_steps_and_the_surround_stay_bounded_with_finite_gradients(low):
    step = torch.full((1, 1, 64, 64), 80.0)
    step[..., 20:40, 50:] = low  # a near thing at the frame's border
    disc = torch.where(torch.linspace(-1, 1, 64)[:, None] ** 2 + torch.linspace(-1, 1, 64) ** 2 < 0.8, 30.0, 200.0)
    assert depth_change(torch.full((1, 1, 32, 96), 7.0)).abs().max() < 1e-3
    for given in (step, disc[None, None]):
        given = given.clone().requires_grad_()
        change = depth_change(given)
        change[:, 1:].sum().backward()
        assert change[:, 1:].abs().max() <= 1
        assert bool(change.isfinite().all())
        assert bool(given.grad.isfinite().all())


def test_depth_change_is_single_precision_whatever_the_precision_around():
    given = bump(64, 64, 1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = depth_change(given)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, depth_change(given))
    assert depth_change(given.half()).dtype == torch.float32


# --- attention


@torch.no_grad()
@pytest.mark.parametrize("kind", GUIDANCE)
def test_attention_starts_at_exactly_one(kind):
    found = make(kind, awake=False)(image(), depth())
    assert [w.shape[-1] for w in found.attention] == [32, 16, 8, 4, 2]
    for weights in found.attention:
        assert torch.equal(weights, torch.ones_like(weights))


@torch.no_grad()
@pytest.mark.parametrize("scale", [0.3, 30.0])
def test_weights_are_one_for_each_channel_and_place_and_never_negative(scale):
    net = make()
    for layer in net.attention:
        torch.nn.init.normal_(layer.layer.weight, std=scale)
    weights = net.attend(depth())
    assert [w.shape[1] for w in weights] == list(net.encoder.channels)
    for one in weights:
        assert 0 <= one.min() < 1 < one.max()
        assert bool(one.isfinite().all())
        assert (one[:, 0] - one[:, 1]).abs().max() > 1e-3
    for one, shown in zip(weights, net(image(), depth()).attention, strict=True):
        torch.testing.assert_close(shown, one.mean(dim=1, keepdim=True))


@torch.no_grad()
def test_depth_guides_the_logits_once_the_attention_is_awake():
    asleep, awake = make(awake=False), make()
    assert torch.equal(asleep(image(), depth()).logits, asleep(image(), depth(9)).logits)
    difference = awake(image(), depth()).logits - awake(image(), depth(9)).logits
    assert difference.abs().max() > 1e-3


@torch.no_grad()
def test_second_image_features_are_weights_times_first(monkeypatch):
    net, seen = make(), {}
    net.encoder.register_forward_hook(lambda module, inputs, output: seen.update(first=output))
    net.decoder.register_forward_pre_hook(lambda module, inputs: seen.update(second=inputs[0]))
    net(image(), depth())
    for first, second, weights in zip(seen["first"], seen["second"], net.attend(depth()), strict=True):
        assert torch.equal(second, first * weights)


@torch.no_grad()
@pytest.mark.parametrize("kind", GUIDANCE)
def test_forward_is_made_of_its_four_steps(kind):
    net, donors = make(kind), draw_donors(depth())
    weights = net.attend(depth(), image(), donors)
    found = net(image(), depth())
    assert torch.equal(net.decode(net.weigh(net.encode(image()), weights)), found.logits)
    given = {"depth": depth(), "image": image(), "donors": donors}
    needed = net.attend(**{name: value for name, value in given.items() if name == GUIDANCE[kind].needs})
    assert all(torch.equal(a, b) for a, b in zip(weights, needed, strict=True))


def test_the_kinds_that_an_image_alone_can_be_given_to():
    alone = {name for name, kind in GUIDANCE.items() if kind.alone}
    assert alone >= {"depth", "plain", "learned", "luminance"}
    assert not alone & {"shuffled", "oracle"}  # another frame's depth, or the exact one, nobody has beside an image


@torch.no_grad()
def test_logits_have_the_input_resolution_and_images_are_independent():
    net = make()
    found = net(image(), depth())
    assert found.logits.shape == (B, 1, SIZE, SIZE)
    assert torch.equal(found.probability, torch.sigmoid(found.logits))
    alone = net(image()[1:2], depth()[1:2])
    torch.testing.assert_close(alone.logits, found.logits[1:2], rtol=1e-4, atol=1e-4)


# --- the map that feeds the attention


@pytest.mark.parametrize("kind", ["depth", "oracle"])
def test_depth_is_free_of_scale_but_not_of_shape(kind):
    maps = guidance_map(kind, image(), depth())
    torch.testing.assert_close(guidance_map(kind, image(), depth() * 3), maps, rtol=1e-4, atol=1e-4)
    assert (guidance_map(kind, image(), depth(9)) - maps).abs().mean() > 0.3
    torch.testing.assert_close(maps[:, :1], standardise(torch.log(depth())))


def test_learned_is_the_image_in_colour():
    learned = guidance_map("learned", image())
    torch.testing.assert_close(learned.mean(dim=(1, 2, 3)), torch.zeros(B), rtol=0, atol=1e-5)
    torch.testing.assert_close(learned.std(dim=(1, 2, 3)), torch.ones(B), rtol=0.01, atol=0)
    torch.testing.assert_close(learned[:, ::2], standardise(image()))


@torch.no_grad()
def test_plain_has_no_branch_and_looks_at_no_depth():
    net = make("plain")
    assert not hasattr(net, "depth_features")
    assert torch.equal(net(image(), depth()).logits, net(image()).logits)
    assert torch.equal(net(image()).logits, net.decode(net.encode(image())))


@pytest.mark.parametrize("kind", ["learned", "luminance"])
def test_arms_without_depth_do_not_see_it(kind):
    assert torch.equal(guidance_map(kind, image(), depth()), guidance_map(kind, image(), None))


def test_luminance_takes_brighter_for_nearer():
    ramp = torch.linspace(0.2, 0.9, SIZE).expand(1, 3, SIZE, SIZE)
    guide = guidance_map("luminance", ramp)[0, 0, SIZE // 2]
    assert bool((guide.diff() < 0).all())
    bright = image() * 0.5 + 0.5  # view everywhere
    torch.testing.assert_close(guidance_map("luminance", bright), depth_change(luminance_depth(bright)))


def test_the_black_surround_does_not_use_up_the_luminance_map():
    """Brightness calls the surround the farthest place of all; the control would be crippled by it."""
    torch.manual_seed(0)
    disc = torch.linspace(-1, 1, 64)
    inside = (disc[:, None] ** 2 + disc[None] ** 2 < 0.6).float()
    picture = (0.25 + 0.5 * torch.rand(1, 3, 8, 8)).repeat_interleave(8, 2).repeat_interleave(8, 3) * inside
    assert guidance_map("luminance", picture)[0, 0][inside > 0].std() > 0.9


def test_shuffled_is_another_frames_depth():
    donors = draw_donors(depth())
    assert torch.equal(guidance_map("shuffled", image(), depth(), donors), guidance_map("depth", image(), donors))


def test_donors_are_never_its_own():
    frames = depth()
    for seed in range(20):
        for own, donor in zip(frames, draw_donors(frames, seed), strict=True):
            assert not torch.equal(own, donor)
            assert any(torch.equal(donor, frame) for frame in frames)


def test_donors_come_from_half_the_pool_away():
    """Sorted by name, the next frame is often of the same video."""
    pool = torch.arange(10.0).view(10, 1, 1, 1)
    assert ((draw_donors(pool) - pool).abs() == 5).all()


@pytest.mark.parametrize("guidance", GUIDANCE)
def test_no_arm_uses_up_random_numbers(guidance):
    """Or the arms would be trained with different augmentation."""
    model = make(guidance)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    model(image(), depth())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_flat_map_is_standardised_to_zeros():
    assert standardise(torch.full((2, 1, 8, 8), 40.0)).abs().max() < 1e-3


# --- errors


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: guidance_map("dept", image()), "'dept' does not exist: use one of depth, plain"),
        (lambda: DepthGuidedSegmenter("magic", "small"), "'magic' does not exist"),
        (lambda: guidance_map("depth", image()), "needs `depth`: pass it"),
        (lambda: guidance_map("oracle", image()), "needs `depth`: pass it"),
        (lambda: guidance_map("shuffled", image(), depth()), "needs `donors`"),
        (lambda: make("learned").attend(depth()), "needs `image`: pass it"),
        (lambda: guidance_map("plain", image()), "'plain' has no branch"),
        (lambda: draw_donors(depth()[:1]), "at least two frames"),
        (lambda: make("depth")(image()[..., :60], depth()[..., :60]), "multiples of 32"),
        (lambda: make("shuffled")(image()[:1], depth()[:1]), "at least two frames"),
        (lambda: make("depth")(image(), depth()[..., :32]), "the depth map is 32×64 and the image 64×64"),
        (lambda: make("depth")(image(), depth() * 0), "zeros, negative or infinite values or NaN: give positive"),
        (lambda: depth_change(depth() * torch.nan), "zeros, negative or infinite values or NaN"),
        (lambda: depth_change(depth() * torch.inf), "zeros, negative or infinite values or NaN"),
        (lambda: depth_change(-depth()), "zeros, negative or infinite values or NaN"),
    ],
)
def test_errors_say_what_to_do(call, words):
    with pytest.raises(GuidanceError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
