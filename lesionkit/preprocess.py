"""Step [8] of docs/method.md: from a raw frame to the image that the networks see. Kornia, on the image's own device.

Letters: b images, h × w pixels, s = size_px. Images are float32 RGB in [0, 1] on the way in and on the way out; the
mean and standard deviation that a network wants belong inside its encoder.

The order is fixed, and that of this file: find the field of view, crop and resize to it, even out exposure and colour,
soften the specular highlights. The illumination is changed *globally*, by one gamma and one tint: under a lamp at the
camera, local brightness falls with the squared distance, and to flatten it would erase the cue that depth is read from.
"""

from dataclasses import dataclass

import cv2
import kornia
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from lesionkit.devices import area_mean

DARK = 28 / 255  # the surround stays below this in every channel; ClinicDB's is a grey of up to 24/255, not black
STRIDE = 32  # what the networks' poolings need; sizes are multiples of it
GRID = 128  # cells along a frame's longer side, fewer in small ones; in them the view is looked for
SMALLEST_VIEW = 0.05  # share of the frame; the still picture that processors put beside the view takes up to that
WIDEST = 1.4  # of the crop that is squeezed into a square; a wider or taller view gets black margins
EVEN = 1.6 / 255  # standard deviation of a colour in a cell; tissue has more, even out of focus


class ImageError(ValueError):
    """An image of a type, shape or range that the method cannot take, or a size it cannot bring it to; one sentence."""


@dataclass(frozen=True)
class Preprocessed:
    """view: {0, 1}, where tissue is seen; outside it the image is black. box: x, y, width, height in pixels of the
    original that was cropped to it, and may reach beyond it; found: of the view."""

    image: Float[Tensor, "b 3 s s"]
    view: Float[Tensor, "b 1 s s"]
    box: Int[Tensor, "b 4"]
    found: Int[Tensor, "b 4"]


def preprocess(image: Float[Tensor, "b 3 h w"], size_px: int = 256, view: str = "auto") -> Preprocessed:
    """The whole step. view="whole": nothing is cut off, for frames whose view is not found. Raises ImageError for a
    wrong shape, values outside [0, 1] or NaN, or a size_px that is no positive multiple of 32."""
    check(image, size_px)
    found, part = find_view(image) if view == "auto" else whole_view(image)
    box = widened(found)
    cropped = crop_resize(image, box, size_px)
    seen = view_of(cropped, crop_cells(part, image.shape[2:], box, size_px))
    evened = even_colour(even_exposure(cropped, seen), seen)
    return Preprocessed(soften_highlights(evened, seen) * seen, seen, box, found)


def check(image: Tensor, size_px: int) -> None:
    if image.ndim != 4 or image.shape[1] != 3 or 0 in image.shape:
        raise ImageError(f"an image batch is b×3×h×w RGB, this one is {'×'.join(map(str, image.shape))}")
    if size_px < STRIDE or size_px % STRIDE:
        raise ImageError(f"size_px is {size_px}: use a positive multiple of {STRIDE}")
    low, high = image.aminmax()
    if not (low >= -1e-4 and high <= 1 + 1e-4):  # false for NaN too
        raise ImageError(f"image values run from {low:.3g} to {high:.3g}: give floats in [0, 1] without NaN")


def find_view(image: Float[Tensor, "b 3 h w"]) -> tuple[Int[Tensor, "b 4"], Float[Tensor, "b 1 y x"]]:
    """The field of view: x, y, width, height, and in which of y × x cells it lies: 1, at its edge ½, else 0. It is the
    largest connected part of a frame that is neither surround nor panel. A frame in which no part takes SMALLEST_VIEW
    keeps its whole box, and no cell of it is view.

    Looked for in cells, so that text and icons vanish, then bounded to the pixel. It is taken to be convex, but for
    panels, and nothing else: views are round, octagonal, cut off, or covered in a corner.
    """
    cell = max(round(max(image.shape[2:]) / GRID), 3)  # in fewer pixels nothing can be said to be even
    grids = zip(*(grid.cpu().numpy() for grid in cells(image, cell)), strict=True)
    boxes, parts = [], []
    for one, (mean, spread) in zip(image, grids, strict=True):
        dark = darkness(mean.max(axis=0), spread)
        parts.append(largest_part(mean, spread, dark))
        boxes.append(bounds(one, parts[-1], cell, dark))
    found = torch.from_numpy(np.stack(parts)[:, None]).to(image)
    return torch.tensor(boxes), (dilate(found, 3) - dilate(-found, 3)) / 2  # grown and shrunk: they differ at the edge


def whole_view(image: Float[Tensor, "b 3 h w"]) -> tuple[Int[Tensor, "b 4"], Float[Tensor, "b 1 1 1"]]:
    """As `find_view`, without looking."""
    height, width = image.shape[2:]
    return torch.tensor([[0, 0, width, height]] * len(image)), image.new_ones(len(image), 1, 1, 1)


def cells(image: Float[Tensor, "b 3 h w"], cell: int) -> tuple[Float[Tensor, "b 3 y x"], Float[Tensor, "b y x"]]:
    """Mean colour of each cell of `cell` × `cell` pixels, and the largest standard deviation of a channel in it."""
    means = F.avg_pool2d(torch.cat([image, image.square()], dim=1), cell, ceil_mode=True)
    mean, square = means.chunk(2, dim=1)
    return mean, (square - mean.square()).amax(1).clamp_min(0).sqrt()


def darkness(level: Float[np.ndarray, "y x"], spread: Float[np.ndarray, "y x"]) -> float:
    """The brightness that a frame's tissue exceeds: DARK, less in a dim frame, but more than its surround has."""
    surround = level[(level <= DARK) & (spread < EVEN)]
    above = np.quantile(surround, 0.8) + 8 / 255 if surround.size > 0.015 * level.size else DARK
    return float(np.clip(np.quantile(level, 0.98) / 0.6 * DARK, min(above, DARK), DARK))


def largest_part(
    mean: Float[np.ndarray, "3 y x"], spread: Float[np.ndarray, "y x"], dark: float
) -> Bool[np.ndarray, "y x"]:
    """The cells of the view. A panel is what tissue is not: evenly coloured over five cells, and not reddish."""
    level, flat = mean.max(axis=0), (spread < EVEN) & (mean[1] > mean[0] - 6 / 255)
    even = ndimage.binary_opening(flat & (level > dark) & (level < 245 / 255), np.ones((5, 5)))  # overexposed is white
    panel = panels(mean, even)
    bright = ndimage.binary_opening((level > dark) & ~panel, np.ones((3, 3)))  # opened: text is thinner
    return within(bright, panel) & ~panel


def within(bright: Bool[np.ndarray, "y x"], panel: Bool[np.ndarray, "y x"]) -> Bool[np.ndarray, "y x"]:
    """The convex hull of the largest connected part and of those that reach into its box: tissue behind a lumen as dark
    as the surround. A still picture lies beside the view; what touches a panel may be one of its halves. Nothing, where
    the largest is below SMALLEST_VIEW."""
    labels, _ = ndimage.label(bright)
    sizes = np.bincount(labels.ravel(), minlength=2)[1:]
    hull = np.zeros(bright.shape, np.uint8)
    if sizes.max() < SMALLEST_VIEW * bright.size:
        return hull > 0
    of_largest = ndimage.find_objects(labels)[sizes.argmax()]
    beside_panel = labels[ndimage.binary_dilation(panel, np.ones((5, 5)))]
    reaching = np.bincount(labels[of_largest].ravel(), minlength=len(sizes) + 1)[1:] > 0.1 * sizes
    tissue = {1 + sizes.argmax(), *np.setdiff1d(1 + np.flatnonzero(reaching), beside_panel)}
    corners = np.argwhere(np.isin(labels, list(tissue)))[:, ::-1]
    return cv2.fillConvexPoly(hull, cv2.convexHull(corners.astype(np.int32)), 1) > 0


def panels(mean: Float[np.ndarray, "3 y x"], even: Bool[np.ndarray, "y x"]) -> Bool[np.ndarray, "y x"]:
    """Each part of `even` with what has its colour beside it and the drawings between, where it ends sharply: out of
    focus, tissue may be as even as a panel, but goes over into more of it."""
    found, (labels, count) = np.zeros_like(even), ndimage.label(even)
    for part in (labels == number for number in range(1, count + 1)):
        away = abs(mean - np.median(mean[:, part], axis=1)[:, None, None]).max(axis=0)
        near = ndimage.binary_dilation(part, np.ones((19, 19))) & (away < 0.1)
        whole = ndimage.grey_closing((part | near).astype(np.uint8), (11, 11)) > 0
        grown = ndimage.binary_dilation(whole, np.ones((3, 3)))
        ring = ndimage.binary_dilation(grown, np.ones((3, 3))) & ~grown
        if not ring.any() or np.median(away[ring]) > 0.2:
            found |= grown
    return found


def bounds(
    image: Float[Tensor, "3 h w"], part: Bool[np.ndarray, "y x"], cell: int, dark: float, share: float = 0.06
) -> list[int]:
    """x, y, width, height around the cells of `part`, to the pixel: the rows and columns of which at least `share` is
    not dark."""
    if not part.any():
        return [0, 0, *image.shape[:0:-1]]
    rows, columns = (np.flatnonzero(part.any(axis=axis)) for axis in (1, 0))
    top, left = (max((used[0] - 1) * cell, 0) for used in (rows, columns))
    window = image[:, top : (rows[-1] + 2) * cell, left : (columns[-1] + 2) * cell].amax(0) > dark
    (y, height), (x, width) = (_extent(window.float().mean(axis) > share) for axis in (1, 0))
    return [int(left) + x, int(top) + y, width, height]


def _extent(used: Bool[Tensor, " n"]) -> tuple[int, int]:
    """The first that is used, and how many from there to the last."""
    places = used.nonzero()
    first, last = (int(places[0]), int(places[-1])) if len(places) else (0, len(used) - 1)
    return first, last - first + 1


def widened(box: Int[Tensor, "b 4"]) -> Int[Tensor, "b 4"]:
    """The boxes with room added above and below, or left and right, where one side is more than WIDEST the other."""
    x, y, width, height = box.unbind(1)
    wide, high = (torch.maximum(a, (b / WIDEST).ceil().long()) for a, b in ((width, height), (height, width)))
    return torch.stack([x - (wide - width) // 2, y - (high - height) // 2, wide, high], dim=1)


def crop_resize(
    image: Float[Tensor, "b c h w"], box: Int[Tensor, "b 4"], size_px: int, mode: str = "area", fill: str = "zero"
) -> Float[Tensor, "b c s s"]:
    """Each image cut to its box and resized to a square; `mode` as in `resize`. Where a box reaches beyond the image
    stands 0, or with fill="edge" the nearest value: for a depth, of which 0 would be nonsense."""
    pairs = zip(image.split(1), box.tolist(), strict=True)
    return torch.cat([resize(_cut(one, *xywh, fill), size_px, mode) for one, xywh in pairs])


def crop_cells(
    part: Float[Tensor, "b 1 y x"], size_hw: tuple[int, int], box: Int[Tensor, "b 4"], size_px: int
) -> Float[Tensor, "b 1 s s"]:
    """The cells of images of size_hw as `crop_resize` would place their pixels; 0 beyond the image."""
    cell = max(-(-n // cells) for n, cells in zip(size_hw, part.shape[2:], strict=True))
    middles, found = (torch.arange(size_px) + 0.5) / size_px, []
    for one, (x, y, width, height) in zip(part[:, 0], box.tolist(), strict=True):
        rows, columns = (start + length * middles for start, length in ((y, height), (x, width)))
        inside = ((rows >= 0) & (rows < size_hw[0]))[:, None] & (columns >= 0) & (columns < size_hw[1])
        at = [(n / cell).long().clamp(0, c - 1) for n, c in zip((rows, columns), one.shape, strict=True)]
        found.append(one[at[0]][:, at[1]] * inside.to(one))
    return torch.stack(found)[:, None]


def _cut(image: Tensor, x: int, y: int, width: int, height: int, fill: str) -> Tensor:
    inside = image[..., max(y, 0) : y + height, max(x, 0) : x + width]
    before, (rows, columns) = (max(-x, 0), max(-y, 0)), inside.shape[2:]
    margins = (before[0], width - columns - before[0], before[1], height - rows - before[1])
    return F.pad(inside, margins, mode={"zero": "constant", "edge": "replicate"}[fill]) if any(margins) else inside


def resize(maps: Float[Tensor, "b c h w"], size_px: int, mode: str = "area") -> Float[Tensor, "b c s s"]:
    """To a square. mode: "area", which does not alias, and where a side grows is "bilinear"; "bilinear", antialiased;
    "nearest-exact" for depth and masks: a mean of two depths is a depth where nothing is."""
    if mode == "area" and min(maps.shape[2:]) >= size_px:
        return area_mean(maps, (size_px, size_px))
    mode = "bilinear" if mode == "area" else mode
    smooth = {"align_corners": False, "antialias": True} if mode == "bilinear" else {}
    return F.interpolate(maps, size=(size_px, size_px), mode=mode, **smooth)


def view_of(image: Float[Tensor, "b 3 s s"], part: Float[Tensor, "b 1 s s"]) -> Float[Tensor, "b 1 s s"]:
    """{0, 1} from the cells of `find_view`: in those at the view's edge, what is bright."""
    return ((part + 0.5 * (image.amax(dim=1, keepdim=True) > DARK)) >= 1).float()


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
