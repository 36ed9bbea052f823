"""Steps [35, 36] of docs/method.md: the two initial losses, their weighted sum, and the alternatives.

    b, h, w   batch, height, width
    z         logit of a pixel, any real number; z > 0 says "lesion"
    p         probability of a pixel, sigmoid(z)
    y         truth of a pixel, 1 on a lesion and 0 elsewhere
    TP        overlap, the sum of p·y over the pixels of one image (soft: p instead of a decision)
    FP, FN    the sum of p·(1 − y), and of (1 − p)·y

Every segmentation loss takes `logits` B×1×H×W (any real numbers) and `mask` B×1×H×W ({0, 1}) and returns a scalar: one
value per image, then the mean over the batch. The pixel losses (cross-entropy, focal) look at every pixel alone, the
region losses (Dice, Tversky, IoU, Lovász) at an image as a whole, `boundary` at the distance to the outline.
Half-precision input is computed in float32. ValueError when the shapes differ, because broadcasting would otherwise
give a wrong number in silence. The losses of the depth network stand in `depth_losses` and can be had from here too.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from lesionkit.depth_losses import Depth, Scalar, Valid
from lesionkit.depth_losses import gradient_matching as gradient_matching
from lesionkit.depth_losses import relief_matching as relief_matching
from lesionkit.depth_losses import scale_invariant_log as scale_invariant_log

Logits = Float[Tensor, "b 1 h w"]
Mask = Float[Tensor, "b 1 h w"]


class UnknownLoss(ValueError):
    """A loss was asked for by a name that `LOSSES` does not have."""


def binary_cross_entropy(logits: Logits, mask: Mask) -> Scalar:
    """Mean over the pixels of −[y·log p + (1 − y)·log(1 − p)]; 0 is perfect, no upper limit.

    Computed from the logits, because log(sigmoid(z)) of a large negative z would be log(0).
    """
    z, y = _prepare(logits, mask)
    return F.binary_cross_entropy_with_logits(z, y)


def focal(logits: Logits, mask: Mask, *, gamma: float = 2.0, alpha: float = 0.25) -> Scalar:
    """Mean over the pixels of −α_t·(1 − p_t)^γ·log p_t, Lin et al. 2017 ("Focal loss", eq. 5).

    p_t is the probability given to the truth (p where y = 1, else 1 − p). (1 − p_t)^γ silences pixels that
    are already right. α_t is `alpha` on lesion pixels and 1 − `alpha` elsewhere. The defaults are those of
    the paper; γ = 0 and α = 0.5 is half the cross-entropy.
    """
    z, y = _prepare(logits, mask)
    margin = z * (2 * y - 1)  # p_t = sigmoid(margin): positive where the pixel is right
    log_right, log_wrong = F.logsigmoid(margin), F.logsigmoid(-margin)
    alpha_t = alpha * y + (1 - alpha) * (1 - y)
    # exp(γ·log(1 − p_t)) has a finite gradient for every γ, also where 1 − p_t rounds to zero.
    return (-alpha_t * torch.exp(gamma * log_wrong) * log_right).mean()


def dice(logits: Logits, mask: Mask, *, smooth: float = 1.0) -> Scalar:
    """1 − (2·TP + s) / (Σp + Σy + s) per image, in [0, 1]; Milletari et al. 2016 (V-Net), without squares.

    `smooth` (s, in pixels) decides what a lesion-free image teaches. There TP = Σy = 0 and the loss is
    Σp / (Σp + s): nothing marked costs nothing, s marked pixels cost one half. With s in the denominator
    alone every lesion-free image would cost 1 whatever is marked, and teach nothing. A large s forgives
    that a lesion of about s pixels is missed, hence one pixel.
    """
    p, y = _probabilities(logits, mask)
    overlap = _image_sum(p * y)
    return (1 - (2 * overlap + smooth) / (_image_sum(p) + _image_sum(y) + smooth)).mean()


def tversky(logits: Logits, mask: Mask, *, alpha: float = 0.3, beta: float = 0.7, smooth: float = 1.0) -> Scalar:
    """1 − (TP + s) / (TP + α·FP + β·FN + s) per image, in [0, 1]; Salehi et al. 2017.

    `alpha` is the price of a false positive, `beta` of a false negative; β > α asks for sensitivity. The
    defaults are those that the paper found best. α = β = 1 is IoU, α = β = ½ is Dice with 2·s for s.
    """
    p, y = _probabilities(logits, mask)
    overlap = _image_sum(p * y)
    weighted_union = overlap + alpha * _image_sum(p * (1 - y)) + beta * _image_sum((1 - p) * y)
    return (1 - (overlap + smooth) / (weighted_union + smooth)).mean()


def iou(logits: Logits, mask: Mask, *, smooth: float = 1.0) -> Scalar:
    """1 − (TP + s) / (Σp + Σy − TP + s) per image, in [0, 1]; soft Jaccard index, Rahman and Wang 2016."""
    p, y = _probabilities(logits, mask)
    overlap = _image_sum(p * y)
    return (1 - (overlap + smooth) / (_image_sum(p) + _image_sum(y) - overlap + smooth)).mean()


def lovasz_hinge(logits: Logits, mask: Mask) -> Scalar:
    """The convex surrogate of 1 − IoU per image, Berman et al. 2018 (algorithm 1); ≥ 0, no upper limit.

    Every pixel has the hinge error max(0, 1 − z·(2y − 1)). The errors are sorted, largest first, and each is
    weighted by how much 1 − IoU grows when its pixel joins the wrong ones. The weights of an image sum to 1.
    On a lesion-free image the first wrong pixel makes IoU zero, so the loss is the largest error alone.
    """
    z, y = _prepare(logits, mask)
    errors = (1 - z * (2 * y - 1)).flatten(1)  # b 1 h w -> b n
    errors, order = errors.sort(dim=1, descending=True)
    # Integers: exact for every image size, and deterministic on a GPU, where a floating-point cumsum is not.
    lesion = y.flatten(1).gather(1, order).long()
    size = lesion.sum(1, keepdim=True)
    intersection = size - lesion.cumsum(1)  # a lesion pixel gone wrong leaves the intersection
    union = size + (1 - lesion).cumsum(1)  # a background pixel gone wrong enters the union
    jaccard_loss = 1 - intersection.to(y.dtype) / union.to(y.dtype)
    weights = torch.diff(jaccard_loss, dim=1, prepend=torch.zeros_like(jaccard_loss[:, :1]))
    return (errors.relu() * weights).sum(1).mean()


def boundary(logits: Logits, mask: Mask) -> Scalar:
    """Mean over the pixels of p·φ, Kervadec et al. 2019; φ is the signed distance to the true outline.

    φ is negative inside the lesion and positive outside, in units of the image diagonal, so that the value,
    in [−1, 1], does not grow with the image. The best value is negative. It is meant as the second part of a
    weighted sum with a region loss; alone it hardly sees small lesions.
    """
    p, y = _probabilities(logits, mask)
    return (p * signed_distance(y)).mean()


@torch.no_grad()
def signed_distance(mask: Mask) -> Float[Tensor, "b 1 h w"]:
    """Distance of every pixel centre to the lesion's outline / image diagonal: < 0 inside, > 0 outside.

    Without an outline there is no distance. A lesion-free image gets +1 everywhere, the largest distance an image has:
    to mark anything is as wrong as can be. An image that is all lesion gets −1. Computed by scipy on the CPU.
    """
    diagonal_px, distances_px = np.hypot(*mask.shape[-2:]), []
    for lesion in (mask[:, 0] > 0.5).cpu().numpy():
        if lesion.all() or not lesion.any():
            distances_px.append(np.full(lesion.shape, -diagonal_px if lesion.any() else diagonal_px))
        else:
            # scipy measures to the nearest pixel of the other kind; the outline runs half a pixel before it. (The
            # authors' code gives the inner rim distance 0 instead, which makes the loss indifferent to it.)
            outside, inside = distance_transform_edt(~lesion), distance_transform_edt(lesion)
            distances_px.append(np.where(lesion, 0.5 - inside, outside - 0.5))
    return torch.from_numpy(np.stack(distances_px) / diagonal_px)[:, None].to(mask)  # b h w -> b 1 h w


LOSSES: dict[str, Callable] = {
    "bce": binary_cross_entropy,
    "dice": dice,
    "focal": focal,
    "tversky": tversky,
    "iou": iou,
    "lovasz": lovasz_hinge,
    "boundary": boundary,
}


def get(loss: str | Callable) -> Callable:
    """The segmentation loss of this name; a callable is one already. UnknownLoss names the allowed ones."""
    if not callable(loss) and loss not in LOSSES:
        raise UnknownLoss(f"unknown loss {loss!r}; choose one of: {', '.join(LOSSES)}")
    return loss if callable(loss) else LOSSES[loss]


def label(loss: Callable) -> str:
    """A short name of a loss for plots: its key in `LOSSES`, with what `functools.partial` fixed."""
    if isinstance(loss, partial):
        fixed = ", ".join(f"{key}={value}" for key, value in loss.keywords.items())
        return f"{label(loss.func)}({fixed})"
    known = {function: name for name, function in LOSSES.items()}
    return known.get(loss) or getattr(loss, "name", None) or getattr(loss, "__name__", type(loss).__name__)


class WeightedLoss:
    """weight·first + (1 − weight)·second, made by `weighted`; `name` is its plot label."""

    def __init__(self, first: Callable, second: Callable, weight: float | int):
        if not 0 <= weight <= 1:  # written so that NaN fails too
            raise ValueError(f"the weight of the first loss must be between 0 and 1, not {weight}")
        self.first, self.second, self.weight = first, second, weight
        self.name = f"{weight:.2f}·{label(first)} + {1 - weight:.2f}·{label(second)}"

    def __call__(self, logits: Logits, mask: Mask) -> Scalar:
        return self.weight * self.first(logits, mask) + (1 - self.weight) * self.second(logits, mask)

    def __repr__(self) -> str:
        return self.name


class JointLoss(WeightedLoss):
    """weight·segmentation + (1 − weight)·depth, made by `joint`."""

    # `depth_prediction` has no type here: it is handed on, and a deeply supervised loss takes several maps.
    def __call__(self, logits: Logits, mask: Mask, depth_prediction, depth: Depth, valid: Valid) -> Scalar:
        return self.weight * self.first(logits, mask) + (1 - self.weight) * self.second(depth_prediction, depth, valid)


def weighted(first: str | Callable, second: str | Callable, weight: float | int) -> WeightedLoss:
    """The preset loss [36]: `(logits, mask) -> weight * first + (1 - weight) * second`, each a name of `LOSSES` or a
    callable, `weight` in [0, 1]. It prints as a plot label, "0.50·dice + 0.50·bce". Raises UnknownLoss for a name,
    ValueError for a weight."""
    return WeightedLoss(get(first), get(second), weight)


def joint(segmentation_loss: str | Callable, depth_loss: Callable, weight: float | int) -> JointLoss:
    """Reading B of the method: weight * segmentation loss + (1 - weight) * depth loss, trained jointly: a callable of
    `(logits, mask, depth_prediction, depth, valid)`. `depth_loss`, a callable, gets the last three. `weight`, in
    [0, 1], is that of the segmentation loss, a callable or a name of `LOSSES`. Raises as `weighted` does."""
    return JointLoss(get(segmentation_loss), depth_loss, weight)


def _prepare(logits: Logits, mask: Mask) -> tuple[Logits, Mask]:
    """Both in float32 at least: in half precision a sum over 300 000 pixels overflows."""
    if logits.shape != mask.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and mask {tuple(mask.shape)} must have one shape")
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return logits.to(dtype), mask.to(dtype)


def _probabilities(logits: Logits, mask: Mask) -> tuple[Float[Tensor, "b 1 h w"], Mask]:
    z, y = _prepare(logits, mask)
    return torch.sigmoid(z), y


def _image_sum(pixels: Float[Tensor, "b 1 h w"]) -> Float[Tensor, " b"]:
    return pixels.sum(dim=(1, 2, 3))  # b 1 h w -> b
