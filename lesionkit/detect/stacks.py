"""Image files of several frames: TIFF stacks, animated GIF, WebP, PNG and AVIF."""

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from lesionkit.datasets import reading

SUFFIXES = (".tif", ".tiff", ".gif", ".webp", ".png", ".apng", ".avif")
FORMATS = ("TIFF", "GIF", "WEBP", "PNG", "AVIF")  # not a phone's JPEG, whose second picture is a preview
PART_OF_ANOTHER = 1 | 4  # TIFF's NewSubfileType of a thumbnail and of a mask


def has_frames(path: Path) -> bool:
    """Whether a file's header tells of more than one frame; False for what is no image."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as picture:
            return picture.format in FORMATS and len(_numbers(picture)) > 1
    except Exception:  # damaged, or unknown to Pillow: the reader will say so, or knows it
        return False


def frames(path: Path, skip: Callable[[int], bool]) -> Iterator[tuple[int, np.ndarray | None, str]]:
    """Number, pixels and note (none) of every frame that is not to be skipped, from 0, as `read_image` gives them:
    uint8 H×W×3 RGB, None if it cannot be decoded; 16 bits are cut alike in all. Raises what Pillow raises."""
    data = reading.whole_bytes(path)
    with Image.open(io.BytesIO(data)) as picture:
        numbers, brightest = _numbers(picture), 0
        if picture.format == "TIFF":  # pages are not kept: thousands would not fit into memory
            brightest = max(int(page.max()) for page in (_page(data, number) for number in numbers) if page is not None)
        for number in (number for number in numbers if not skip(number)):
            if picture.format == "TIFF":  # of which Pillow reads 8 bits a colour
                page = _page(data, number)
                bgr = page if page is None else reading.eight_bits(page, brightest)
                yield number, bgr if bgr is None else cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), ""
            else:
                picture.seek(number)
                rgba = np.asarray(picture.convert("RGBA"))
                yield number, rgba[..., :3] * (rgba[..., 3:] > 127), ""


def _numbers(picture: Image.Image) -> list[int]:
    numbers = []
    for number in range(getattr(picture, "n_frames", 1)):
        if picture.format == "TIFF":
            picture.seek(number)
        if picture.format != "TIFF" or not picture.tag_v2.get(254, 0) & PART_OF_ANOTHER:
            numbers.append(number)
    return numbers


def _page(data: bytes, number: int) -> np.ndarray | None:
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    with reading.quiet(), suppress(cv2.error):
        _, found = cv2.imdecodemulti(np.frombuffer(data, np.uint8), flags, range=(number, number + 1))
        return found[0] if found else None
