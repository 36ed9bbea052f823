"""The losses of the depth network: is the shape right, are its edges in the right place, does it keep what stands out.

d and d* are the predicted and the true depth, both positive; g = log d − log d*. Each takes `prediction` and `depth`
b×1×h×w and `valid`, where the true depth is known, and returns a scalar: one value per image, then the mean over the
batch. Half-precision input is computed in float32. ValueError when the shapes differ.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lesionkit.depth import RELIEF_SCALES, relief, squash

Depth = Float[Tensor, "b 1 h w"]
Valid = Bool[Tensor, "b 1 h w"] | Float[Tensor, "b 1 h w"]  # True or 1 where the true depth is known
Scalar = Float[Tensor, ""]

SMALLEST_DEPTH = 1e-6  # keeps the logarithm finite when a half-precision network rounds a depth to zero


def scale_invariant_log(prediction: Depth, depth: Depth, valid: Valid, variance_focus: float = 0.85) -> Scalar:
    """mean(g²) − λ·mean(g)² with g = log d − log d*, over the valid pixels of an image; Eigen et al. 2014.

    λ is `variance_focus`: 0 is a plain squared error of the logarithm, 1 forgives any common factor (only the
    variance of g counts), since one image cannot tell absolute size. Eigen uses 0.5, later work 0.85 (BTS,
    Lee et al. 2019). At least 0. An image without a valid pixel counts as 0.
    """
    g, known = _log_ratio(prediction, depth, valid)
    return (_mean_where(g.square(), known) - variance_focus * _mean_where(g, known).square()).mean()


def gradient_matching(prediction: Depth, depth: Depth, valid: Valid, scales: int = 3) -> Scalar:
    """Mean of |∂g/∂x| + |∂g/∂y| with g = log d − log d*, averaged over `scales`; Li and Snavely 2018.

    It asks for depth edges in the right place: a constant factor costs nothing, a blurred edge does. At scale
    k every 2^k-th pixel is kept; differences are taken between valid neighbours only. At least 0.
    """
    g, known = _log_ratio(prediction, depth, valid)
    per_scale = []
    for step in (2**k for k in range(scales)):
        kept, sure = g[..., ::step, ::step], known[..., ::step, ::step]
        along_x = _mean_where(kept.diff(dim=3).abs(), sure[..., 1:] & sure[..., :-1])
        along_y = _mean_where(kept.diff(dim=2).abs(), sure[..., 1:, :] & sure[..., :-1, :])
        per_scale.append((along_x + along_y).mean())
    return torch.stack(per_scale).mean()


def relief_matching(prediction: Depth, depth: Depth, weight: Valid) -> Scalar:
    """Mean of (f(r) − f(r*))², r the `depth.relief` at each of its four scales and f its `squash`: what the attention
    is fed. A few hundredths count as much as a whole fold; a plane costs nothing, however far or oblique. Squared, so
    that faint evidence of a lesion gives a faint relief rather than none. weight: what a pixel counts, 0 where nothing
    is seen; the true depth must be known everywhere, since surroundings reach beyond what is seen. In [0, 4].
    """
    _check_shapes(prediction, depth, weight)
    d, d_true = prediction.float(), depth.float()
    off = sum((squash(relief(d, s)) - squash(relief(d_true, s))).square() for s in RELIEF_SCALES) / len(RELIEF_SCALES)
    return _mean_where(off, weight).mean()


def _check_shapes(prediction: Depth, depth: Depth, valid: Valid) -> None:
    if not prediction.shape == depth.shape == valid.shape:
        shapes = ", ".join(str(tuple(x.shape)) for x in (prediction, depth, valid))
        raise ValueError(f"prediction, depth and valid must have one shape, not {shapes}")


def _log_ratio(prediction: Depth, depth: Depth, valid: Valid) -> tuple[Depth, Bool[Tensor, "b 1 h w"]]:
    """log d − log d*, and where it is known. An unknown pixel has the ratio 0 and passes no gradient."""
    _check_shapes(prediction, depth, valid)
    known = valid > 0.5
    dtype = torch.promote_types(prediction.dtype, torch.float32)
    # Replaced before the logarithm: the gradient of log(0) is infinite, and infinity times 0 is not a number.
    d, d_true = (torch.where(known, x.to(dtype), 1).clamp(min=SMALLEST_DEPTH) for x in (prediction, depth))
    return d.log() - d_true.log(), known


def _mean_where(values: Float[Tensor, "b 1 y x"], where: Bool[Tensor, "b 1 y x"] | Float[Tensor, "b 1 y x"]) -> Tensor:
    """Mean per image of the values that count, or as much as they count; 0 for an image where none does."""
    count = where.sum(dim=(1, 2, 3)).clamp(min=1)
    return (values * where).sum(dim=(1, 2, 3)) / count
