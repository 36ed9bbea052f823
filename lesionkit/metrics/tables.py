"""Tables of metrics: one row per image, one per lesion, their means by the kit rule, and by lesion size.

The kit rule: overlap and boundary metrics are averaged over the images that show a lesion; images without one give the
false-alarm rate. Every mean comes with the number of values that entered it.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from lesionkit.metrics.masks import (
    NAN,
    MapLike,
    as_mask,
    boundary_f1,
    dice,
    false_alarm,
    hausdorff95,
    iou,
    lesion_matches,
    precision,
    sensitivity,
)


class SizeBin(NamedTuple):
    """Lesions whose area is at least `low` and less than `high`, as fractions of the image."""

    name: str
    low: float
    high: float


SIZE_BINS = (
    SizeBin("under 1 %", 0.0, 0.01),
    SizeBin("1–5 %", 0.01, 0.05),
    SizeBin("5–15 %", 0.05, 0.15),
    SizeBin("over 15 %", 0.15, np.inf),
)
AVERAGED = {
    "dice": dice,
    "iou": iou,
    "sensitivity": sensitivity,
    "precision": precision,
    "boundary_f1": boundary_f1,
    "hd95": hausdorff95,
}
COUNTED = ("lesions", "lesions_found", "false_components", "lesion_free", "false_alarm", "truth_fraction")


def evaluate_masks(
    predictions: Iterable[MapLike], truths: Iterable[MapLike], names: Iterable[str] | None = None
) -> pd.DataFrame:
    """One row per image, indexed by its name (0, 1, … without names).

    `predictions` and `truths` are sequences of single masks as `masks` takes them, or whole B×1×H×W
    tensors; images may differ in size. Columns: dice, iou, sensitivity, precision, boundary_f1 in [0, 1];
    hd95 in pixels; lesions, lesions_found, false_components, counts; lesion_free, bool; false_alarm, 1 or 0
    on lesion-free images and NaN on the others; truth_fraction, lesion area / image area. Undefined values
    are NaN. Raises ValueError when the numbers of predictions, truths and names differ.
    """
    named = _named_pairs(predictions, truths, names)
    rows = [_image_row(prediction, truth) for _, prediction, truth in named]
    index = pd.Index([name for name, _, _ in named], name="name")
    return pd.DataFrame(rows, index=index, columns=[*AVERAGED, *COUNTED])


def _image_row(prediction: MapLike, truth: MapLike) -> dict[str, float]:
    p, t = as_mask(prediction), as_mask(truth)
    matches = lesion_matches(p, t)
    lesion_free = not t.any()
    return {
        **{name: metric(p, t) for name, metric in AVERAGED.items()},
        "lesions": len(matches.detected),
        "lesions_found": sum(matches.detected),
        "false_components": matches.false_components,
        "lesion_free": lesion_free,
        "false_alarm": float(false_alarm(p)) if lesion_free else NAN,
        "truth_fraction": float(t.mean()),
    }


def evaluate_lesions(
    predictions: Iterable[MapLike], truths: Iterable[MapLike], names: Iterable[str] | None = None
) -> pd.DataFrame:
    """One row per true lesion: name of its image, area_fraction, best_iou, detected (see `lesion_matches`).

    Arguments and errors as in `evaluate_masks`.
    """
    rows = []
    for name, prediction, truth in _named_pairs(predictions, truths, names):
        m = lesion_matches(prediction, truth)
        rows += [(name, *row) for row in zip(m.area_fraction, m.best_iou, m.detected, strict=True)]
    return pd.DataFrame(rows, columns=["name", "area_fraction", "best_iou", "detected"])


def _named_pairs(predictions: Iterable, truths: Iterable, names: Iterable | None) -> list[tuple]:
    predictions, truths = list(predictions), list(truths)
    names = list(range(len(truths))) if names is None else list(names)
    if not len(predictions) == len(truths) == len(names):
        counts = f"{len(predictions)} predictions, {len(truths)} truths and {len(names)} names"
        raise ValueError(f"one of each per image is needed, not {counts}")
    return list(zip(names, predictions, truths, strict=True))


# --- means


def summarise(frame: pd.DataFrame) -> dict[str, float | int | None]:
    """Means of an `evaluate_masks` table by the kit rule, ready for JSON (None: nothing to average).

    For each of dice, iou, sensitivity, precision, boundary_f1 and hd95: the mean over the images with a
    lesion, and `n_…`, how many values entered it (precision and hd95 miss the images on which nothing was
    marked). Over all images: lesion_sensitivity, lesions found / lesions, and false_components_per_image.
    Over the `n_false_alarm` lesion-free images: false_alarm_rate.
    """
    with_lesion = frame[~frame["lesion_free"].astype(bool)]
    summary: dict[str, float | int | None] = {"images": len(frame), "images_with_lesion": len(with_lesion)}
    for column in AVERAGED:
        summary[column], summary[f"n_{column}"] = _mean_and_count(with_lesion[column])
    lesions = int(frame["lesions"].sum())
    summary["lesion_sensitivity"] = float(frame["lesions_found"].sum() / lesions) if lesions else None
    summary["n_lesions"] = lesions
    summary["false_components_per_image"], _ = _mean_and_count(frame["false_components"])
    summary["false_alarm_rate"], summary["n_false_alarm"] = _mean_and_count(frame["false_alarm"])
    return summary


def _mean_and_count(column: pd.Series) -> tuple[float | None, int]:
    known = column.dropna()
    return (float(known.mean()) if len(known) else None), len(known)


def by_size(images: pd.DataFrame, lesions: pd.DataFrame) -> pd.DataFrame:
    """One row per bin of `SIZE_BINS`, from the tables of `evaluate_masks` and `evaluate_lesions`.

    images, dice, sensitivity: number and means of the images whose whole lesion area falls into the bin. lesions,
    lesions_found, lesion_sensitivity: counts and share of the single lesions that do. An image with two lesions can
    therefore stand in another row than they do. NaN in a bin without images or lesions.
    """
    shown = images[~images["lesion_free"].astype(bool)]
    rows = []
    for bin_ in SIZE_BINS:
        of_images = shown[_inside(shown["truth_fraction"], bin_)]
        of_lesions = lesions[_inside(lesions["area_fraction"], bin_)]
        rows.append(
            {
                "images": len(of_images),
                "dice": of_images["dice"].mean(),
                "sensitivity": of_images["sensitivity"].mean(),
                "lesions": len(of_lesions),
                "lesions_found": int(of_lesions["detected"].sum()),
                "lesion_sensitivity": of_lesions["detected"].astype(float).mean(),
            }
        )
    return pd.DataFrame(rows, index=pd.Index([bin_.name for bin_ in SIZE_BINS], name="size"))


def _inside(fractions: pd.Series, bin_: SizeBin) -> pd.Series:
    return (fractions >= bin_.low) & (fractions < bin_.high)


# --- threshold

THRESHOLDS = tuple(np.round(np.arange(0.05, 1.0, 0.05), 2).tolist())


def best_threshold(
    probabilities: Iterable[MapLike],
    truths: Iterable[MapLike],
    thresholds: Iterable[float] = THRESHOLDS,
    alarm_limit: float = 1.0,
) -> float:
    """The threshold nearest to 0.5 whose mean Dice over the images with a lesion is as good as the best one's, within
    a standard error of their paired difference; p > threshold is lesion.

    The curve is often flat, so that the very best of a few dozen images is an accident, and one near 0 or 1 costs the
    edges (the rule of one standard error: Breiman et al., Classification and Regression Trees, 1984). Only thresholds
    at which at most `alarm_limit` of the lesion-free images raise a false alarm are asked; where none is low enough,
    those with the fewest. For the validation part only: a threshold chosen on the test part makes the test result too
    good. `probabilities` are maps in [0, 1] of the truths' sizes (single maps, or a B×1×H×W tensor).
    Raises ValueError without an image that shows a lesion.
    """
    pairs = [(p, as_mask(t)) for _, p, t in _named_pairs(probabilities, truths, None)]
    lesions, free = [(p, t) for p, t in pairs if t.any()], [p for p, t in pairs if not t.any()]
    if not lesions:
        raise ValueError("no image with a lesion: a threshold cannot be chosen by Dice")
    alarms = {x: np.mean([false_alarm(p > x) for p in free]) if free else 0.0 for x in thresholds}
    allowed = [x for x in alarms if alarms[x] <= max(alarm_limit, min(alarms.values()))]
    scores = {x: np.array([dice(p > x, t) for p, t in lesions]) for x in allowed}
    best = max(scores.values(), key=np.mean)
    as_good = [x for x in allowed if _no_worse(scores[x] - best)]
    return float(min(as_good, key=lambda x: abs(x - 0.5)))


def _no_worse(differences: np.ndarray) -> bool:
    """Whether the mean of paired differences lies within one standard error of zero, or above."""
    n = len(differences)
    error = differences.std(ddof=1) / np.sqrt(n) if n > 1 else 0.0
    return bool(differences.mean() + error >= 0)
