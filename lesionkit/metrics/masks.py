"""What one predicted mask is worth against one true mask: pixels, boundary, lesions, false alarms.

Every function takes one image: a `prediction` and a `truth` of one size, each an array or a tensor of H×W, 1×H×W or
1×1×H×W; bool, {0, 1} or {0, 255}. Probabilities are refused: a threshold is a choice. ValueError for other input.
What is not defined is NaN, never 0 or 1, so that a mean cannot count it in silence.

The kit rule for images without a lesion (truth empty): Dice, IoU and boundary F1 are NaN whatever was marked; such an
image is judged by `false_alarm` alone. (To count it as Dice 1 or 0 makes the mean a mixture of two questions; to drop
it, as MONAI and torchmetrics do, hides every false alarm.)
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_erosion, distance_transform_edt, label
from torch import Tensor

NAN = float("nan")
MapLike = np.ndarray | Tensor


def as_map(values: MapLike) -> np.ndarray:
    """As an H×W array. ValueError for another shape than those above."""
    array = values.detach().cpu().double().numpy() if isinstance(values, Tensor) else np.asarray(values)
    while array.ndim > 2 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"one H×W map expected, not an array of shape {array.shape}")
    return array


def as_mask(mask: MapLike) -> np.ndarray:
    """As an H×W bool array. ValueError for another shape, or for values other than {0, 1} or {0, 255}."""
    array = as_map(mask)
    top = array.max()
    if top not in (0, 1, 255) or not ((array == 0) | (array == top)).all():
        raise ValueError("a mask holds 0 and 1 (or 255) only; threshold probabilities first")
    return array > 0


def _pair(prediction: MapLike, truth: MapLike) -> tuple[np.ndarray, np.ndarray]:
    p, t = as_mask(prediction), as_mask(truth)
    if p.shape != t.shape:
        raise ValueError(f"prediction {p.shape} and truth {t.shape} must have one size")
    return p, t


def _ratio(part: np.integer, whole: np.integer) -> float:
    return float(part / whole) if whole else NAN


def dice(prediction: MapLike, truth: MapLike) -> float:
    """2·|P ∩ T| / (|P| + |T|), in [0, 1]; NaN when the truth is empty (kit rule)."""
    p, t = _pair(prediction, truth)
    return _ratio(2 * (p & t).sum(), p.sum() + t.sum()) if t.any() else NAN


def iou(prediction: MapLike, truth: MapLike) -> float:
    """|P ∩ T| / |P ∪ T|, in [0, 1]; NaN when the truth is empty (kit rule)."""
    p, t = _pair(prediction, truth)
    return _ratio((p & t).sum(), (p | t).sum()) if t.any() else NAN


def sensitivity(prediction: MapLike, truth: MapLike) -> float:
    """|P ∩ T| / |T|: the share of the lesion that was marked; NaN when the truth is empty."""
    p, t = _pair(prediction, truth)
    return _ratio((p & t).sum(), t.sum())


def precision(prediction: MapLike, truth: MapLike) -> float:
    """|P ∩ T| / |P|: the share of what was marked that is lesion; NaN when nothing was marked."""
    p, t = _pair(prediction, truth)
    return _ratio((p & t).sum(), p.sum())


def boundary_pixels(mask: np.ndarray) -> np.ndarray:
    """The pixels of an H×W bool mask with a 4-neighbour outside it; beyond the image is outside."""
    return mask & ~binary_erosion(mask)


def edge_f1(prediction: np.ndarray, truth: np.ndarray, tolerance_px: float | int) -> float:
    """F1 of two sets of pixels (H×W bool), matched within a tolerance; NaN without truth."""
    if not truth.any():
        return NAN
    if not prediction.any():
        return 0.0
    found = (distance_transform_edt(~truth)[prediction] <= tolerance_px).mean()  # precision
    covered = (distance_transform_edt(~prediction)[truth] <= tolerance_px).mean()  # recall
    return float(2 * found * covered / (found + covered)) if found + covered else 0.0


def boundary_f1(prediction: MapLike, truth: MapLike, tolerance_px: float | int | None = None) -> float:
    """F1 of the two outlines within a tolerance, in [0, 1], Csurka et al. 2013 ("BF score").

    The tolerance is by default 0.75 % of the image diagonal, as in that paper. NaN when the truth is empty (kit rule),
    0 when only the prediction is.
    """
    p, t = _pair(prediction, truth)
    if tolerance_px is None:
        tolerance_px = 0.0075 * np.hypot(*t.shape)
    return edge_f1(boundary_pixels(p), boundary_pixels(t), tolerance_px)


def hausdorff95(prediction: MapLike, truth: MapLike) -> float:
    """95th percentile of the distances from outline to outline, the larger of both directions, in pixels. NaN when
    either mask is empty: a missed lesion has no distance, so read the mean beside its count."""
    p, t = _pair(prediction, truth)
    if not (p.any() and t.any()):
        return NAN
    p, t = boundary_pixels(p), boundary_pixels(t)
    from_prediction, from_truth = distance_transform_edt(~t)[p], distance_transform_edt(~p)[t]
    return float(max(np.percentile(from_prediction, 95), np.percentile(from_truth, 95)))


# Of the image. Drawn masks carry stray pixels: 12 of the 52 components under 5 % in Kvasir-SEG's PraNet test part are
# one pixel, the smallest of the others is nineteen times this.
SPECK = 1e-4


@dataclass(frozen=True)
class LesionMatches:
    """The true lesions of one image, in scan order, and what was marked where there is none."""

    area_fraction: tuple[float, ...]  # of the image, per true lesion
    best_iou: tuple[float, ...]  # with the predicted component that fits best, 0 when none touches
    detected: tuple[bool, ...]
    false_components: int  # predicted components that touch no true lesion


def lesion_matches(prediction: MapLike, truth: MapLike, min_iou: float = 0.1) -> LesionMatches:
    """Lesion by lesion instead of pixel by pixel; lesions are 8-connected components of at least `SPECK`.

    A lesion is detected when one predicted component has at least the IoU `min_iou` with it. The default is that of
    medical object detection (Jaeger et al. 2020, Retina U-Net; Baumgartner et al. 2021, nnDetection): to point at the
    lesion is what counts, but a mask over the whole image does not point. A component that touches a lesion but fits
    none is neither a detection nor a false component.
    """
    p, t = _pair(prediction, truth)
    (predicted, n_predicted), (true, n_true) = (label(mask, structure=np.ones((3, 3))) for mask in (p, t))
    # overlap[i, j]: pixels of true lesion i in predicted component j; row and column 0 are the background
    overlap = np.zeros((n_true + 1, n_predicted + 1), dtype=int)
    np.add.at(overlap, (true, predicted), 1)
    union = overlap.sum(1, keepdims=True) + overlap.sum(0, keepdims=True) - overlap
    sizes = overlap.sum(1)
    lesions = 1 + np.flatnonzero(sizes[1:] >= SPECK * t.size)
    fit = (overlap[lesions, 1:] / union[lesions, 1:]).max(axis=1, initial=0.0)
    return LesionMatches(
        area_fraction=tuple((sizes[lesions] / t.size).tolist()),
        best_iou=tuple(fit.tolist()),
        detected=tuple((fit >= min_iou).tolist()),
        false_components=int((overlap[lesions, 1:].sum(0) == 0).sum()),
    )


def false_alarm(prediction: MapLike, min_area_fraction: float = 0.001) -> bool:
    """Whether more than `min_area_fraction` of the pixels are marked; for images that show no lesion. The mean over
    them is the false-alarm rate. A speck of one pixel in a thousand would not make anyone look."""
    return bool(as_mask(prediction).mean() > min_area_fraction)
