"""Losses: values worked out by hand on 4×4, agreement with MONAI, Kornia and torch, gradients, edge cases."""

import math
from functools import partial

import kornia.losses
import monai.losses
import numpy as np
import pytest
import torch

from lesionkit import losses

NAMES = list(losses.LOSSES)
EXTREME = 1e4

# Truth: 4 lesion pixels. Prediction: 6 pixels, 3 of them right. TP = 3, FP = 3, FN = 1.
TRUTH = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]).float()[None, None]
MARKED = torch.tensor([[1, 1, 1, 0], [1, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]).float()[None, None]
HARD = (2 * MARKED - 1) * EXTREME  # logits whose sigmoid is exactly 0 or 1
UNDECIDED = torch.zeros(1, 1, 4, 4)  # p = 1/2 everywhere
LEFT_HALF = torch.tensor([1.0, 1.0, 0.0, 0.0]).expand(1, 1, 4, 4).contiguous()


def random_case(batch=3, size=8, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, 1, size, size, generator=generator, dtype=dtype) * 2
    mask = (torch.rand(batch, 1, size, size, generator=generator) < 0.3).to(dtype)
    return logits, mask


def empty_full_one_pixel(size=6):
    masks = torch.zeros(3, 1, size, size)
    masks[1] = 1
    masks[2, 0, 2, 3] = 1
    return masks


# --- values by hand ----------------------------------------------------------------------------------

BY_HAND = {
    # all pixels undecided: Σp = 8, Σy = 4, TP = 2, FP = 6, FN = 2
    ("bce", "undecided"): math.log(2),
    ("dice", "undecided"): 8 / 13,  # 1 − (2·2 + 1)/(8 + 4 + 1)
    ("iou", "undecided"): 8 / 11,  # 1 − (2 + 1)/(8 + 4 − 2 + 1)
    ("tversky", "undecided"): 1 - 3 / 6.2,  # denominator 2 + 0.3·6 + 0.7·2 + 1
    # (1 − p_t)² = 1/4; α_t is 0.25 on 4 pixels and 0.75 on 12: (4·0.25 + 12·0.75)/16 = 10/16
    ("focal", "undecided"): 10 / 16 / 4 * math.log(2),
    ("lovasz", "undecided"): 1.0,  # every hinge error is 1, the weights sum to 1
    # the hard prediction: TP = 3, FP = 3, FN = 1
    ("dice", "hard"): 4 / 11,  # 1 − (6 + 1)/(6 + 4 + 1)
    ("iou", "hard"): 1 / 2,  # 1 − (3 + 1)/(7 + 1)
    ("tversky", "hard"): 1 - 4 / 5.6,  # denominator 3 + 0.3·3 + 0.7·1 + 1
    ("bce", "hard"): 4 * EXTREME / 16,  # each of the 4 wrong pixels costs |z|
    # hinge error of the 4 wrong pixels is z + 1; 1 − IoU once all are wrong is 1 − 3/7
    ("lovasz", "hard"): (EXTREME + 1) * 4 / 7,
}


@pytest.mark.parametrize(("name", "case"), BY_HAND)
def test_value_by_hand(name, case):
    logits = {"undecided": UNDECIDED, "hard": HARD}[case]
    assert losses.get(name)(logits, TRUTH).item() == pytest.approx(BY_HAND[name, case], rel=1e-5)


def test_boundary_by_hand():
    # Lesion: the two left columns. Column distances to the outline −1.5, −0.5, 0.5, 1.5 px; diagonal √32 px
    diagonal = math.sqrt(32)
    last_column = torch.tensor([-1.0, -1.0, -1.0, 1.0]).expand(1, 1, 4, 4) * EXTREME
    perfect = (2 * LEFT_HALF - 1) * EXTREME
    # 4 of 16 pixels at 1.5 px; then 8 of 16 at a mean of −1 px; then all, which cancel
    assert losses.boundary(last_column, LEFT_HALF).item() == pytest.approx(4 * 1.5 / 16 / diagonal)
    assert losses.boundary(perfect, LEFT_HALF).item() == pytest.approx(-0.5 / diagonal)
    assert losses.boundary(torch.full_like(perfect, EXTREME), LEFT_HALF).item() == pytest.approx(0, abs=1e-7)


def test_lovasz_hinge_of_unit_logits_is_twice_one_minus_iou():
    assert losses.lovasz_hinge(2 * MARKED - 1, TRUTH).item() == pytest.approx(2 * (1 - 3 / 7))


def test_signed_distance_is_the_nearest_pixel_of_the_other_kind():
    mask = random_case(batch=2, size=7, seed=4)[1]
    found = losses.signed_distance(mask) * math.hypot(7, 7)
    for b, image in enumerate(mask[:, 0].numpy() > 0.5):
        for y, x in np.ndindex(7, 7):
            other = np.argwhere(image != image[y, x])
            nearest = np.hypot(*(other - (y, x)).T).min() - 0.5
            assert found[b, 0, y, x].item() == pytest.approx(-nearest if image[y, x] else nearest, rel=1e-5)


# --- oracles -----------------------------------------------------------------------------------------

ORACLES = {
    "bce": torch.nn.functional.binary_cross_entropy_with_logits,
    "dice": monai.losses.DiceLoss(sigmoid=True, smooth_nr=1, smooth_dr=1),
    "tversky": monai.losses.TverskyLoss(sigmoid=True, alpha=0.3, beta=0.7, smooth_nr=1, smooth_dr=1),
    # Tversky with α = β = 1 is IoU; MONAI's own DiceLoss(jaccard=True) smooths otherwise
    "iou": monai.losses.TverskyLoss(sigmoid=True, alpha=1, beta=1, smooth_nr=1, smooth_dr=1),
    "focal": monai.losses.FocalLoss(gamma=2.0, alpha=0.25),
    "lovasz": lambda z, y: kornia.losses.lovasz_hinge_loss(z, y[:, 0]),
}


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_oracle(name, seed):
    logits, mask = random_case(seed=seed)
    mask[0] = 0  # one lesion-free image in the batch
    torch.testing.assert_close(losses.get(name)(logits, mask), ORACLES[name](logits, mask))


def test_iou_agrees_with_monai_jaccard_without_smoothing():
    logits, mask = random_case()
    oracle = monai.losses.DiceLoss(sigmoid=True, jaccard=True, smooth_nr=0, smooth_dr=0)
    torch.testing.assert_close(losses.iou(logits, mask, smooth=0.0), oracle(logits, mask))


@pytest.mark.parametrize(("gamma", "alpha"), [(0.0, 0.5), (1.0, 0.25), (3.5, 0.9)])
def test_focal_agrees_with_kornia(gamma, alpha):
    logits, mask = random_case()
    oracle = kornia.losses.binary_focal_loss_with_logits(logits, mask, alpha, gamma, reduction="mean")
    torch.testing.assert_close(losses.focal(logits, mask, gamma=gamma, alpha=alpha), oracle)


def test_tversky_contains_dice():
    logits, mask = random_case()
    half = losses.tversky(logits, mask, alpha=0.5, beta=0.5, smooth=1.0)
    torch.testing.assert_close(half, losses.dice(logits, mask, smooth=2.0))


# --- what every segmentation loss must do ------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_gradient(name):
    logits, mask = random_case(batch=2, size=4, seed=1, dtype=torch.float64)
    mask[1] = 0
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: losses.get(name)(z, mask), (logits,))


@pytest.mark.parametrize("name", NAMES)
def test_gradient_raises_lesion_and_lowers_background(name):
    logits, mask = random_case(seed=2)
    logits.requires_grad_()
    (slope,) = torch.autograd.grad(losses.get(name)(logits, mask), logits)
    assert (slope[mask == 1] <= 0).all()
    assert (slope[mask == 0] >= 0).all()
    assert slope[mask == 1].min() < 0 < slope[mask == 0].max()


@pytest.mark.parametrize("name", NAMES)
def test_truth_beats_its_shifted_copy(name):
    mask = torch.zeros(1, 1, 12, 12)
    mask[..., 3:8, 3:8] = 1
    right, wrong = 8 * (2 * mask - 1), 8 * (2 * mask.roll(2, dims=3) - 1)
    assert losses.get(name)(right, mask) < losses.get(name)(wrong, mask)


@pytest.mark.parametrize("name", NAMES)
def test_is_the_mean_of_single_images(name):
    logits, mask = random_case()
    mask[0], mask[1] = 0, 1  # images so unlike each other that pooled sums would give another value
    loss = losses.get(name)
    singly = torch.stack([loss(logits[i : i + 1], mask[i : i + 1]) for i in range(len(mask))])
    torch.testing.assert_close(loss(logits, mask), singly.mean())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [EXTREME, -EXTREME])
def test_extreme_logits_stay_finite(name, size):
    mask = empty_full_one_pixel()
    for logits in (torch.full_like(mask, size), size * (2 * mask - 1)):
        logits.requires_grad_()
        loss = losses.get(name)(logits, mask)
        (slope,) = torch.autograd.grad(loss, logits)
        assert loss.isfinite()
        assert slope.isfinite().all()


@pytest.mark.parametrize("name", [n for n in NAMES if n != "boundary"])
def test_perfect_prediction_costs_nothing_even_on_empty_and_full_images(name):
    mask = empty_full_one_pixel()
    assert losses.get(name)(EXTREME * (2 * mask - 1), mask).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(name, dtype):
    # 512² pixels: the plain sums would overflow float16, whose largest number is 65504.
    logits = torch.linspace(-6, 6, 512).expand(1, 1, 512, 512).to(dtype)
    mask = torch.zeros(1, 1, 512, 512)
    mask[..., 200:] = 1
    half = losses.get(name)(logits, mask.to(dtype))
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, losses.get(name)(logits.float(), mask))


@pytest.mark.parametrize("name", NAMES)
def test_other_shapes_are_refused_instead_of_broadcast(name):
    # ValueError by the loss; a TypeError of the same meaning where jaxtyping checks the shapes first
    with pytest.raises((ValueError, TypeError)):
        losses.get(name)(torch.zeros(2, 1, 4, 4), torch.zeros(1, 1, 4, 4))


# --- lesion-free images ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_false_positives_on_a_lesion_free_image_cost(name):
    nothing = torch.zeros(1, 1, 8, 8)
    costs = []
    for marked in (0, 3, 30):
        logits = torch.full((1, 1, 64), -5.0)
        logits[..., :marked] = 5.0
        costs.append(losses.get(name)(logits.view(1, 1, 8, 8), nothing).item())
    assert costs[0] < costs[1]
    # The Lovász loss of a lesion-free image is its worst pixel alone (see its docstring).
    assert costs[1] == pytest.approx(costs[2]) if name == "lovasz" else costs[1] < costs[2]


def test_dice_of_a_lesion_free_image_by_hand():
    marked = torch.full((1, 1, 4, 4), -EXTREME)
    marked[..., 0, :3] = EXTREME
    assert losses.dice(marked, torch.zeros_like(marked)).item() == pytest.approx(3 / 4)  # Σp / (Σp + 1)


def test_boundary_of_a_lesion_free_image_is_the_mean_probability():
    logits, _ = random_case()
    found = losses.boundary(logits, torch.zeros_like(logits))
    torch.testing.assert_close(found, logits.sigmoid().mean())
    torch.testing.assert_close(losses.boundary(logits, torch.ones_like(logits)), -found)


def test_boundary_does_not_grow_with_the_image():
    logits, mask = random_case(batch=1, size=16, seed=5)
    mask = torch.zeros_like(mask)
    mask[..., 4:10, 5:12] = 1
    large = [torch.nn.functional.interpolate(x, scale_factor=8, mode="nearest") for x in (logits, mask)]
    assert losses.boundary(*large).item() == pytest.approx(losses.boundary(logits, mask).item(), abs=0.01)


# --- depth -------------------------------------------------------------------------------------------

ALL = torch.ones(1, 1, 4, 4, dtype=torch.bool)


def random_depths(seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    prediction, depth = (torch.rand(2, 1, 5, 6, generator=generator, dtype=dtype) * 50 + 1 for _ in range(2))
    return prediction, depth, torch.rand(2, 1, 5, 6, generator=generator) < 0.8


def test_scale_invariant_log_by_hand():
    depth = torch.full((1, 1, 4, 4), 10.0)
    # g = 1 everywhere: mean g² − λ·(mean g)² = 1 − λ
    assert losses.scale_invariant_log(math.e * depth, depth, ALL).item() == pytest.approx(0.15, rel=1e-4)
    # g = 1 on the left half, 0 on the right: 1/2 − 0.85·1/4
    half = torch.where(LEFT_HALF > 0, math.e * depth, depth)
    assert losses.scale_invariant_log(half, depth, ALL).item() == pytest.approx(0.2875, rel=1e-4)
    # only the right half is valid, and there the prediction is exact
    assert losses.scale_invariant_log(half, depth, LEFT_HALF == 0).item() == 0


def test_scale_invariant_log_forgives_a_factor_only_at_focus_one():
    prediction, depth, valid = random_depths()
    loss = partial(losses.scale_invariant_log, depth=depth, valid=valid, variance_focus=1.0)
    torch.testing.assert_close(loss(7 * prediction), loss(prediction))
    assert losses.scale_invariant_log(7 * depth, depth, valid) > 0.1


def test_gradient_matching_by_hand():
    depth = torch.full((1, 1, 4, 4), 10.0)
    step = torch.where(LEFT_HALF > 0, depth, math.e * depth)  # g per row: 0 0 1 1
    match = losses.gradient_matching
    # scale 1: differences along x 0 1 0, mean 1/3, none along y
    assert match(step, depth, ALL, scales=1).item() == pytest.approx(1 / 3, rel=1e-4)
    # scale 2 keeps columns 0 and 2: one difference, 1. Mean of both scales 2/3
    assert match(step, depth, ALL, scales=2).item() == pytest.approx(2 / 3, rel=1e-4)
    # without column 2 only columns 0 and 1 are neighbours, and they agree
    without = ALL.clone()
    without[..., 2] = False
    assert match(step, depth, without, scales=1).item() == 0
    # turned by 90° the step lies along y and costs the same
    assert match(step.mT.contiguous(), depth, ALL, scales=1).item() == pytest.approx(1 / 3, rel=1e-4)


def test_gradient_matching_forgives_a_factor():
    prediction, depth, valid = random_depths()
    torch.testing.assert_close(
        losses.gradient_matching(7 * prediction, depth, valid), losses.gradient_matching(prediction, depth, valid)
    )


def hill(height: float, at: int = 32) -> torch.Tensor:
    """An oblique wall with a hill of `height` mm on it."""
    x = torch.arange(64.0)
    wall = 30 / (1 + 0.01 * (x - 32))
    return (wall - height * torch.exp(-((x - at) ** 2 + (x[:, None] - at) ** 2) / 32))[None, None]


def test_relief_matching_sees_what_stands_out_and_nothing_else():
    ones, wall, match = torch.ones(1, 1, 64, 64), hill(0), losses.relief_matching
    assert match(hill(3), hill(3), ones) == 0
    assert match(2.5 * hill(3), hill(3), ones) < 1e-5  # free of scale
    tilted = 1 / (1 / wall + 0.001 * torch.arange(64.0)[:, None])
    assert match(tilted, wall, ones) < 1e-3  # another plane is as good
    missed, invented, half = match(wall, hill(3), ones), match(hill(3), wall, ones), match(hill(1.5), hill(3), ones)
    assert missed == pytest.approx(invented.item())
    assert 0 < half < missed
    assert match(hill(3, 12), hill(3), ones) > 1.5 * missed  # in the wrong place it is missed there and invented here
    elsewhere = ones.clone()
    elsewhere[..., 8:, 8:] = 0
    assert match(wall, hill(3), elsewhere) < 0.02 * missed


def test_relief_matching_leads_to_the_hills_height():
    truth, ones, height = hill(3), torch.ones(1, 1, 64, 64), torch.zeros((), requires_grad=True)
    optimiser = torch.optim.Adam([height], lr=0.1)
    for _ in range(60):
        optimiser.zero_grad()
        losses.relief_matching(hill(0) + height / 3 * (truth - hill(0)), truth, ones).backward()
        optimiser.step()
    assert height.item() == pytest.approx(3, abs=0.2)


DEPTH_LOSSES = [losses.scale_invariant_log, losses.gradient_matching]


@pytest.mark.parametrize("loss", DEPTH_LOSSES)
def test_depth_gradient(loss):
    prediction, depth, valid = random_depths()
    prediction.requires_grad_()
    assert torch.autograd.gradcheck(lambda d: loss(d, depth, valid), (prediction,))


@pytest.mark.parametrize("loss", DEPTH_LOSSES)
def test_invalid_pixels_neither_count_nor_teach(loss):
    prediction, depth, valid = random_depths()
    spoiled = torch.where(valid, depth, torch.nan)
    prediction = torch.where(valid, prediction, 0.0).requires_grad_()
    found = loss(prediction, spoiled, valid.double())
    torch.testing.assert_close(found, loss(prediction, depth, valid))
    (slope,) = torch.autograd.grad(found, prediction)
    assert slope.isfinite().all()
    assert (slope[~valid] == 0).all()
    assert (slope[valid] != 0).any()


@pytest.mark.parametrize("loss", DEPTH_LOSSES)
def test_depth_loss_is_the_mean_of_images_and_zero_without_valid_pixels(loss):
    prediction, depth, valid = random_depths()
    first = loss(prediction[:1], depth[:1], valid[:1])
    valid[1] = False
    torch.testing.assert_close(loss(prediction, depth, valid), first / 2)


@pytest.mark.parametrize("loss", DEPTH_LOSSES)
def test_depth_loss_in_half_precision(loss):
    prediction, depth, valid = random_depths(dtype=torch.float32)
    half = prediction.half()
    half[0, 0, 0, 0] = 0  # what a small depth is rounded to
    found = loss(half, depth, valid)
    assert found.dtype == torch.float32
    assert found.isfinite()


# --- by name, and in sums ----------------------------------------------------------------------------


def test_unknown_loss_names_the_known_ones():
    with pytest.raises(losses.UnknownLoss, match=r"'dise'.*bce, dice, focal, tversky, iou, lovasz, boundary"):
        losses.get("dise")
    with pytest.raises(losses.UnknownLoss):
        losses.weighted("dice", "bse", 0.5)


def test_weighted_is_the_weighted_sum():
    logits, mask = random_case()
    loss = losses.weighted("dice", losses.binary_cross_entropy, 0.3)
    expected = 0.3 * losses.dice(logits, mask) + 0.7 * losses.binary_cross_entropy(logits, mask)
    torch.testing.assert_close(loss(logits, mask), expected)


def test_weighted_at_its_ends_is_one_of_the_two():
    logits, mask = random_case()
    torch.testing.assert_close(losses.weighted("dice", "bce", 1)(logits, mask), losses.dice(logits, mask))
    torch.testing.assert_close(losses.weighted("bce", "dice", 0)(logits, mask), losses.dice(logits, mask))


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_weight_outside_its_range_is_refused(weight):
    with pytest.raises(ValueError, match="between 0 and 1"):
        losses.weighted("dice", "bce", weight)
    with pytest.raises(ValueError, match="between 0 and 1"):
        losses.joint("dice", losses.scale_invariant_log, weight)


def test_weighted_prints_as_a_plot_label():
    assert repr(losses.weighted("dice", "bce", 0.5)) == "0.50·dice + 0.50·bce"
    tuned = partial(losses.tversky, beta=0.9)
    assert losses.weighted(tuned, losses.focal, 0.25).name == "0.25·tversky(beta=0.9) + 0.75·focal"
    assert losses.joint("dice", losses.scale_invariant_log, 0.8).name == "0.80·dice + 0.20·scale_invariant_log"


def test_joint_mixes_segmentation_and_depth():
    prediction, depth, valid = random_depths(dtype=torch.float32)
    logits, mask = torch.randn(depth.shape), (depth > 25).float()
    found = losses.joint("dice", losses.scale_invariant_log, 0.8)(logits, mask, prediction, depth, valid)
    expected = 0.8 * losses.dice(logits, mask) + 0.2 * losses.scale_invariant_log(prediction, depth, valid)
    torch.testing.assert_close(found, expected)
