"""What `detect` writes: the table of outputs, one entry each, and the entry of detections.json.

Another output is one more line of OUTPUTS: what its files end in, and how a detection becomes the file's bytes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lesionkit import files

RESULTS = "detections.json"
Found = Any  # a `detector.Detection`, or what has its mask, overlay(), lesions and image


@dataclass(frozen=True)
class Output:
    """One file per detection: STEM + `ending`, with the bytes that `encode` makes of the detection."""

    ending: str
    encode: Callable[[Found], bytes]


def mask_png(found: Found) -> bytes:
    """One channel, {0, 255}, of the input's size."""
    return _encoded(".png", np.asarray(found.mask).astype(np.uint8) * 255, cv2.IMWRITE_PNG_COMPRESSION, 1)


def overlay_jpeg(found: Found) -> bytes:
    """The detection image, of the input's size."""
    return _encoded(".jpg", cv2.cvtColor(found.overlay(), cv2.COLOR_RGB2BGR), cv2.IMWRITE_JPEG_QUALITY, 90)


def _encoded(ending: str, pixels: np.ndarray, option: int, value: int) -> bytes:
    good, content = cv2.imencode(ending, pixels, [option, value])
    if not good:
        raise OSError(f"OpenCV cannot write {ending} of {pixels.shape}")
    return content.tobytes()


OUTPUTS = {"mask": Output("_mask.png", mask_png), "overlay": Output("_overlay.jpg", overlay_jpeg)}
ENDINGS = tuple(output.ending for output in OUTPUTS.values())
PAIR = ("_mask.png", "_overlay.jpg")  # what every version has written: a file that has the other beside it is ours


def write(out: Path, stem: str, found: Found, kinds: Sequence[str] = tuple(OUTPUTS)) -> None:
    """The files of one detection, all or none. Raises OSError when the folder cannot be written to."""
    contents = {out / f"{stem}{OUTPUTS[kind].ending}": OUTPUTS[kind].encode(found) for kind in kinds}
    try:
        for path, content in contents.items():
            files.write_bytes(path, content)
    except OSError:
        for path in contents:
            path.unlink(missing_ok=True)
        raise


def entry(name: str, found: Found) -> dict[str, Any]:
    """The entry of detections.json for the input called `name`; pixels count in the input, upright, from the top left
    corner."""
    height, width = found.image.shape[:2]
    lesions = [
        {
            "bbox_px": [int(edge) for edge in lesion.bbox_px],
            "area_px": int(lesion.area_px),
            "area_fraction": files.plain(float(lesion.area_fraction)),
            "score": files.plain(float(lesion.score)),
        }
        for lesion in found.lesions
    ]
    return {"input": name, "width": width, "height": height, "lesions": lesions, "seconds": 0.0}
