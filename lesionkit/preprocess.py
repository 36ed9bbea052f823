"""Step [8] of docs/method.md: from a raw frame to the image that the networks see. Kornia, on the image's own device.

Letters: b images, h × w pixels, s = size_px. Images are float32 RGB in [0, 1] on the way in and on the way out; the
mean and standard deviation that a network wants belong inside its encoder.

The order is fixed, and that of this file: find the field of view, crop and resize to it, even out exposure and colour,
soften the specular highlights. The illumination is changed *globally*, by one gamma and one tint: under a lamp at the
camera, local brightness falls with the squared distance, and to flatten it would erase the cue that depth is read from.
"""

from dataclasses import dataclass

import kornia
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from lesionkit.devices import area_mean

DARK = 28 / 255  # the surround stays below this in every channel; ClinicDB's is a grey of up to 24/255, not black
STRIDE = 32  # what the networks' poolings need; sizes are multiples of it


class ImageError(ValueError):
    """An image of a type, shape or range that the method cannot take, or a size it cannot bring it to; one sentence."""


@dataclass(frozen=True)
class Preprocessed:
    """view: {0, 1}, the visible part; box: x, y, width, height in pixels of the original that was cropped to it."""

    image: Float[Tensor, "b 3 s s"]
    view: Float[Tensor, "b 1 s s"]
    box: Int[Tensor, "b 4"]


def preprocess(image: Float[Tensor, "b 3 h w"], size_px: int = 256) -> Preprocessed:
    """The whole step. Raises ImageError for a wrong shape, values outside [0, 1] or NaN, or a size_px that is no
    positive multiple of 32."""
    check(image, size_px)
    box = view_box(image)
    cropped = crop_resize(image, box, size_px)
    view = view_mask(cropped)
    evened = even_colour(even_exposure(cropped, view), view)
    return Preprocessed(soften_highlights(evened, view), view, box)


def check(image: Tensor, size_px: int) -> None:
    if image.ndim != 4 or image.shape[1] != 3 or 0 in image.shape:
        raise ImageError(f"an image batch is b×3×h×w RGB, this one is {'×'.join(map(str, image.shape))}")
    if size_px < STRIDE or size_px % STRIDE:
        raise ImageError(f"size_px is {size_px}: use a positive multiple of {STRIDE}")
    low, high = image.aminmax()
    if not (low >= -1e-4 and high <= 1 + 1e-4):  # false for NaN too
        raise ImageError(f"image values run from {low:.3g} to {high:.3g}: give floats in [0, 1] without NaN")


def view_box(image: Float[Tensor, "b 3 h w"], share: float = 0.06) -> Int[Tensor, "b 4"]:
    """The field of view: x, y, width, height of the rows and columns of which at least `share` is not dark; a single
    pixel may be text burnt into the black margin. A frame without both such rows and such columns, dark but for a line
    of text perhaps, is kept whole."""
    bright = (image.amax(dim=1) > DARK).float()
    spans, axes = [], [bright.mean(dim=axis) > share for axis in (1, 2)]  # a mean over rows is a column's share
    whole = ~(axes[0].any(1) & axes[1].any(1))
    for used in axes:
        n = used.shape[1]
        first = torch.where(whole, 0, used.float().argmax(1))
        last = torch.where(whole, n - 1, n - 1 - used.flip(1).float().argmax(1))
        spans.append((first, last - first + 1))
    (x, width), (y, height) = spans
    return torch.stack([x, y, width, height], dim=1)


def crop_resize(
    image: Float[Tensor, "b c h w"], box: Int[Tensor, "b 4"], size_px: int, mode: str = "area"
) -> Float[Tensor, "b c s s"]:
    """Each image cut to its box and resized to a square; `mode` as in `resize`."""
    boxes = zip(image, box.tolist(), strict=True)
    parts = [one[None, :, y : y + height, x : x + width] for one, (x, y, width, height) in boxes]
    return torch.cat([resize(part, size_px, mode) for part in parts])


def resize(maps: Float[Tensor, "b c h w"], size_px: int, mode: str = "area") -> Float[Tensor, "b c s s"]:
    """To a square. mode: "area", which does not alias, and where a side grows is "bilinear"; "bilinear", antialiased;
    "nearest-exact" for depth and masks: a mean of two depths is a depth where nothing is."""
    if mode == "area" and min(maps.shape[2:]) >= size_px:
        return area_mean(maps, (size_px, size_px))
    mode = "bilinear" if mode == "area" else mode
    smooth = {"align_corners": False, "antialias": True} if mode == "bilinear" else {}
    return F.interpolate(maps, size=(size_px, size_px), mode=mode, **smooth)


def view_mask(image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h w"]:
    """1 where the frame shows tissue: what has something bright to its left and right, above and below. So a dark lumen
    belongs to it, while the black corners and a black box in one of them do not."""
    level = image.amax(dim=1, keepdim=True)
    # the mean of the neighbours as well, so that a single noisy pixel in the corner is not tissue
    bright = ((level > DARK) & (kornia.filters.box_blur(level, (3, 3)) > DARK)).float()
    between = torch.ones_like(bright)
    for axis in (2, 3):
        before = bright.cummax(dim=axis).values
        after = bright.flip(axis).cummax(dim=axis).values.flip(axis)
        between = between * before * after
    return close_gaps(between)


def close_gaps(mask: Float[Tensor, "b 1 h w"], side_px: int = 9) -> Float[Tensor, "b 1 h w"]:
    """Morphological closing: a dark lumen that runs out of the frame leaves thin gaps, which are filled."""
    margin = [2 * (side_px // 2)] * 4  # beyond the frame, or the edge would shrink back less than it grew
    dilated = dilate(F.pad(mask, margin), side_px)
    eroded = -dilate(-dilated, side_px)
    return F.pad(eroded, [-width for width in margin])


def dilate(maps: Float[Tensor, "b 1 h w"], side_px: int) -> Float[Tensor, "b 1 h w"]:
    """The maximum over the square of `side_px` (odd) around each pixel: along the columns, then along the rows, which
    is the same and several times as fast."""
    half = side_px // 2
    columns = F.max_pool2d(maps, (side_px, 1), stride=1, padding=(half, 0))
    return F.max_pool2d(columns, (1, side_px), stride=1, padding=(0, half))


def even_exposure(image: Float[Tensor, "b 3 h w"], view: Float[Tensor, "b 1 h w"], target: float = 0.45) -> Tensor:
    """One gamma for each image, so that the mean brightness of its view becomes `target`. A gamma rather than a gain:
    it saturates nothing and keeps the order of brightness."""
    mean = _view_mean(kornia.color.rgb_to_grayscale(image), view)
    gamma = (torch.log(torch.tensor(target)) / torch.log(mean.clamp(0.02, 0.98))).clamp(0.5, 2.0)
    return image.clamp_min(1e-6) ** gamma * (image > 0)


def even_colour(image: Float[Tensor, "b 3 h w"], view: Float[Tensor, "b 1 h w"], strength: float = 0.5) -> Tensor:
    """Moves each image's mean colour half-way to a typical mucosa's, by one factor a channel: an image filled by a red
    lesion is rightly red, and a grey-world balance would turn it grey."""
    typical = torch.tensor([0.62, 0.42, 0.35], device=image.device).view(1, 3, 1, 1)
    factor = (typical / _view_mean(image, view).clamp_min(0.02)) ** strength
    factor = (factor / factor.mean(dim=1, keepdim=True)).clamp(0.6, 1.6)  # colour only: brightness is even already
    return (image * factor).clamp(0, 1)


def _view_mean(image: Tensor, view: Tensor) -> Tensor:
    total = (image * view).sum(dim=(2, 3), keepdim=True)
    return total / view.sum(dim=(2, 3), keepdim=True).clamp_min(1)


def highlight_mask(image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h w"]:
    """1 on specular highlights and a rim of two pixels: bright, colourless, and brighter than the tissue around."""
    low, high = image.amin(dim=1, keepdim=True), image.amax(dim=1, keepdim=True)
    seen = (high > DARK).float()  # the black surround is no comparison: beside it every rim would be a highlight
    around = kornia.filters.box_blur(torch.cat([low * seen, seen], dim=1), (15, 15))
    level = around[:, :1] / around[:, 1:].clamp_min(1e-3)
    spot = ((low > 0.62) & (high - low < 0.3) & (low > level + 0.08)).float()
    return dilate(spot, 5) * seen


def soften_highlights(image: Float[Tensor, "b 3 h w"], view: Float[Tensor, "b 1 h w"]) -> Tensor:
    """Replaces highlights by the weighted mean of the tissue around them (a normalised convolution); what lies
    outside the view is left alone."""
    spots = highlight_mask(image) * view
    weight = (1 - spots) * (image.amax(dim=1, keepdim=True) > DARK) + 1e-4
    kernel, sigma = (21, 21), (5.0, 5.0)
    blurred = kornia.filters.gaussian_blur2d(torch.cat([image * weight, weight], dim=1), kernel, sigma)
    filled = blurred[:, :3] / blurred[:, 3:].clamp_min(1e-6)
    soft = kornia.filters.box_blur(spots, (3, 3)) * view  # no hard rim around what was filled
    return torch.lerp(image, filled, soft).clamp(0, 1)
