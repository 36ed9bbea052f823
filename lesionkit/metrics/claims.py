"""The method's three claims [5] as one number per frame, for arms that differ in their guidance alone.

All three hang on the threshold: an arm with a stricter one finds less *and* errs less, and a low one draws every edge
too wide. So edges are compared at 0.5 for all arms; and for a and c every arm is brought to one operating point on the
validation part: for a to the threshold at which it marks FALSE_REGIONS a frame, for c to the one at which it finds the
share FOUND of the lesions. (Thresholds chosen for the best Dice would not do: along a flat curve they lie far apart by
accident.)

Letters: n frames of h × w pixels.
"""

from collections.abc import Sequence

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from lesionkit.metrics.masks import boundary_f1, lesion_matches
from lesionkit.metrics.tables import SIZE_BINS, THRESHOLDS, evaluate_lesions

# more small lesions, better edges, fewer false positives: in the last one less is better
CLAIMS = ("a small lesions found", "b boundary F1", "c false regions")
SMALL = SIZE_BINS[1].high  # of the image: the two smaller bins
MIDDLE = 0.5  # the threshold where a pixel is as likely lesion as not
FALSE_REGIONS, FOUND = 0.1, 0.75  # what networks trained for minutes reach near MIDDLE


def operating_point(probability: Float[Tensor, "n 1 h w"], truth: Float[Tensor, "n 1 h w"]) -> pd.Series:
    """Thresholds of one arm, from its probabilities on the validation part, whose masks are `truth`: for "edges", and
    where it comes closest to the "same false" regions and to the "same found" lesions; of equals the nearest to
    MIDDLE."""
    nearest = sorted(THRESHOLDS, key=lambda t: abs(t - MIDDLE))  # of equals `idxmin` takes the first
    counts = pd.DataFrame([_counts(probability > t, truth) for t in nearest], nearest)
    wanted = {"same false": FALSE_REGIONS, "same found": FOUND}
    return pd.Series({"edges": MIDDLE, **(counts - pd.Series(wanted)).abs().idxmin()})


def _counts(masks: Tensor, truth: Tensor) -> dict[str, float]:
    matches = [*map(lesion_matches, masks, truth)]
    found = [one for m in matches for one in m.detected]
    false = sum(m.false_components for m in matches) / len(matches)
    return {"same false": false, "same found": sum(found) / max(len(found), 1)}


def values(
    probability: Float[Tensor, "n 1 h w"], point: pd.Series, truth: Float[Tensor, "n 1 h w"], names: Sequence[str]
) -> pd.DataFrame:
    """One row per frame, one column per claim; NaN where a frame says nothing about it (no small lesion, no lesion).

    point: the arm's `operating_point`.
    """
    lesions = evaluate_lesions(probability > point["same false"], truth, names)
    small = lesions[lesions["area_fraction"] < SMALL].groupby("name")["detected"].mean().reindex(names).astype(float)
    edges = [*map(boundary_f1, probability > point["edges"], truth)]
    matches = map(lesion_matches, probability > point["same found"], truth)
    false = [float(one.false_components) for one in matches]
    return pd.DataFrame(dict(zip(CLAIMS, (small.to_numpy(), edges, false), strict=True)), pd.Index(names, name="name"))
