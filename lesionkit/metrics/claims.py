"""The method's three claims [5] as one number per frame, for arms that differ in their guidance alone.

All three hang on the threshold: an arm with a stricter one finds less *and* errs less, and a low one draws every edge
too wide. So edges are compared at 0.5 for all arms; and for a and c every arm is brought to the operating point that
`reference`, the arm guided by depth, has there on the validation part: for a to the threshold at which it marks as many
false regions, for c to the one at which it finds as many lesions. (Thresholds chosen arm by arm would not do: along a
flat curve they lie far apart by accident.)

Letters: n frames of h × w pixels.
"""

from collections.abc import Mapping, Sequence

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from lesionkit.metrics.masks import boundary_f1, lesion_matches
from lesionkit.metrics.tables import SIZE_BINS, THRESHOLDS, evaluate_lesions

# more small lesions, better edges, fewer false positives: in the last one less is better
CLAIMS = ("a small lesions found", "b boundary F1", "c false regions")
SMALL = SIZE_BINS[1].high  # of the image: the two smaller bins
MIDDLE = 0.5  # the threshold where a pixel is as likely lesion as not


def operating_points(
    validation: Mapping[str, Float[Tensor, "n 1 h w"]], truth: Float[Tensor, "n 1 h w"], reference: str = "depth"
) -> pd.DataFrame:
    """Thresholds, one column per arm: for "edges", and where the arm comes closest to the "same false" regions and to
    the "same found" lesions as `reference` at MIDDLE; of equals the nearest to MIDDLE.

    validation: probabilities of each arm on the validation part, whose masks are `truth`.
    """
    nearest = sorted(THRESHOLDS, key=lambda t: abs(t - MIDDLE))  # of equals `idxmin` takes the first
    counts = {arm: pd.DataFrame([_counts(p > t, truth) for t in nearest], nearest) for arm, p in validation.items()}
    wanted = counts[reference].loc[MIDDLE]
    return pd.DataFrame({arm: {"edges": MIDDLE, **(at - wanted).abs().idxmin()} for arm, at in counts.items()})


def _counts(masks: Tensor, truth: Tensor) -> dict[str, int]:
    matches = [*map(lesion_matches, masks, truth)]
    false, found = sum(m.false_components for m in matches), sum(sum(m.detected) for m in matches)
    return {"same false": false, "same found": found}


def values(
    probability: Float[Tensor, "n 1 h w"], points: pd.Series, truth: Float[Tensor, "n 1 h w"], names: Sequence[str]
) -> pd.DataFrame:
    """One row per frame, one column per claim; NaN where a frame says nothing about it (no small lesion, no lesion).

    points: the arm's column of `operating_points`.
    """
    lesions = evaluate_lesions(probability > points["same false"], truth, names)
    small = lesions[lesions["area_fraction"] < SMALL].groupby("name")["detected"].mean().reindex(names).astype(float)
    edges = [*map(boundary_f1, probability > points["edges"], truth)]
    matches = map(lesion_matches, probability > points["same found"], truth)
    false = [float(one.false_components) for one in matches]
    return pd.DataFrame(dict(zip(CLAIMS, (small.to_numpy(), edges, false), strict=True)), pd.Index(names, name="name"))
