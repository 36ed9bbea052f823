"""One file of a data set as an array, or one sentence on what is wrong with it.

Shapes: H, W = an image's own height and width in pixels. Nothing here knows a data set.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from lesionkit.datasets import masks

JPEG, JPEG_END = b"\xff\xd8", b"\xff\xd9"
PNG = b"\x89PNG\r\n\x1a\n"
PNG_END = b"\0\0\0\0IEND\xaeB`\x82"  # the last chunk, the same in every file
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
Size = tuple[int, int]


class DatasetError(RuntimeError):
    """A data set is not as it should be; every message is one sentence: what, where, what to do."""


class UnknownDataset(DatasetError):
    """The name is not one the kit knows."""


class MissingData(DatasetError):
    """The files are not where they are expected."""


class InvalidData(DatasetError):
    """The files are there, but they are not what they should be."""


def listing(names: Sequence[str], limit: int = 3) -> str:
    """The first names, and how many more there are, for messages."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def read_image(path: Path) -> np.ndarray:
    """Read an image as uint8 H×W×3 RGB, upright (by EXIF orientation), 16 bits cut to 8 by `eight_bits`; what is
    transparent in a PNG or WebP becomes black, as the surround of a frame is.

    Raises MissingData: no such file; InvalidData: empty, cut off, or not an image.
    """
    data = whole_bytes(Path(path))
    bgr = decode(Path(path), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH, data)
    if bgr.dtype not in (np.uint8, np.uint16):
        bgr = decode(Path(path), cv2.IMREAD_COLOR, data)
    return without_transparent(cv2.cvtColor(eight_bits(bgr), cv2.COLOR_BGR2RGB), data)


def eight_bits(pixels: np.ndarray, brightest: int | None = None) -> np.ndarray:
    """uint16 as uint8, cut by the bits that are in use: cameras store 8, 10, 12 or 14 of them in 16, and few files say
    so. `brightest` is the largest value of all pictures that belong together; None: of this one."""
    if pixels.dtype != np.uint16:
        return pixels
    brightest = int(pixels.max()) if brightest is None else brightest
    bits = next(bits for bits in (8, 10, 12, 14, 16) if brightest < 1.02 * (1 << bits))  # JPEG 2000 overshoots
    return (np.minimum(pixels, (1 << bits) - 1) >> (bits - 8)).astype(np.uint8)


def read_mask_values(path: Path) -> np.ndarray:
    """Read a mask as uint8 H×W, above 127 where the lesion is; what its values mean, `masks.greys` and `masks.shown`
    say. Raises as `read_image`; InvalidData also for a mask without white that holds no numbers of classes either."""
    data = whole_bytes(Path(path))
    found = masks.layers(data)
    values, alpha = found or (decode(path, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH, data).max(axis=2), None)
    greys = masks.shown(values, alpha, exact=not data.startswith(JPEG))
    if greys is None:
        what = f"holds values up to {values.max()}, neither black and white nor numbers of classes"
        raise InvalidData(f"{path} {what}: save it as a PNG of 0 and 255")
    return greys


def read_mask(path: Path) -> np.ndarray:
    """Read a mask as bool H×W, True where `read_mask_values` exceeds 127. Raises as that does."""
    return read_mask_values(path) > 127


def without_transparent(rgb: np.ndarray, data: bytes) -> np.ndarray:
    """`rgb` as decoded from `data`, black where the file says transparent; only PNG and WebP say so reliably."""
    if not (data.startswith(PNG) and data[25:26] in (b"\4", b"\6")) and data[8:12] != b"WEBP":  # PNG's colour type
        return rgb
    pixels = quiet_imdecode(data, cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.shape != (*rgb.shape[:2], 4):
        return rgb
    return rgb * (eight_bits(pixels[..., 3:]) > 127)


def header_size(data: bytes) -> Size:
    """Width and height, upright, that an image file's header declares. Raises what Pillow raises."""
    with Image.open(io.BytesIO(data)) as picture:
        return picture.size[::-1] if orientation(picture) >= 5 else picture.size  # a quarter turn


def orientation(picture: Image.Image) -> int:
    """EXIF's number for how a picture is stored: 1 upright, 2 to 4 mirrored or by a half turn, 5 to 8 by a quarter."""
    try:
        exif = Image.Exif()  # not `getexif`: it also reads XMP, which OpenCV does not
        exif.load(picture.info.get("exif", b""))
        return int(exif.get(0x0112) or getattr(picture, "tag_v2", {}).get(0x0112, 1))
    except Exception:  # Pillow raises SyntaxError, struct.error … for a damaged one, which OpenCV passes over
        return 1


def check_size(path: Path, have_wh: Size, want_wh: Size, what: str = "mask", of: str = "image") -> None:
    """Raise InvalidData unless a mask (or depth) has its image's width and height in pixels."""
    if have_wh != want_wh:
        have, want = ("×".join(map(str, size)) for size in (have_wh, want_wh))
        advice = f"replace it by one of the {of}'s own size"
        if have_wh == want_wh[::-1]:
            advice = f"turn it by a quarter, as EXIF turns the {of} upright"
        raise InvalidData(f"{what} {path} is {have} but its {of} is {want}: {advice}")


def whole_bytes(path: Path) -> bytes:
    """The bytes of a file. Raises MissingData: no such file; InvalidData: unreadable, empty, a cut off JPEG or PNG."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise MissingData(f"{path} does not exist: check the path") from None
    except OSError as error:
        raise InvalidData(f"{path} cannot be read ({error.strerror}): check the file") from None
    return whole(path, data)


def whole(name: Path | str, data: bytes) -> bytes:
    """The bytes of a file of this name, a JPEG's end mark included, without which OpenCV 5 refuses it. Raises
    InvalidData: empty, a cut off JPEG or PNG."""
    if not data:
        raise InvalidData(f"{name} is empty: copy or download it again")
    if is_cut_off(data):
        raise InvalidData(f"{name} is cut off after {len(data)} bytes: copy or download it again")
    return data if data.endswith(JPEG_END) or not data.startswith(JPEG) else data + JPEG_END


def decode(path: Path | str, flags: int, data: bytes | None = None) -> np.ndarray:
    """A file, or the `data` read from it, decoded by OpenCV with its `flags` (BGR). Raises as `whole_bytes`;
    InvalidData if it is no image."""
    pixels = quiet_imdecode(data or whole_bytes(path), flags)
    if pixels is None:
        raise InvalidData(f"{path} is not an image that OpenCV can decode, or it is damaged: replace it")
    return pixels


def quiet_imdecode(data: bytes, flags: int, page: int | None = None) -> np.ndarray | None:
    """Bytes, or one page of them, decoded by OpenCV with its `flags` (BGR), None if they are no whole image; nothing is
    printed."""
    log, buffer = cv2.utils.logging, np.frombuffer(data, np.uint8)
    level = log.setLogLevel(log.LOG_LEVEL_SILENT)  # our own sentence says what OpenCV would print
    try:
        if page is None:
            return cv2.imdecode(buffer, flags)
        _, pages = cv2.imdecodemulti(buffer, flags, range=(page, page + 1))
        return next(iter(pages), None)
    except cv2.error:
        return None
    finally:
        log.setLogLevel(level)


def is_cut_off(data: bytes) -> bool:
    """Whether a JPEG or PNG ends before its last pixel; OpenCV 4 fills the rest of a JPEG with grey, silently. A JPEG
    without an end mark, or with bytes behind it, as many real files have, is whole if its pixels do not depend on what
    follows: here bits of three kinds, that go on after each of the eight restart marks."""
    if data.startswith(PNG):
        return PNG_END not in data
    if data.endswith(JPEG_END) or not data.startswith(JPEG):
        return False
    seen = set()
    for bits in (b"\x00", b"\x5a", b"\xa5"):
        rest = b"".join(64 * bits + bytes((0xFF, mark)) for mark in range(0xD0, 0xD8))
        try:
            seen.add(JpegImageFile(io.BytesIO(data.rstrip(b"\xff") + rest + JPEG_END)).tobytes())
        except (SyntaxError, OSError):
            return True
    return len(seen) > 1
