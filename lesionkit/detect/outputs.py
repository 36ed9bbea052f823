"""What `detect` writes, by the kinds of `--save`: pictures of each detection, its entry in detections.json, and the
tables that are made of all entries at the end."""

import csv
import io
import json
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool

from lesionkit import files
from lesionkit.detect.reading import Entry
from lesionkit.fusion import regions

RESULTS = "detections.json"
SCALES = 5  # of the attention
Found = Any  # a `detector.Detection`, or what has its mask, maps, overlay(), lesions and image
Encode = Callable[[Found], bytes]


def mask_png(found: Found) -> bytes:
    """One channel, {0, 255}, of the input's size."""
    return _encoded(".png", np.asarray(found.mask).astype(np.uint8) * 255, cv2.IMWRITE_PNG_COMPRESSION, 1)


def overlay_jpeg(found: Found) -> bytes:
    """The detection image, of the input's size."""
    return _encoded(".jpg", cv2.cvtColor(found.overlay(), cv2.COLOR_RGB2BGR), cv2.IMWRITE_JPEG_QUALITY, 90)


def map_png(found: Found, name: str) -> bytes:
    """One of `map_of` as 16 bits; its values are the pixels × `scale_of`."""
    pixels = (map_of(found, name) / scale_of(found, name)).round().clip(0, 65535).astype(np.uint16)
    return _encoded(".png", pixels, cv2.IMWRITE_PNG_COMPRESSION, 1)


def map_of(found: Found, name: str) -> np.ndarray:
    """probability, depth, or attention_I of scale I, fine to coarse, which has the networks' resolution."""
    kind, _, scale = name.partition("_")
    return np.asarray(getattr(found, kind)[int(scale) - 1] if scale else getattr(found, kind))


def scale_of(found: Found, name: str) -> float:
    return 1 / 65535 if name == "probability" else max(float(map_of(found, name).max()), 1e-6) / 65535


def _encoded(ending: str, pixels: np.ndarray, option: int, value: int) -> bytes:
    good, content = cv2.imencode(ending, pixels, [option, value])
    if not good:
        raise OSError(f"OpenCV cannot write {ending} of {pixels.shape}")
    return content.tobytes()


# --- the entry


def facts(found: Found, kinds: Collection[str] = ()) -> dict[str, Any]:
    """What its entry says of a detection; pixels count in the input, upright, from the top left corner. kinds: what is
    written of it, which may need a word here, too."""
    height, width = found.image.shape[:2]
    lesions = [files.plain(vars(lesion)) for lesion in found.lesions]
    if "coco" in kinds:
        for lesion, (box, inside) in zip(lesions, regions(found.mask), strict=True):
            alone = np.zeros_like(found.mask)
            alone[box] = inside
            lesion["counts"] = run_lengths(alone)
    maps = {name: {"scale": scale_of(found, name)} for kind in kinds for name in MAPS.get(kind, ())}
    told = {"width": width, "height": height, "view_px": list(found.view_px), "lesions": lesions}
    return told | ({"maps": maps} if maps else {})


def run_lengths(mask: Bool[np.ndarray, "h w"]) -> list[int]:
    """COCO's: how many pixels are outside, inside, outside, …, down one column after the other."""
    column_by_column = np.concatenate([[False], mask.ravel(order="F")])
    changes = np.flatnonzero(np.diff(column_by_column))
    return np.diff(np.concatenate([[0], changes, [mask.size]])).tolist()


# --- the tables at the end


def lesions_csv(entries: list[Entry]) -> bytes:
    """A row for each lesion."""
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["input", "frame", "time_s", "track", "x", "y", "w", "h", "area_px", "area_fraction", "score"])
    for entry in entries:
        name, _, frame = entry["input"].partition("#frame=")
        for lesion in entry.get("lesions", ()):
            rest = (lesion["area_px"], f"{lesion['area_fraction']:.6f}", f"{lesion['score']:.4f}")
            table.writerow([name, frame, entry.get("time_s", ""), lesion.get("track", ""), *lesion["bbox_px"], *rest])
    return text.getvalue().encode(errors="backslashreplace")


def coco_json(entries: list[Entry]) -> bytes:
    """Images, one category, and an annotation for each lesion: box, mask as run lengths, score."""
    read = [entry for entry in entries if "error" not in entry]
    images, annotations = [], []
    for number, entry in enumerate(read, start=1):
        height, width = entry["height"], entry["width"]
        images.append({"id": number, "file_name": entry["input"], "height": height, "width": width})
        for lesion in entry["lesions"]:
            one = {"id": len(annotations) + 1, "image_id": number, "category_id": 1, "bbox": lesion["bbox_px"]}
            one |= {"area": lesion["area_px"], "iscrowd": 0, "score": lesion["score"]}
            if "counts" in lesion:
                one["segmentation"] = {"size": [height, width], "counts": lesion["counts"]}
            annotations.append(one)
    content = {"images": images, "categories": [{"id": 1, "name": "lesion"}], "annotations": annotations}
    return json.dumps(content, ensure_ascii=False).encode(errors="backslashreplace")


# Another kind is one more line: maps, or what a picture's name ends in and how a detection becomes its bytes, or the
# name of a table and how the entries become its bytes.
MAPS = {
    "probability": ("probability",),
    "depth": ("depth",),
    "attention": tuple(f"attention_{scale}" for scale in range(1, SCALES + 1)),
}
PICTURES: dict[str, dict[str, Encode]] = {
    "mask": {"_mask.png": mask_png},
    "overlay": {"_overlay.jpg": overlay_jpeg},
    **{kind: {f"_{name}.png": partial(map_png, name=name) for name in names} for kind, names in MAPS.items()},
}
TABLES = {"csv": ("lesions.csv", lesions_csv), "coco": ("coco.json", coco_json)}
FILM = "_detections.mp4"  # of a video, under the kind "video"
KINDS, USUAL = (*PICTURES, *TABLES, "video"), ("mask", "overlay")
ENDINGS = {ending for pictures in PICTURES.values() for ending in pictures}


def pictures_of(kinds: Iterable[str]) -> dict[str, Encode]:
    """By what their names end in, the pictures of these kinds."""
    return {ending: encode for kind in kinds for ending, encode in PICTURES.get(kind, {}).items()}
