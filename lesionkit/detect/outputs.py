"""What `detect` writes: the table of outputs, one entry each, and the entry of detections.json."""

from typing import Any

import cv2
import numpy as np

from lesionkit import files

RESULTS = "detections.json"
Found = Any  # a `detector.Detection`, or what has its mask, overlay(), lesions and image


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


# Another output is one more line: what its files end in, and how a detection becomes a file's bytes.
OUTPUTS = {"mask": ("_mask.png", mask_png), "overlay": ("_overlay.jpg", overlay_jpeg)}
ENDINGS = tuple(ending for ending, _ in OUTPUTS.values())


def facts(found: Found) -> dict[str, Any]:
    """What its entry says of a detection; pixels count in the input, upright, from the top left corner."""
    height, width = found.image.shape[:2]
    lesions = [files.plain(vars(lesion)) for lesion in found.lesions]
    return {"width": width, "height": height, "view_px": list(found.view_px), "lesions": lesions}
