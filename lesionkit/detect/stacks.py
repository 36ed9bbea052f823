"""Image files of several frames: TIFF stacks, animated GIF, WebP, PNG and AVIF."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from lesionkit.datasets import reading


def frames(path: Path, wanted: Callable[[int], bool]) -> Iterator[tuple[int, np.ndarray | None, str]]:
    """Number, pixels and note (none) of every frame that is wanted, from 0, as `read_image` gives them: uint8 H×W×3
    RGB, None if it cannot be decoded; 16 bits are cut alike in all. Raises what Pillow raises."""
    data = reading.whole_bytes(path)
    with Image.open(io.BytesIO(data)) as picture:
        numbers, is_tiff = range(picture.n_frames), picture.format == "TIFF"
        if is_tiff:  # pages are not kept: thousands would not fit into memory
            pages = (_page(data, number) for number in numbers)
            brightest = max((int(page.max()) for page in pages if page is not None), default=0)
        for number in filter(wanted, numbers):
            if is_tiff:
                page = _page(data, number)
                yield number, None if page is None else reading.eight_bits(page, brightest), ""
            else:
                picture.seek(number)
                rgba = np.asarray(picture.convert("RGBA"))
                yield number, rgba[..., :3] * (rgba[..., 3:] > 127), ""


def _page(data: bytes, number: int) -> np.ndarray | None:
    """A page of a TIFF, of which Pillow reads 8 bits a colour; None if it cannot be decoded."""
    bgr = reading.quiet_imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH, page=number)
    return None if bgr is None else cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
