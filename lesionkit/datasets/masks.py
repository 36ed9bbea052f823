"""What the values of a mask file mean: greys of a black and white picture, numbers of classes or instances, a palette's
indices, or what an alpha channel shows. Decided by the values themselves; nothing here knows a path.

Shapes: H, W = the mask's height and width in pixels. `greys` are uint8, above 127 where the lesion is.
"""

import io
from contextlib import suppress

import numpy as np
from PIL import Image, ImageOps
from scipy.ndimage import maximum_filter, minimum_filter

UNDECIDED_SHARE = 0.01  # of pixels in the middle of the range; official masks hold up to 0.02 % (soft or JPEG edges)
WHITE = 240  # the brightest value of a black and white picture reaches this, numbers seldom do
OPENCV_MODES = ("1", "L", "RGB", "CMYK", "YCbCr")  # Pillow's names of what OpenCV reads as well, and with 16 bits

Layers = tuple[np.ndarray, np.ndarray | None]


def layers(data: bytes) -> Layers | None:
    """A file's values and its alpha channel (uint8, None without one), H×W each, upright; None for what has no palette
    and no alpha, and is OpenCV's to read. Of a palette every index above 0 is lesion, unless its colours are greys from
    black to white, as of a picture that was quantised; of colours the brightest channel counts."""
    with suppress(Exception), Image.open(io.BytesIO(data)) as opened:  # of many kinds: OpenCV will say what is wrong
        if opened.mode not in OPENCV_MODES or opened.has_transparency_data:
            picture = ImageOps.exif_transpose(opened)
            alpha = np.array(picture.convert("RGBA"))[..., 3] if picture.has_transparency_data else None
            if picture.mode == "P":
                rgb = np.array(picture.convert("RGB"))
                is_grey = (rgb == rgb[..., :1]).all() and rgb.min() <= 127 < rgb.max()
                return rgb[..., 0] if is_grey else (np.array(picture) > 0).astype(np.uint8) * 255, alpha
            values = np.array(picture if alpha is None else picture.convert("RGB"))
            return (values.max(axis=2) if values.ndim == 3 else values), alpha
    return None


def shown(values: np.ndarray, alpha: np.ndarray | None, exact: bool) -> np.ndarray | None:
    """Greys of values under an alpha channel. What it hides is background; what it shows is lesion, unless that is
    black and white itself. exact, and None: as in `greys`."""
    opaque = None if alpha is None else alpha > (127 if alpha.max() > 127 else 0)
    if opaque is None or opaque.all():
        return greys(values, exact)
    if not opaque.any():  # a program that never wrote its alpha, or a layer of one colour that shows no lesion
        return greys(values * (values.min() < values.max()), exact)
    painted = greys(values * opaque, exact)
    is_picture = painted is not None and 0 < (painted[opaque] > 127).mean() < 1 and not is_undecided(painted[opaque])
    return painted if is_picture else opaque.astype(np.uint8) * 255


def greys(values: np.ndarray, exact: bool) -> np.ndarray | None:
    """A mask's values as greys. exact: the file's format keeps numbers as they are, which JPEG does not.

    It is a picture of greys where there is white, and white is lesion: noise of a JPEG around black is background, and
    so is the dark surround that shines through the masks of CVC-ClinicDB. It holds numbers, of which all above 0 are
    lesion, where nothing passes half of the range; and, white or not, where areas of equal values fill most of its
    lower half and either these are 1, 2, 3 … without a gap, or at most five values on more than 1 % of the image, or
    there is no white. None: neither, so nobody knows what is lesion.
    """
    if values.dtype.kind == "f" and values.max() <= 1:
        values = np.rint(values * 255)
    wide = bool(values.max() > 255)  # smaller ones are 8 bits in a wide file
    half, white = (32767, WHITE << 8) if wide else (127, WHITE)
    low = (values > 0) & (values <= half)
    if exact and low.any() and _are_numbers(values, low, half, white):
        return (values > 0).astype(np.uint8) * 255
    if 0 < values.max() <= half:
        # a black picture that JPEG made uneven, or lifted as a whole
        is_black = values.max() <= 16 and ((values > 0).mean() <= UNDECIDED_SHARE or values.min() == values.max())
        return values.astype(np.uint8) if is_black else None
    return (values.astype(np.int64) >> (8 if wide else 0)).clip(0, 255).astype(np.uint8)


def _are_numbers(values: np.ndarray, low: np.ndarray, half: int, white: int) -> bool:
    levels, top = np.unique(values[low]), values.max()
    if len(levels) == 1 and top <= half:
        return True
    if _flat_share(values, low) <= 0.5:
        return False
    has_black = (values == 0).mean() > 0.05  # the black of a coarse JPEG may decode to 1 all over
    few = len(levels) <= 5 and low.mean() > UNDECIDED_SHARE
    return bool(top <= half or (has_black and (levels[-1] == len(levels) or few or top < white)))


def _flat_share(values: np.ndarray, where: np.ndarray) -> float:
    """The share of the pixels `where` that are in a square of four equal ones: near 1 in areas of numbers, below 0.15
    in what JPEG leaves around edges."""
    is_equal = minimum_filter(values, 2) == maximum_filter(values, 2)  # the pixel, and those above and left of it
    return float(maximum_filter(is_equal, 2, origin=-1)[where].mean())


def is_undecided(greys: np.ndarray) -> bool:
    """Whether greys are no black and white, but too many in the middle."""
    return float(((greys >= 64) & (greys <= 191)).mean()) > UNDECIDED_SHARE
