"""The files of a data set with depth, without lesion masks: found, paired, and their values turned into mm.

Shapes: H, W = a frame's own height and width in pixels. Depth is the distance along the optical axis, near is small.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from lesionkit.datasets.reading import InvalidData, UnknownDataset, check_size, decode, read_image
from lesionkit.datasets.registry import DEPTH_NAMES, REGISTRY, DepthFiles, check_folder, folder_of
from lesionkit.datasets.samples import files_below, pair


@dataclass(frozen=True)
class DepthSample:
    """One frame with its depth; `name` is SEQUENCE/FRAME, or FRAME where there is one sequence."""

    dataset: str
    name: str
    image: Path
    depth: Path


def open_depth(name: str, root: Path | None = None) -> tuple[DepthSample, ...]:
    """Find and pair the frames of one of DEPTH_NAMES in `folder_of(name, root)`, in the order of sequence and frame; no
    image is read. A frame's depth lies beside it, as the authors have it, or in depth/ beside images/; folders of
    sequences may nest.

    Raises UnknownDataset; MissingData: no such folder; InvalidData: no frame in it, or frames and depth do not pair.
    """
    if name not in DEPTH_NAMES:
        raise UnknownDataset(f"{name!r} is no data set with depth: choose one of {', '.join(DEPTH_NAMES)}")
    samples, problems = find_depth(name, folder_of(name, root))
    if problems:
        raise InvalidData(problems[0])
    return tuple(samples)


def find_depth(name: str, folder: Path) -> tuple[list[DepthSample], list[str]]:
    """The frames that have depth, and one sentence per problem; MissingData without the folder."""
    check_folder(name, folder)
    patterns, sides = REGISTRY[name].depth, {"image": [], "depth": []}
    for path in files_below(folder):
        for side, files in sides.items():
            if found := re.fullmatch(rf"((?:.+?/)??){getattr(patterns, side)}", path.relative_to(folder).as_posix()):
                frame = f"{int(found[2]):04d}" if found[2].isdecimal() else found[2]  # 7 and 0007 are one frame
                files.append((found[1] + frame, path))
    left, right = ("frame(s)", "depth", sides["image"]), ("depth file(s)", "a frame", sides["depth"])
    pairs, problems = pair(folder, left, right, "get them again")
    if not sides["image"]:
        problems.append(f"{folder} holds no frame of {name}: unpack the archives there, names and folders unchanged")
    return [DepthSample(name, *found) for found in pairs], problems


def read_depth_sample(sample: DepthSample) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read one frame: image, depth and valid.

    image: uint8 H×W×3 RGB, as `read_image` gives it.
    depth: float32 H×W, in mm, or in [0, 1] where the set's unit is "relative"; 0 where it is not known.
    valid: bool H×W, where depth is known. Whether a pixel is bright enough to be judged is not asked here.

    Raises MissingData: no such file; InvalidData: damaged, in another encoding, or sizes that differ.
    """
    image = read_image(sample.image)
    files = REGISTRY[sample.dataset].depth
    values = decode(sample.depth, cv2.IMREAD_UNCHANGED)
    if values.ndim == 3 and (values[..., :3] == values[..., :1]).all():
        values = values[..., 0]
    if fault := _fault(values, files):
        meant = f"one {files.bits}-bit integer channel where {files.full_value} means {files.full_depth:g} {files.unit}"
        advice = f"depth of {sample.dataset} is {meant}: use the authors' original file"
        raise InvalidData(f"{sample.depth} holds {fault}, but {advice}")
    valid = ~np.isin(values, files.unknown)
    depth = np.where(valid, values * np.float64(files.full_depth / files.full_value), 0).astype(np.float32)
    check_size(sample.depth, depth.shape[::-1], image.shape[1::-1], "depth", "frame")
    return image, depth, valid


def _fault(values: np.ndarray, files: DepthFiles) -> str:
    """What the decoded file holds instead of depth as the authors store it; "" if nothing speaks against it."""
    if values.ndim == 3:
        return "channels that differ (a picture of depth in colours?)"
    if values.dtype != f"uint{files.bits}":
        return f"{values.dtype} values"
    if values.min() == values.max():
        return f"the value {values.min()} everywhere"
    if files.bits == 16 and values.max() <= 255:
        return f"only values up to {values.max()} (an 8-bit map in a 16-bit file?)"
    return ""
