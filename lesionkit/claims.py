"""The method's three claims [5] as one number per frame, for arms that differ in their guidance alone.

a and c trade against each other through the threshold: an arm with a stricter one finds less *and* errs less. So every
arm is brought to the operating point of `reference` (the arm guided by depth) on the validation part: for a to the
threshold at which it marks as many false regions, for c to the one at which it finds as many lesions.

Letters: n frames of h × w pixels.
"""

from collections.abc import Mapping, Sequence

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from lesionkit import metrics

# more small lesions, better edges, fewer false positives: in the last one less is better
CLAIMS = ("a small lesions found", "b boundary F1", "c false regions")
SMALL = 0.05  # of the image: the two smaller bins of `metrics.SIZE_BINS`


def operating_points(
    validation: Mapping[str, Float[Tensor, "n 1 h w"]],
    truth: Float[Tensor, "n 1 h w"],
    own: Mapping[str, float],
    reference: str = "depth",
) -> pd.DataFrame:
    """Thresholds, one column per arm: its "own", and where it comes closest to the "same false" regions and to the
    "same found" lesions as `reference` at its own threshold; of equals the nearest to the arm's own.

    validation: probabilities of each arm on the validation part, whose masks are `truth`. own: what
    `metrics.best_threshold` chose for each.
    """
    counts = {arm: {t: _counts(p > t, truth) for t in metrics.THRESHOLDS} for arm, p in validation.items()}
    wanted = _counts(validation[reference] > own[reference], truth)

    def closest(arm: str, what: str) -> float:
        at = counts[arm]
        return min(at, key=lambda t: (abs(at[t][what] - wanted[what]), abs(t - own[arm])))

    rows = {f"same {what}": {arm: closest(arm, what) for arm in validation} for what in ("false", "found")}
    points = pd.DataFrame({"own": dict(own), **rows}).T
    points[reference] = own[reference]
    return points


def _counts(masks: Tensor, truth: Tensor) -> dict[str, int]:
    matches = [metrics.lesion_matches(mask, one) for mask, one in zip(masks, truth, strict=True)]
    return {"false": sum(m.false_components for m in matches), "found": sum(sum(m.detected) for m in matches)}


def values(
    probability: Float[Tensor, "n 1 h w"], points: pd.Series, truth: Float[Tensor, "n 1 h w"], names: Sequence[str]
) -> pd.DataFrame:
    """One row per frame, one column per claim; NaN where a frame says nothing about it (no small lesion, no lesion).

    points: the arm's column of `operating_points`.
    """
    lesions = metrics.evaluate_lesions(probability > points["same false"], truth, names)
    small = lesions[lesions["area_fraction"] < SMALL].groupby("name")["detected"].mean().reindex(names).astype(float)
    edges = metrics.evaluate_masks(probability > points["own"], truth, names)["boundary_f1"]
    false = metrics.evaluate_masks(probability > points["same found"], truth, names)["false_components"].astype(float)
    return pd.DataFrame(dict(zip(CLAIMS, (small, edges, false), strict=True)))
