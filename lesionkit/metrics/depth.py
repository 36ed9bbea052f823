"""How good a depth map is, over the pixels whose true depth is known.

Letters: d and d* the predicted and the true depth of a pixel, positive; near is small. Every function takes one image:
`prediction`, `depth` and `valid` (where d* is known) of one size, each an array or a tensor of H×W, 1×H×W or 1×1×H×W.
ValueError for sizes that differ, for no valid pixel, and for a depth that is not positive and finite on a valid one.
What no single image can tell, its scale, is taken out first or does not matter; the trivial estimates of
`lesionkit.depth` say what a value is worth.
"""

import numpy as np
import torch
from scipy.ndimage import binary_erosion
from scipy.stats import rankdata

from lesionkit.depth import relief
from lesionkit.metrics.masks import NAN, MapLike, as_map, edge_f1

FLAT, RAISED = 0.02, 0.1  # relief below the first is none, above the second what a lesion has


def _on_valid(prediction: MapLike, depth: MapLike, valid: MapLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """d and d* of the valid pixels, and `valid` as H×W bool."""
    d, d_true, known = as_map(prediction).astype(float), as_map(depth).astype(float), as_map(valid) > 0.5
    if not d.shape == d_true.shape == known.shape:
        shapes = f"prediction {d.shape}, depth {d_true.shape}, valid {known.shape}"
        raise ValueError(f"all three maps must have one size, not {shapes}")
    if not known.any():
        raise ValueError("no valid pixel: there is no depth to compare with")
    d, d_true = d[known], d_true[known]
    for name, values in (("prediction", d), ("depth", d_true)):
        if not (np.isfinite(values).all() and values.min() > 0):
            raise ValueError(f"{name} must be finite and positive on the valid pixels")
    return d, d_true, known


def median_scale(prediction: MapLike, depth: MapLike, valid: MapLike) -> float:
    """median(d*) / median(d) on valid pixels: the factor that one image cannot know (Zhou et al. 2017)."""
    d, d_true, _ = _on_valid(prediction, depth, valid)
    return float(np.median(d_true) / np.median(d))


def depth_metrics(prediction: MapLike, depth: MapLike, valid: MapLike) -> dict[str, float]:
    """The usual figures over the valid pixels, d scaled by `median_scale`, Eigen et al. 2014 (section 4.2).

    abs_rel  mean |d − d*| / d*            sq_rel  mean (d − d*)² / d*, in the unit of depth
    rmse     in the unit of depth          rmse_log  of natural logarithms
    delta1, delta2, delta3   share of pixels with max(d/d*, d*/d) below 1.25, 1.25², 1.25³
    """
    d, d_true, _ = _on_valid(prediction, depth, valid)
    d = d * (np.median(d_true) / np.median(d))
    error, factor = d - d_true, np.maximum(d / d_true, d_true / d)
    figures = {
        "abs_rel": np.mean(np.abs(error) / d_true),
        "sq_rel": np.mean(error**2 / d_true),
        "rmse": np.sqrt(np.mean(error**2)),
        "rmse_log": np.sqrt(np.mean(np.log(d / d_true) ** 2)),
        **{f"delta{k}": np.mean(factor < 1.25**k) for k in (1, 2, 3)},
    }
    return {name: float(value) for name, value in figures.items()}


def affine_rmse(prediction: MapLike, depth: MapLike, valid: MapLike) -> float:
    """RMSE after the best scale and shift (least squares), with d* stretched to [0, 1] on valid pixels.

    For predictions whose scale and offset are both unknown (Ranftl et al. 2020, MiDaS, there in disparity). The scale
    may come out negative: a map with near and far exchanged scores well, so read `spearman` beside it. A constant
    prediction scores the standard deviation of d*. NaN when the true depth is constant.
    """
    d, d_true, _ = _on_valid(prediction, depth, valid)
    if np.ptp(d_true) == 0:
        return NAN
    target = (d_true - d_true.min()) / np.ptp(d_true)
    # Centred, the shift is gone and the scale is one division; d − mean = 0 everywhere leaves the scale at 0.
    d, target = d - d.mean(), target - target.mean()
    scale = (d @ target) / (d @ d) if d @ d > 0 else 0.0
    return float(np.sqrt(np.mean((scale * d - target) ** 2)))


def spearman(prediction: MapLike, depth: MapLike, valid: MapLike) -> float:
    """Rank correlation of d and d*, in [−1, 1]: is what is nearer predicted nearer? Blind to every monotone
    distortion. NaN when either map is constant."""
    d, d_true, _ = _on_valid(prediction, depth, valid)
    if np.ptp(d) == 0 or np.ptp(d_true) == 0:
        return NAN
    return float(np.corrcoef(rankdata(d), rankdata(d_true))[0, 1])


def depth_edge_f1(
    prediction: MapLike, depth: MapLike, valid: MapLike, share: float = 0.05, tolerance_px: float | int = 2.0
) -> float:
    """F1 between the depth edges of both maps: are the folds where they should be? In [0, 1].

    The edges of a map are the `share` of its valid pixels where log d changes most, so neither scale nor smoothness
    decides how many there are; two edges match within `tolerance_px`. Pixels beside an invalid one do not count. 0 when
    the prediction is constant, NaN when the truth is. Not from a paper: compare it with that of a trivial estimate.
    """
    d, d_true, known = _on_valid(prediction, depth, valid)
    return edge_f1(_steepest(d, known, share), _steepest(d_true, known, share), tolerance_px)


def relief_correlation(prediction: MapLike, depth: MapLike, where: MapLike, scale: float = 1 / 16) -> float:
    """Correlation of the relief (`lesionkit.depth.relief`) of both maps over the pixels `where`, a lesion and its
    surroundings, say: does what stands out stand out in the estimate? In [−1, 1]; NaN where either is constant. Both
    maps must be positive and finite everywhere."""
    r, r_true = (one[as_map(where) > 0.5] for one in _reliefs(prediction, depth, scale))
    return float(np.corrcoef(r, r_true)[0, 1]) if len(r) and np.ptp(r) > 0 and np.ptp(r_true) > 0 else NAN


def false_relief(prediction: MapLike, depth: MapLike, where: MapLike, scale: float = 1 / 16) -> float:
    """Share of the pixels `where` that have no relief (|r*| below FLAT) in which the estimate shows some (|r| above
    RAISED); NaN where all have some."""
    r, r_true = _reliefs(prediction, depth, scale)
    flat = (as_map(where) > 0.5) & (np.abs(r_true) < FLAT)
    return float((np.abs(r[flat]) > RAISED).mean()) if flat.any() else NAN


def _reliefs(prediction: MapLike, depth: MapLike, scale: float) -> list[np.ndarray]:
    everywhere = np.ones_like(as_map(depth))
    _on_valid(prediction, depth, everywhere)  # what is not seen is part of its neighbours' surroundings
    return [relief(torch.from_numpy(as_map(one))[None, None], scale)[0, 0].numpy() for one in (prediction, depth)]


def _steepest(depth: np.ndarray, known: np.ndarray, share: float) -> np.ndarray:
    """H×W bool: the steepest pixels of log depth. `depth` holds the values of the `known` pixels."""
    logs, inner = np.zeros(known.shape), binary_erosion(known, border_value=1)
    if not inner.any():
        return inner
    logs[known] = np.log(depth)
    steepness = np.hypot(*np.gradient(logs))
    # Rounding makes a constant map a little steep; it still has no edge.
    limit = max(np.quantile(steepness[inner], 1 - share), 1e-9)
    return inner & (steepness > limit)
