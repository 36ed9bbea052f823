"""Guidance that can only be learned, arms that differ in one map alone, and weights that cannot switch features off."""

import pytest
import torch

from lesionkit.depth import DepthNet, luminance_depth
from lesionkit.segmentation import (
    GUIDANCE,
    Attention,
    Context,
    DepthGuidedSegmenter,
    GuidanceError,
    draw_donors,
    guidance_map,
    standardise,
)

B, SIZE = 3, 64


def image(seed=0) -> torch.Tensor:
    return torch.rand(B, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def depth(seed=1) -> torch.Tensor:
    return 10 + 60 * torch.rand(B, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def make(guidance="depth", awake=True) -> DepthGuidedSegmenter:
    """A small segmenter; `awake` gives the attention layers the weights that training would."""
    torch.manual_seed(0)
    net = DepthGuidedSegmenter(guidance, encoder="small", pretrained=False)
    if awake:
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
def test_every_arm_has_the_same_parameters(encoder):
    shapes = {
        kind: {n: tuple(p.shape) for n, p in DepthGuidedSegmenter(kind, encoder, pretrained=False).named_parameters()}
        for kind in GUIDANCE
    }
    assert all(shapes[kind] == shapes["depth"] for kind in GUIDANCE)


def test_the_whole_model_has_at_most_eight_million_parameters():
    nets = DepthNet(), DepthGuidedSegmenter(pretrained=False)
    assert sum(p.numel() for net in nets for p in net.parameters()) <= 8_000_000


@pytest.mark.parametrize("kind", GUIDANCE)
def test_all_parameters_of_the_branch_receive_gradient(kind):
    net = make(kind).train()
    net(image(), depth()).logits.square().sum().backward()
    for module in (net.depth_features, net.attention):
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, name
            assert bool(parameter.grad.isfinite().all()), name
            assert parameter.grad.abs().sum() > 0, name


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
def test_attention_always_has_mean_one(scale):
    net = make()
    for layer in net.attention:
        torch.nn.init.normal_(layer.layer.weight, std=scale)
        torch.nn.init.normal_(layer.layer.bias, mean=-5.0)  # pushes every weight towards nothing
    for weights in net(image(), depth()).attention:
        torch.testing.assert_close(weights.mean(dim=(2, 3)), torch.ones(B, 1), rtol=1e-4, atol=0)
        assert weights.min() >= 0


@torch.no_grad()
def test_attention_that_wants_to_switch_everything_off_is_finite():
    layer = Attention(2)
    layer.layer.bias.fill_(-200.0)  # the sigmoid is exactly zero in float32
    weights = layer(torch.randn(1, 2, 8, 8))
    assert bool(weights.isfinite().all())


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
    found = net(image(), depth())
    for first, second, weights in zip(seen["first"], seen["second"], found.attention, strict=True):
        assert torch.equal(second, first * weights)


@torch.no_grad()
@pytest.mark.parametrize("kind", GUIDANCE)
def test_forward_is_made_of_its_four_steps(kind):
    net, donors = make(kind), draw_donors(depth())
    weights = net.attend(depth(), image(), donors)
    found = net(image(), depth())
    assert torch.equal(net.decode(net.weigh(net.encode(image()), weights)), found.logits)
    assert all(torch.equal(a, b) for a, b in zip(weights, found.attention, strict=True))
    given = {"depth": depth(), "image": image(), "donors": donors}
    needed = net.attend(**{name: value for name, value in given.items() if name == GUIDANCE[kind].needs})
    assert all(torch.equal(a, b) for a, b in zip(weights, needed, strict=True))


def test_the_kinds_that_an_image_alone_can_be_given_to():
    alone = {name for name, kind in GUIDANCE.items() if kind.alone}
    assert alone >= {"depth", "none", "learned", "luminance"}
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
    plain = guidance_map(kind, image(), depth())
    torch.testing.assert_close(guidance_map(kind, image(), depth() * 3), plain, rtol=1e-4, atol=1e-4)
    assert (guidance_map(kind, image(), depth(9)) - plain).abs().mean() > 0.5
    torch.testing.assert_close(plain[:, :1], standardise(torch.log(depth())))
    assert torch.equal(plain[:, 0], plain[:, 2])


def test_none_is_constant_and_learned_is_the_image():
    assert torch.equal(guidance_map("none", image(), depth()), torch.ones(B, 3, SIZE, SIZE))
    learned = guidance_map("learned", image())
    torch.testing.assert_close(learned.mean(dim=(1, 2, 3)), torch.zeros(B), rtol=0, atol=1e-5)
    torch.testing.assert_close(learned.std(dim=(1, 2, 3)), torch.ones(B), rtol=0.01, atol=0)
    assert not torch.allclose(learned[:, 0], learned[:, 1])


@pytest.mark.parametrize("kind", ["none", "learned", "luminance"])
def test_arms_without_depth_do_not_see_it(kind):
    assert torch.equal(guidance_map(kind, image(), depth()), guidance_map(kind, image(), None))


def test_luminance_takes_brighter_for_nearer():
    ramp = torch.linspace(0.2, 0.9, SIZE).expand(1, 3, SIZE, SIZE)
    guide = guidance_map("luminance", ramp)[0, 0, SIZE // 2]
    assert bool((guide.diff() < 0).all())
    bright = image() * 0.5 + 0.5  # view everywhere
    torch.testing.assert_close(guidance_map("luminance", bright)[:, :1], standardise(luminance_depth(bright).log()))


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
        (lambda: guidance_map("dept", image()), "'dept' does not exist: use one of depth, none"),
        (lambda: DepthGuidedSegmenter("magic", "small"), "'magic' does not exist"),
        (lambda: guidance_map("depth", image()), "needs `depth`: pass it"),
        (lambda: guidance_map("oracle", image()), "needs `depth`: pass it"),
        (lambda: guidance_map("shuffled", image(), depth()), "needs `donors`"),
        (lambda: make("learned").attend(depth()), "needs `image`: pass it"),
        (lambda: draw_donors(depth()[:1]), "at least two frames"),
        (lambda: make("depth")(image()[..., :60], depth()[..., :60]), "multiples of 32"),
        (lambda: make("shuffled")(image()[:1], depth()[:1]), "at least two frames"),
    ],
)
def test_errors_say_what_to_do(call, words):
    with pytest.raises(GuidanceError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
