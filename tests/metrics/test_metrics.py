"""Metrics: values worked out by hand, the kit rule on its four corners, agreement with MONAI and scipy."""

import json
import math

import monai.metrics
import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from scipy.ndimage import gaussian_filter

from lesionkit import metrics

# TP = 3, FP = 3, FN = 1, TN = 9
TRUTH = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]], dtype=bool)
MARKED = np.array([[1, 1, 1, 0], [1, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]], dtype=bool)
EMPTY = np.zeros((4, 4), dtype=bool)
NAN = float("nan")


def blob(seed, size=(40, 50), level=0.55):
    noise = gaussian_filter(np.random.default_rng(seed).random(size), 4)
    return (noise - noise.min()) / np.ptp(noise) > level


def rectangle(*boxes, size=20):
    mask = np.zeros((size, size), dtype=bool)
    for top, left, height, width in boxes:
        mask[top : top + height, left : left + width] = True
    return mask


# --- pixels ------------------------------------------------------------------------------------------

BY_HAND = {"dice": 2 * 3 / (6 + 4), "iou": 3 / (3 + 3 + 1), "sensitivity": 3 / 4, "precision": 3 / 6}


@pytest.mark.parametrize("name", BY_HAND)
def test_pixel_metric_by_hand(name):
    assert getattr(metrics, name)(MARKED, TRUTH) == pytest.approx(BY_HAND[name])


@pytest.mark.parametrize(
    "form",
    [
        lambda mask: mask.astype(np.float32),
        lambda mask: mask.astype(np.uint8) * 255,
        torch.from_numpy,
        lambda mask: torch.from_numpy(mask).float()[None, None],
        lambda mask: torch.from_numpy(mask).half()[None],
    ],
)
def test_every_accepted_form_of_a_mask_gives_the_same(form):
    assert metrics.dice(form(MARKED), form(TRUTH)) == pytest.approx(0.6)
    assert metrics.precision(form(MARKED), TRUTH) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.full((4, 4), 0.7), "threshold"),
        (np.array([[0.2, 1.0]]), "threshold"),
        (np.array([[-1.0, 1.0]]), "threshold"),
        (np.array([[NAN, 1.0]]), "threshold"),
        (np.zeros((2, 4, 4)), "shape"),
        (np.zeros((0, 4)), "shape"),
    ],
)
def test_what_is_not_one_mask_is_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        metrics.masks.as_mask(mask)


def test_masks_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match="one size"):
        metrics.dice(np.zeros((4, 4)), np.zeros((4, 5)))


# The four corners of the kit rule: prediction, truth, and
# dice, iou, sensitivity, precision, boundary_f1, hausdorff95
CORNERS = {
    "both empty": (EMPTY, EMPTY, (NAN, NAN, NAN, NAN, NAN, NAN)),
    "false alarm": (MARKED, EMPTY, (NAN, NAN, NAN, 0.0, NAN, NAN)),
    "missed": (EMPTY, TRUTH, (0.0, 0.0, 0.0, NAN, 0.0, NAN)),
    "found": (TRUTH, TRUTH, (1.0, 1.0, 1.0, 1.0, 1.0, 0.0)),
}


@pytest.mark.parametrize("corner", CORNERS)
def test_four_corners(corner):
    prediction, truth, expected = CORNERS[corner]
    names = ("dice", "iou", "sensitivity", "precision", "boundary_f1", "hausdorff95")
    found = [getattr(metrics, name)(prediction, truth) for name in names]
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("seed", range(3))
def test_dice_agrees_with_monai(seed):
    prediction, truth = (torch.from_numpy(blob(s))[None, None].float() for s in (seed, seed + 10))
    oracle = monai.metrics.DiceMetric()(prediction, truth)
    assert metrics.dice(prediction, truth) == pytest.approx(oracle.item(), rel=1e-5)


# --- boundary ----------------------------------------------------------------------------------------


def test_hausdorff_by_hand():
    one, other = rectangle((0, 0, 1, 1)), rectangle((3, 4, 1, 1))
    assert metrics.hausdorff95(one, other) == pytest.approx(5)  # √(3² + 4²)
    # 2 × 2 squares, 3 columns apart. Distances of the 4 outline pixels: 2, 2, 3, 3. The 95th percentile lies
    # at position 0.95·3 = 2.85 of the sorted values, between 3 and 3.
    assert metrics.hausdorff95(rectangle((5, 5, 2, 2)), rectangle((5, 8, 2, 2))) == pytest.approx(3)


def test_hausdorff_takes_the_worse_direction():
    near, both = rectangle((5, 5, 3, 3)), rectangle((5, 5, 3, 3), (5, 15, 3, 3))
    # from `near` every pixel is on `both`; back from the far square it is 8 to 10 px
    assert metrics.hausdorff95(near, both) == metrics.hausdorff95(both, near) > 8


# MONAI 1.6 warns about an argument that its own code passes.
@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
@pytest.mark.parametrize("seed", range(4))
def test_hausdorff_agrees_with_monai(seed):
    prediction, truth = blob(seed), blob(seed + 10)
    tensors = [torch.from_numpy(mask)[None, None].float() for mask in (prediction, truth)]
    oracle = monai.metrics.compute_hausdorff_distance(*tensors, include_background=True, percentile=95)
    assert metrics.hausdorff95(prediction, truth) == pytest.approx(oracle.item(), rel=1e-5)


def test_boundary_f1_by_hand():
    truth, shifted = rectangle((5, 5, 4, 4)), rectangle((5, 6, 4, 4))
    # Outlines of 12 pixels each. Moved by one column: rows 5 and 8 share 3 of 4 pixels, rows 6 and 7 none
    # (columns 5, 8 against 6, 9), so 6 of 12 coincide. Within 1 px all do.
    assert metrics.boundary_f1(shifted, truth, tolerance_px=0) == pytest.approx(6 / 12)
    assert metrics.boundary_f1(shifted, truth, tolerance_px=1) == 1
    # A second, far square of the same size: precision 1/2, recall 1
    doubled = truth | rectangle((14, 14, 4, 4))
    assert metrics.boundary_f1(doubled, truth, tolerance_px=1) == pytest.approx(2 / 3)


def test_boundary_f1_tolerates_three_quarters_of_a_percent_of_the_diagonal():
    # 120 × 160 px: the diagonal is 200 px, the tolerance 1.5 px
    truth = np.zeros((120, 160), dtype=bool)
    truth[40:60, 40:80] = True
    assert metrics.boundary_f1(np.roll(truth, 1, axis=1), truth) == 1
    assert metrics.boundary_f1(np.roll(truth, 2, axis=1), truth) < 1


# --- lesions -----------------------------------------------------------------------------------------


def test_lesion_matches_by_hand():
    truth = rectangle((2, 2, 4, 4), (12, 2, 2, 2), (12, 14, 2, 5))
    # Half of the first is marked, the second is covered by a component twenty times as large, the third is
    # missed. Two components lie beside every lesion.
    prediction = rectangle((2, 2, 4, 2), (10, 0, 8, 10), (2, 15, 1, 1), (6, 18, 2, 2))
    found = metrics.lesion_matches(prediction, truth)
    assert found.area_fraction == (16 / 400, 4 / 400, 10 / 400)
    assert found.best_iou == (8 / 16, 4 / 80, 0)
    assert found.detected == (True, False, False)
    assert found.false_components == 2


def test_a_stray_pixel_of_a_drawn_mask_is_no_lesion():
    truth = np.zeros((120, 200), dtype=bool)  # a ten-thousandth of it are 2.4 pixels
    truth[20:40, 20:40] = truth[100, 100:102] = truth[60, 60:63] = True
    found = metrics.lesion_matches(truth, truth)
    assert found.area_fraction == (400 / 24000, 3 / 24000)
    assert found.false_components == 1  # the stray pixels were marked, where no lesion is


def test_lesions_that_touch_at_a_corner_are_one():
    truth = rectangle((2, 2, 2, 2), (4, 4, 2, 2))
    assert len(metrics.lesion_matches(truth, truth).detected) == 1


def test_two_lesions_under_one_component_need_their_own_overlap():
    truth = rectangle((5, 2, 4, 4), (5, 10, 4, 4))
    bridge = truth | rectangle((5, 2, 4, 12))
    found = metrics.lesion_matches(bridge, truth)
    assert found.best_iou == (16 / 48, 16 / 48)
    assert metrics.lesion_matches(bridge, truth, min_iou=0.5).detected == (False, False)


@pytest.mark.parametrize(("prediction", "false_components"), [(EMPTY, 0), (TRUTH, 1)])
def test_lesion_free_image_has_false_components_only(prediction, false_components):
    found = metrics.lesion_matches(prediction, EMPTY)
    assert found == metrics.LesionMatches((), (), (), false_components)


def test_missed_image_has_undetected_lesions():
    assert metrics.lesion_matches(EMPTY, TRUTH) == metrics.LesionMatches((0.25,), (0.0,), (False,), 0)


def test_false_alarm_is_more_than_one_pixel_in_a_thousand():
    image = np.zeros((100, 100), dtype=bool)
    image[0, :10] = True  # exactly 0.1 %
    assert metrics.false_alarm(image) is False
    image[0, 10] = True
    assert metrics.false_alarm(image) is True
    assert metrics.false_alarm(image, min_area_fraction=0.01) is False


# --- tables ------------------------------------------------------------------------------------------


@pytest.fixture
def table():
    predictions = [prediction for prediction, _, _ in CORNERS.values()]
    truths = [truth for _, truth, _ in CORNERS.values()]
    return metrics.evaluate_masks(predictions, truths, names=list(CORNERS))


def test_table_of_the_four_corners(table):
    assert table.loc["missed", ["dice", "lesions", "lesions_found"]].tolist() == [0, 1, 0]
    assert table.loc["found", ["dice", "lesions", "lesions_found"]].tolist() == [1, 1, 1]
    assert table["lesion_free"].tolist() == [True, True, False, False]
    np.testing.assert_equal(table["false_alarm"].tolist(), [0, 1, NAN, NAN])
    assert table["truth_fraction"].tolist() == [0, 0, 0.25, 0.25]
    assert table["false_components"].tolist() == [0, 1, 0, 0]


def test_summary_follows_the_kit_rule(table):
    summary = metrics.summarise(table)
    assert (summary["images"], summary["images_with_lesion"]) == (4, 2)
    assert (summary["dice"], summary["n_dice"]) == (0.5, 2)  # missed 0, found 1; the lesion-free two not
    assert (summary["precision"], summary["n_precision"]) == (1, 1)  # not the 0 of the false alarm
    assert (summary["hd95"], summary["n_hd95"]) == (0, 1)
    assert (summary["false_alarm_rate"], summary["n_false_alarm"]) == (0.5, 2)
    assert (summary["lesion_sensitivity"], summary["n_lesions"]) == (0.5, 2)
    assert summary["false_components_per_image"] == 0.25


def test_summary_is_strict_json_even_when_nothing_can_be_averaged():
    summary = metrics.summarise(metrics.evaluate_masks([EMPTY], [EMPTY]))
    assert summary["dice"] is None
    assert summary["lesion_sensitivity"] is None
    assert summary["false_alarm_rate"] == 0
    json.dumps(summary, allow_nan=False)
    nothing = metrics.summarise(metrics.evaluate_masks([], []))
    assert (nothing["images"], nothing["false_alarm_rate"]) == (0, None)
    json.dumps(nothing, allow_nan=False)


def test_table_takes_whole_batches(table):
    predictions = torch.stack([torch.from_numpy(p) for p, _, _ in CORNERS.values()])[:, None].float()
    truths = torch.stack([torch.from_numpy(t) for _, t, _ in CORNERS.values()])[:, None].float()
    pd.testing.assert_frame_equal(metrics.evaluate_masks(predictions, truths, names=list(CORNERS)), table)


def test_table_needs_one_of_each():
    with pytest.raises(ValueError, match="1 predictions, 2 truths and 2 names"):
        metrics.evaluate_masks([TRUTH], [TRUTH, TRUTH])


def test_by_size_counts_images_by_their_total_and_lesions_one_by_one():
    # 400 px: lesions of 16 (4 %) and 4 px (1 %, the lower edge of its bin) in one image, together 5 %; one of
    # 3 px (0.75 %) in another
    two, small = rectangle((2, 2, 4, 4), (12, 2, 2, 2)), rectangle((5, 5, 1, 3))
    predictions = [rectangle((2, 2, 4, 4)), np.zeros_like(small), np.zeros_like(small)]
    truths = [two, small, np.zeros_like(small)]
    images, lesions = (metrics.evaluate_masks(predictions, truths), metrics.evaluate_lesions(predictions, truths))
    sizes = metrics.by_size(images, lesions)
    assert sizes["images"].tolist() == [1, 0, 1, 0]
    assert sizes["lesions"].tolist() == [1, 2, 0, 0]
    assert sizes["lesions_found"].tolist() == [0, 1, 0, 0]
    np.testing.assert_allclose(sizes["lesion_sensitivity"], [0, 0.5, NAN, NAN])
    np.testing.assert_allclose(sizes["dice"], [0, NAN, 32 / 36, NAN])  # 2·16 / (16 + 20)
    np.testing.assert_allclose(sizes["sensitivity"], [0, NAN, 16 / 20, NAN])


def test_size_bins_leave_no_gap():
    assert [b.low for b in metrics.SIZE_BINS[1:]] == [b.high for b in metrics.SIZE_BINS[:-1]]
    assert (metrics.SIZE_BINS[0].low, metrics.SIZE_BINS[-1].high) == (0, np.inf)


def test_by_size_counts_a_lesion_that_fills_the_image():
    full = ~EMPTY
    sizes = metrics.by_size(metrics.evaluate_masks([full], [full]), metrics.evaluate_lesions([full], [full]))
    assert sizes["images"].tolist() == sizes["lesions_found"].tolist() == [0, 0, 0, 1]


def test_by_size_of_nothing():
    sizes = metrics.by_size(metrics.evaluate_masks([], []), metrics.evaluate_lesions([], []))
    assert sizes["images"].sum() == sizes["lesions"].sum() == 0


# --- threshold ---------------------------------------------------------------------------------------


def test_best_threshold_separates_lesion_from_background():
    probability = np.where(TRUTH, 0.3, 0.1)
    assert metrics.best_threshold([probability], [TRUTH], thresholds=[0.05, 0.2, 0.4]) == 0.2
    # every threshold from 0.1 on is perfect here; the nearest to 0.5 below 0.3 is 0.25
    assert metrics.best_threshold([probability], [TRUTH]) == 0.25


def test_best_threshold_keeps_false_alarms_rare():
    """At 0.2 two of three lesion-free images are marked, at 0.59 none; Dice is the same at both."""
    lesion = torch.where(torch.tensor(TRUTH, dtype=torch.bool), 0.6, 0.15)
    free = [torch.full((4, 4), value) for value in (0.1, 0.3, 0.55)]
    pair = [lesion, *free], [TRUTH, EMPTY, EMPTY, EMPTY]
    asked = [0.1, 0.2, 0.4, 0.58]
    assert metrics.best_threshold(*pair, thresholds=asked[:3]) == 0.4  # equal Dice: the nearest to 0.5
    assert metrics.best_threshold(*pair, thresholds=[0.2, 0.59], alarm_limit=0.5) == 0.59
    assert metrics.best_threshold(*pair, thresholds=[0.1, 0.2, 0.7], alarm_limit=0.7) == 0.2
    assert metrics.best_threshold(*pair, thresholds=[0.05, 0.2], alarm_limit=0.0) == 0.2  # none is low enough


def test_best_threshold_is_not_the_accident_of_a_flat_curve():
    """At 0.1 two images gain a pixel and one has one too many, so 0.1 is better by chance: 0.5 is as good. Where every
    image gains, it is not."""
    truth = np.zeros((4, 4), bool)
    truth[:2] = True
    missed, extra = truth * 0.9, truth * 0.9
    missed[0, 0], extra[3, 3] = 0.3, 0.3  # seen at 0.1 alone: rightly, and wrongly
    mixed = [missed, missed, extra], [truth] * 3
    assert metrics.dice(missed > 0.1, truth) - metrics.dice(missed > 0.5, truth) > 0.05
    assert metrics.best_threshold(*mixed, thresholds=[0.1, 0.5]) == 0.5
    assert metrics.best_threshold([missed] * 4, [truth] * 4, thresholds=[0.1, 0.5]) == 0.1


def test_best_threshold_looks_at_images_with_a_lesion_only():
    # The lesion-free image would call for a high threshold; it has no Dice.
    lesion, free = np.where(TRUTH, 0.3, 0.1), np.full((4, 4), 0.9)
    pair = (torch.from_numpy(np.stack([lesion, free]))[:, None], torch.from_numpy(np.stack([TRUTH, EMPTY]))[:, None])
    assert metrics.best_threshold(*pair, thresholds=[0.2, 0.95]) == 0.2
    with pytest.raises(ValueError, match="no image with a lesion"):
        metrics.best_threshold([free], [EMPTY])


# --- depth -------------------------------------------------------------------------------------------

DEPTH = np.array([[1.0, 2.0], [4.0, 8.0]])
ALL = np.ones((2, 2), dtype=bool)


def random_depths(seed=0, size=(30, 40)):
    generator = np.random.default_rng(seed)
    depth = gaussian_filter(generator.random(size), 3) * 200
    prediction = depth * np.exp(0.2 * generator.standard_normal(size))
    return prediction, depth, generator.random(size) < 0.8


def test_depth_metrics_by_hand():
    prediction = np.array([[1.0, 3.0], [3.0, 4.0]])  # of the same median; errors 0, 1, −1, −4
    found = metrics.depth_metrics(prediction, DEPTH, ALL)
    assert found == pytest.approx(
        {
            "abs_rel": (1 / 2 + 1 / 4 + 4 / 8) / 4,
            "sq_rel": (1 / 2 + 1 / 4 + 16 / 8) / 4,
            "rmse": math.sqrt((1 + 1 + 16) / 4),
            "rmse_log": math.sqrt((math.log(1.5) ** 2 + math.log(4 / 3) ** 2 + math.log(2) ** 2) / 4),
            "delta1": 1 / 4,  # the factors are 1, 1.5, 1.33, 2
            "delta2": 3 / 4,  # 1.5 < 1.5625
            "delta3": 3 / 4,  # 2 > 1.953
        }
    )


def test_median_scaling_by_hand():
    prediction = np.array([[1.0, 1.0], [2.0, 4.0]])  # medians: truth (2 + 4)/2 = 3, prediction (1 + 2)/2 = 1.5
    assert metrics.median_scale(prediction, DEPTH, ALL) == 2
    # scaled to 2, 2, 4, 8: only the first is wrong, by 1 of 1
    assert metrics.depth_metrics(prediction, DEPTH, ALL)["abs_rel"] == pytest.approx(1 / 4)


def test_depth_metrics_after_alignment_do_not_depend_on_the_unit_of_the_prediction():
    prediction, depth, valid = random_depths()
    first, second = (metrics.depth_metrics(x, depth, valid) for x in (prediction, 1000 * prediction))
    assert first == pytest.approx(second)
    assert metrics.depth_metrics(5 * depth, depth, valid)["abs_rel"] == pytest.approx(0)


def test_affine_rmse_agrees_with_least_squares():
    prediction, depth, valid = random_depths()
    d, target = prediction[valid], depth[valid]
    target = (target - target.min()) / (target.max() - target.min())
    matrix = np.stack([d, np.ones_like(d)], axis=1)
    residual = target - matrix @ np.linalg.lstsq(matrix, target, rcond=None)[0]
    assert metrics.affine_rmse(prediction, depth, valid) == pytest.approx(np.sqrt(np.mean(residual**2)))


def test_affine_rmse_forgives_scale_and_shift_alone():
    assert metrics.affine_rmse(3 * DEPTH + 10, DEPTH, ALL) == pytest.approx(0, abs=1e-9)
    assert metrics.affine_rmse(DEPTH**2, DEPTH, ALL) > 0.03
    # a constant explains nothing: the standard deviation of 0, 1/7, 3/7, 1
    assert metrics.affine_rmse(ALL.astype(float), DEPTH, ALL) == pytest.approx(np.std([0, 1 / 7, 3 / 7, 1]))
    assert math.isnan(metrics.affine_rmse(DEPTH, np.full((2, 2), 3.0), ALL))


def test_spearman_agrees_with_scipy():
    prediction, depth, valid = random_depths()
    prediction = prediction.round()  # with ties
    oracle = scipy.stats.spearmanr(prediction[valid], depth[valid]).statistic
    assert metrics.spearman(prediction + 1, depth, valid) == pytest.approx(oracle)


def test_spearman_sees_order_alone():
    assert metrics.spearman(DEPTH**3, DEPTH, ALL) == pytest.approx(1)
    assert metrics.spearman(1 / DEPTH, DEPTH, ALL) == pytest.approx(-1)
    assert math.isnan(metrics.spearman(ALL.astype(float), DEPTH, ALL))


def stairs(column, size=40):
    return np.where(np.arange(size) < column, 10.0, 20.0)[None].repeat(size, axis=0)


def test_depth_edges_must_be_in_the_right_place():
    depth, valid = stairs(20), np.ones((40, 40), dtype=bool)
    assert metrics.depth_edge_f1(3 * depth, depth, valid, share=0.1) == 1
    assert metrics.depth_edge_f1(stairs(22), depth, valid, share=0.1) == 1  # within 2 px
    # The edge is two columns wide. Moved by 3, one column of each is within 2 px: precision = recall = 1/2
    assert metrics.depth_edge_f1(stairs(23), depth, valid, share=0.1) == pytest.approx(0.5)
    assert metrics.depth_edge_f1(stairs(30), depth, valid, share=0.1) == 0


def test_depth_edges_need_edges():
    depth, valid = stairs(20), np.ones((40, 40), dtype=bool)
    assert metrics.depth_edge_f1(np.full((40, 40), 7.0), depth, valid) == 0
    assert math.isnan(metrics.depth_edge_f1(depth, np.full((40, 40), 7.0), valid))


def test_the_rim_of_the_valid_area_is_no_edge():
    valid = np.ones((40, 40), dtype=bool)
    valid[:, :5] = False
    depth = np.where(valid, stairs(20), 0.0)  # 0 where unknown
    assert metrics.depth_edge_f1(stairs(20), depth, valid, share=0.1) == 1
    # the rim lies at the same place in both maps and would be a match
    assert metrics.depth_edge_f1(stairs(30), depth, valid, share=0.1) == 0


METRICS = [metrics.depth_metrics, metrics.affine_rmse, metrics.spearman, metrics.depth_edge_f1, metrics.median_scale]


@pytest.mark.parametrize("metric", METRICS)
def test_invalid_pixels_do_not_count_and_tensors_are_taken(metric):
    prediction, depth, valid = random_depths()
    spoiled = np.where(valid, depth, -7.0), np.where(valid, prediction, 1e9)
    tensors = [torch.from_numpy(x)[None, None] for x in (spoiled[1], spoiled[0], valid)]
    assert metric(*tensors) == pytest.approx(metric(prediction, depth, valid))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("prediction", "depth", "valid", "message"),
    [
        (DEPTH, DEPTH, ~ALL, "no valid pixel"),
        (DEPTH, DEPTH[:1], ALL, "one size"),
        (0 * DEPTH, DEPTH, ALL, "prediction must be finite and positive"),
        (DEPTH, np.full((2, 2), np.inf), ALL, "depth must be finite and positive"),
    ],
)
def test_unusable_depth_is_refused(metric, prediction, depth, valid, message):
    with pytest.raises(ValueError, match=message):
        metric(prediction, depth, valid)


# --- intervals ---------------------------------------------------------------------------------------


def test_bootstrap_mean_agrees_with_theory():
    values = np.random.default_rng(1).normal(0.8, 0.1, size=400)
    found = metrics.bootstrap_mean(values, n=4000)
    error = values.std() / math.sqrt(400)
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


def test_paired_bootstrap_sees_what_two_intervals_cannot():
    generator = np.random.default_rng(2)
    hardness = generator.random(60)
    a, b = hardness + 0.02 + 0.01 * generator.standard_normal(60), hardness
    found = metrics.paired_bootstrap(a, b, n=2000)
    assert 0.01 < found.low < found.mean < found.high < 0.03
    assert found.p_value == pytest.approx(2 / 2001)  # the least it can be
    assert metrics.bootstrap_mean(a, n=2000).low < metrics.bootstrap_mean(b, n=2000).high  # these two overlap
    assert metrics.paired_bootstrap(b, a, n=2000).mean == pytest.approx(-found.mean)


def test_whole_groups_are_drawn():
    """Four videos of 25 equal frames say no more than four frames; groups of one value change nothing."""
    videos, labels = np.repeat([0.2, 0.4, 0.6, 0.8], 25), np.repeat(list("abcd"), 25)
    grouped, single = metrics.bootstrap_mean(videos, groups=labels), metrics.bootstrap_mean([0.2, 0.4, 0.6, 0.8])
    assert grouped.mean == pytest.approx(0.5)
    assert (grouped.low, grouped.high) == pytest.approx((single.low, single.high), abs=0.03)
    naive = metrics.bootstrap_mean(videos)
    assert grouped.high - grouped.low > 3 * (naive.high - naive.low)
    alone = metrics.bootstrap_mean(videos, groups=np.arange(100))
    assert (alone.low, alone.high) == pytest.approx((naive.low, naive.high), abs=0.01)


def test_groups_of_unequal_size_weigh_by_their_frames_and_nan_leaves_its_label():
    values, labels = [1.0, 1.0, 1.0, 0.0, np.nan], ["a", "a", "a", "b", "c"]
    found = metrics.bootstrap_mean(values, groups=labels)
    assert found.mean == pytest.approx(0.75)
    assert (found.low, found.high, found.n, found.dropped) == (0, 1, 4, 1)
    paired = metrics.paired_bootstrap(values, [0.0] * 5, groups=labels)
    assert (paired.low, paired.high) == (0, 1)
    with pytest.raises(ValueError, match="a label is needed for each of the 5 values"):
        metrics.bootstrap_mean(values, groups=["a"])


def test_paired_bootstrap_of_equals():
    found = metrics.paired_bootstrap([0.5, 0.7, 0.9], [0.5, 0.7, 0.9], n=100)
    assert (found.mean, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_bootstrap_drops_and_counts_nan():
    found = metrics.paired_bootstrap([1.0, NAN, 3.0, 4.0], [0.0, 1.0, NAN, 1.0], n=100)
    assert (found.n, found.dropped, found.mean) == (2, 2, 2.0)  # differences 1 and 3
    assert (found.low, found.high) == (1, 3)
    nothing = metrics.bootstrap_mean([NAN], n=100)
    assert (nothing.n, nothing.dropped) == (0, 1)
    assert math.isnan(nothing.mean)
    assert math.isnan(metrics.paired_bootstrap([NAN], [1.0], n=100).p_value)


def test_bootstrap_is_seeded():
    values = pd.Series(np.random.default_rng(3).random(50))
    assert metrics.bootstrap_mean(values, n=200, seed=4) == metrics.bootstrap_mean(values, n=200, seed=4)
    assert metrics.bootstrap_mean(values, n=200, seed=4) != metrics.bootstrap_mean(values, n=200, seed=5)


def test_pairs_need_both_values():
    with pytest.raises(ValueError, match="3 and 2"):
        metrics.paired_bootstrap([1, 2, 3], [1, 2])


def test_interval_prints_for_a_table():
    assert str(metrics.Interval(0.8123, 0.79, 0.8333, n=62)) == "0.812 [0.790, 0.833] (n = 62)"


def hill(height_mm, width=0.05, size=96):
    """Depth of an oblique wall with a hill on it; width: of the frame."""
    x = np.arange(size) - size / 2
    return 40 / (1 + 0.004 * x) - height_mm * np.exp(-(x**2 + x[:, None] ** 2) / (2 * (width * size) ** 2))


def test_relief_correlation_is_about_what_stands_out_alone():
    everywhere, truth = np.ones((96, 96)), hill(6)
    assert metrics.relief_correlation(3 * truth, truth, everywhere) == pytest.approx(1)
    assert metrics.relief_correlation(hill(3), truth, everywhere) > 0.99  # half as high, in the right place
    assert metrics.relief_correlation(hill(-6), truth, everywhere) < -0.9  # a hollow
    assert metrics.relief_correlation(np.roll(truth, 30, axis=1), truth, everywhere) < 0.3
    assert math.isnan(metrics.relief_correlation(truth, truth, np.zeros((96, 96))))


def test_false_relief_is_the_share_of_flat_tissue_that_the_estimate_raises():
    everywhere, flat, raised = np.ones((96, 96)), hill(0), hill(12, width=0.04)
    assert metrics.false_relief(flat, flat, everywhere) == 0
    assert metrics.false_relief(flat, raised, everywhere) == 0  # what is missed is not false
    found = metrics.false_relief(raised, flat, everywhere)
    assert 0.005 < found < 0.1  # the hill's own area
    top = np.zeros((96, 96))
    top[46:50, 46:50] = 1
    assert metrics.false_relief(raised, flat, top) == 1
    assert math.isnan(metrics.false_relief(flat, raised, top))  # no flat tissue there
