"""Tables of metrics: one row per image, one per lesion, their means by the kit rule, and by lesion size.

The kit rule: overlap and boundary metrics are averaged over the images that show a lesion; images without one give the
false-alarm rate. Every mean comes with the number of values that entered it.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from lesionkit.metrics import masks
from lesionkit.metrics.masks import NAN, MapLike, as_mask, dice, false_alarm, lesion_matches

Maps = Iterable[MapLike]


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
    "iou": masks.iou,
    "sensitivity": masks.sensitivity,
    "precision": masks.precision,
    "boundary_f1": masks.boundary_f1,
    "hd95": masks.hausdorff95,
}
COUNTED = ("lesions", "lesions_found", "false_components", "lesion_free", "false_alarm", "truth_fraction")
THRESHOLDS = tuple(np.round(np.arange(0.05, 1.0, 0.05), 2).tolist())


def evaluate_masks(predictions: Maps, truths: Maps, names: Iterable[str] | None = None) -> pd.DataFrame:
    """One row per image, indexed by its name (0, 1, … without names), of single masks or of B×1×H×W tensors.

    Columns: dice, iou, sensitivity, precision, boundary_f1 in [0, 1]; hd95 in pixels; lesions, lesions_found,
    false_components, counts; lesion_free, bool; false_alarm, 1 or 0 on lesion-free images and NaN on the others;
    truth_fraction, lesion area / image area. Undefined values are NaN. Raises ValueError when the numbers of
    predictions, truths and names differ.
    """
    rows = []
    for name, prediction, truth in _named(predictions, truths, names):
        p, t = as_mask(prediction), as_mask(truth)
        found, alarm = lesion_matches(p, t), NAN if t.any() else float(false_alarm(p))
        counts = (len(found.detected), sum(found.detected), found.false_components, not t.any(), alarm, float(t.mean()))
        rows.append((name, *(metric(p, t) for metric in AVERAGED.values()), *counts))
    return pd.DataFrame(rows, columns=["name", *AVERAGED, *COUNTED]).set_index("name")


def evaluate_lesions(predictions: Maps, truths: Maps, names: Iterable[str] | None = None) -> pd.DataFrame:
    """One row per true lesion: name of its image, area_fraction, best_iou, detected (see `lesion_matches`). Arguments
    and errors as in `evaluate_masks`."""
    rows = []
    for name, prediction, truth in _named(predictions, truths, names):
        m = lesion_matches(prediction, truth)
        rows += [(name, *row) for row in zip(m.area_fraction, m.best_iou, m.detected, strict=True)]
    return pd.DataFrame(rows, columns=["name", "area_fraction", "best_iou", "detected"])


def _named(predictions: Iterable, truths: Iterable, names: Iterable | None) -> list[tuple]:
    predictions, truths = list(predictions), list(truths)
    names = list(range(len(truths)) if names is None else names)
    if not len(predictions) == len(truths) == len(names):
        counts = f"{len(predictions)} predictions, {len(truths)} truths and {len(names)} names"
        raise ValueError(f"one of each per image is needed, not {counts}")
    return list(zip(names, predictions, truths, strict=True))


def summarise(frame: pd.DataFrame) -> dict[str, float | int | None]:
    """Means of an `evaluate_masks` table by the kit rule, ready for JSON (None: nothing to average).

    For each of dice, iou, sensitivity, precision, boundary_f1 and hd95: the mean over the images with a lesion, and
    `n_…`, how many values entered it (precision and hd95 miss the images on which nothing was marked). Over all images:
    lesion_sensitivity, lesions found / lesions, and false_components_per_image. Over the `n_false_alarm` lesion-free
    images: false_alarm_rate.
    """
    with_lesion = frame[~frame["lesion_free"].astype(bool)]
    lesions, found = int(frame["lesions"].sum()), frame["lesions_found"].sum()
    summary: dict[str, float | int | None] = {"images": len(frame), "images_with_lesion": len(with_lesion)}
    for column in AVERAGED:
        summary[column], summary[f"n_{column}"] = _mean_and_count(with_lesion[column])
    summary |= {"lesion_sensitivity": float(found / lesions) if lesions else None, "n_lesions": lesions}
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
    shown, rows = images[~images["lesion_free"].astype(bool)], {}
    for name, *edges in SIZE_BINS:
        of_images = shown[shown["truth_fraction"].between(*edges, inclusive="left")]
        detected = lesions["detected"][lesions["area_fraction"].between(*edges, inclusive="left")]
        rows[name] = {
            "images": len(of_images),
            "dice": of_images["dice"].mean(),
            "sensitivity": of_images["sensitivity"].mean(),
            "lesions": len(detected),
            "lesions_found": int(detected.sum()),
            "lesion_sensitivity": detected.astype(float).mean(),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("size")


def best_threshold(
    probabilities: Maps, truths: Maps, thresholds: Iterable[float] = THRESHOLDS, alarm_limit: float = 1.0
) -> float:
    """The threshold nearest to 0.5 whose mean Dice over the images with a lesion is as good as the best one's, within
    a standard error of their paired difference; p > threshold is lesion.

    The curve is often flat, so that the very best of a few dozen images is an accident, and one near 0 or 1 costs the
    edges (the rule of one standard error: Breiman et al., Classification and Regression Trees, 1984). Only thresholds
    at which at most `alarm_limit` of the lesion-free images raise a false alarm are asked; where none is low enough,
    those with the fewest. For the validation part only: one chosen on the test part makes the result too good.
    `probabilities` are in [0, 1]. Raises ValueError without an image that shows a lesion.
    """
    pairs = [(p, as_mask(t)) for _, p, t in _named(probabilities, truths, None)]
    lesions, free = [(p, t) for p, t in pairs if t.any()], [p for p, t in pairs if not t.any()]
    if not lesions:
        raise ValueError("no image with a lesion: a threshold cannot be chosen by Dice")
    alarms = {x: np.mean([false_alarm(p > x) for p in free]) if free else 0.0 for x in thresholds}
    allowed = [x for x in alarms if alarms[x] <= max(alarm_limit, min(alarms.values()))]
    scores = {x: np.array([dice(p > x, t) for p, t in lesions]) for x in allowed}
    best, ddof = max(scores.values(), key=np.mean), int(len(lesions) > 1)  # a single image has no spread
    gains = {x: score - best for x, score in scores.items()}
    as_good = [x for x, gain in gains.items() if gain.mean() + gain.std(ddof=ddof) / np.sqrt(len(gain)) >= 0]
    return float(min(as_good, key=lambda x: abs(x - 0.5)))
