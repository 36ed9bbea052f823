"""Data sets of colonoscopy frames with depth, without lesion masks: what is known of them, and how a file becomes mm.

Shapes: H, W = a frame's own height and width in pixels. Nothing here needs a network; `lesionkit.depth_fetching`
downloads and verifies. Depth is the distance along the optical axis, near is small.

Where the facts come from
- SimCol3D: the README in the authors' archive (scenes and Frames_ folders of 601 or 1201 frames, [0, 1] is [0, 20] cm,
  CC BY-NC-SA 4.0) and github.com/anitarau/simcol: `evaluation/eval_synthetic_depth.py` (value / 255 / 256 × 20 cm,
  475×475, every pixel counts) and `data_helpers/visualize_3D_data.py` (depth multiplies K⁻¹p: it is along the axis).
  Not confirmed: whether the largest value, 65280, also stands for all that is farther than 200 mm; it is kept, as the
  authors keep it. The value 0 is taken as unknown here, because a depth is positive.
- C3VD: durrlab.github.io/C3VD (depth along the camera's z axis, clamped to 0–100 mm, 16 bits, linear; CC BY-NC-SA 4.0;
  fisheye lens, calibrated by the model of Scaramuzza) and github.com/DurrLab/C3VD, `python/exampleDataLoader.py`
  (1350×1080, 65535 is 100 mm, 0 and 65535 are unknown). Other people's loaders find the colour frames of some sequences
  without leading zeros (7_color.png beside 0007_depth.tiff), so frames are paired by number.
- UTS: github.com/zsustc/synthetic_colonoscopy_datasets (320×240, focal length 155 pixels). That the sample's depth is 8
  bits, normalised per frame and 0 nearest was seen in its files; that it is along the axis is not confirmed.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from lesionkit.datasets import reading
from lesionkit.datasets import samples as datasets
from lesionkit.datasets.reading import InvalidData, MissingData, UnknownDataset

# --- the registry -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Encoding:
    """How the stored values of one channel mean depth."""

    bits: int
    full_value: int  # the stored value that means `full_depth`; the relation is linear through 0
    full_depth: float
    unit: str  # "mm", or "relative": only metrics that are free of scale and shift apply
    unknown: tuple[int, ...]  # stored values that mean: no depth here

    def __str__(self) -> str:
        return f"one {self.bits}-bit integer channel where {self.full_value} means {self.full_depth:g} {self.unit}"


@dataclass(frozen=True)
class DepthEntry(datasets.DatasetInfo):
    """One with depth."""

    size_wh: tuple[int, int]
    image: str  # pattern of the file name, perhaps with its folder; its group is the frame
    depth: str
    encoding: Encoding


_SIMCOL3D = DepthEntry(
    title="SimCol3D",
    images=37_833,  # 15 + 15 sequences of 1201 frames and 3 of 601
    terms="CC BY-NC-SA 4.0",
    homepage="https://rdr.ucl.ac.uk/articles/dataset/Simcol3D_-_3D_Reconstruction_during_Colonoscopy_Challenge_Dataset/24077763",
    obtain="the zip archives SyntheticColon_I, _II and _III",
    citation="Rau et al., SimCol3D - 3D reconstruction during colonoscopy challenge, Medical Image Analysis 96, 2024",
    size_wh=(475, 475),
    image=r"(?:images/)?FrameBuffer_(\d+)\.png",
    depth=r"(?:depth/)?Depth_(\d+)\.png",
    encoding=Encoding(16, 255 * 256, 200.0, "mm", unknown=(0,)),
)

REGISTRY: dict[str, DepthEntry] = {
    "simcol3d": _SIMCOL3D,
    "c3vd": DepthEntry(
        title="C3VD",
        images=10_015,
        terms="CC BY-NC-SA 4.0",
        homepage="https://durrlab.github.io/C3VD/",
        obtain="a zip archive per video sequence (the 22 registered ones have depth)",
        citation="Bobrow et al., Colonoscopy 3D video dataset with paired depth from 2D-3D registration, "
        "Medical Image Analysis 90, 2023",
        size_wh=(1350, 1080),
        image=r"(?:images/)?(\d+)_color\.png",
        depth=r"(?:depth/)?(\d+)_depth\.tiff?",
        encoding=Encoding(16, 65535, 100.0, "mm", unknown=(0, 65535)),
    ),
    "simcol3d-sample10": replace(_SIMCOL3D, title="SimCol3D, ten frames", images=10, obtain="the whole set only"),
    "uts-simcolon-subset40": DepthEntry(
        title="UTS simulated colon, forty frames",
        images=40,
        terms="none stated; citation asked",
        homepage="https://github.com/zsustc/synthetic_colonoscopy_datasets",
        obtain="the whole set only",
        citation="Zhang et al., 3D reconstruction of deformable colon structures based on preoperative model and deep "
        "neural network, ICRA 2021",
        size_wh=(320, 240),
        image=r"images/(\w+)\.png",
        depth=r"depth/(\w+)\.png",
        encoding=Encoding(8, 255, 1.0, "relative", unknown=()),
    ),
}
NAMES = tuple(REGISTRY)


def entry_of(name: str) -> DepthEntry:
    """The entry of a data set with depth. Raises UnknownDataset, which names those there are."""
    if name not in REGISTRY:
        raise UnknownDataset(f"{name!r} is no data set with depth: choose one of {', '.join(NAMES)}")
    return REGISTRY[name]


def folder_of(name: str, root: Path | None = None) -> Path:
    """The folder that holds, or would hold, a data set: root/name; `root` None means `datasets.data_root()`."""
    entry_of(name)
    return datasets.place_of(name, root)


def status(root: Path | None = None) -> list[dict]:
    """One row per data set with depth: name, title, images, present, where, terms."""
    places = {name: folder_of(name, root) for name in REGISTRY}
    return [REGISTRY[name].row(name, where, where.is_dir()) for name, where in places.items()]


# --- opening ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DepthSample:
    """One frame with its depth; `name` is SEQUENCE/FRAME, or FRAME where there is one sequence."""

    dataset: str
    name: str
    image: Path
    depth: Path


def open_depth(name: str, root: Path | None = None) -> tuple[DepthSample, ...]:
    """Find and pair the frames of a data set, in the order of sequence and frame; no image is read.

    A frame's depth lies beside it, as the authors have it, or in depth/ beside images/. Folders of sequences may nest.

    Args:
        name: one of NAMES.
        root: the folder of all data sets; None means `datasets.data_root()`.

    Raises:
        UnknownDataset; MissingData: no such folder; InvalidData: no frame in it, or frames and depth do not pair.
    """
    samples, problems = pair_files(name, folder_of(name, root))
    if problems:
        raise InvalidData(problems[0])
    return samples


def pair_files(name: str, folder: Path) -> tuple[tuple[DepthSample, ...], list[str]]:
    """The frames that have depth, and one sentence per problem; MissingData without the folder."""
    if not folder.is_dir():
        raise MissingData(f"{folder} does not exist: `lesionkit fetch {name}` says where to get it, or set "
                          f"LESIONKIT_DATA to the folder that holds {name}/")  # fmt: skip
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    images, problems = _by_frame(paths, entry_of(name).image, folder)
    depths, more = _by_frame(paths, entry_of(name).depth, folder)
    problems += more
    checks = (("frame(s) without depth", images.keys() - depths.keys()),
              ("depth file(s) without a frame", depths.keys() - images.keys()))  # fmt: skip
    for what, frames in checks:
        if frames:
            problems.append(f"{folder} has {len(frames)} {what} ({datasets.listing(sorted(frames))}): fetch them again")
    if not images:
        problems.append(f"{folder} holds no frame of {name}: unpack the archives there, names and folders unchanged")
    both = sorted(images.keys() & depths.keys())
    return tuple(DepthSample(name, frame, images[frame], depths[frame]) for frame in both), problems


def frame_name(pattern: str, path: str) -> str | None:
    """SEQUENCE/FRAME of a relative path (with /) that ends as an entry's pattern says; None if it does not."""
    found = re.fullmatch(rf"((?:.+?/)??){pattern}", path)
    if found is None:
        return None
    frame = f"{int(found[2]):04d}" if found[2].isdecimal() else found[2]  # 7 and 0007 are one frame
    return found[1] + frame


def _by_frame(paths: dict[str, Path], pattern: str, folder: Path) -> tuple[dict[str, Path], list[str]]:
    found: dict[str, Path] = {}
    twice = []
    for relative, path in paths.items():
        frame = frame_name(pattern, relative)
        if frame in found:
            twice.append(f"{found[frame].name} and {path.name}")
        elif frame is not None:
            found[frame] = path
    if twice:
        return found, [f"{folder} has {len(twice)} frame(s) twice ({datasets.listing(twice)}): keep one file of each"]
    return found, []


# --- reading ----------------------------------------------------------------------------------------------


def read_depth_sample(sample: DepthSample) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read one frame.

    Returns:
        image: uint8 H×W×3 RGB; 16-bit frames keep their upper 8 bits, alpha is dropped.
        depth: float32 H×W, in mm, or in [0, 1] where the encoding's unit is "relative"; 0 where it is not known.
        valid: bool H×W, where depth is known. Whether a pixel is bright enough to be judged is not asked here.

    Raises:
        MissingData: no such file. InvalidData: damaged, in another encoding, or depth of another size than the frame.
    """
    image = reading.read_image(sample.image)
    depth, valid = read_depth(sample)
    check_size(sample, depth.shape[::-1], image.shape[1::-1])
    return image, depth, valid


def read_depth(sample: DepthSample) -> tuple[np.ndarray, np.ndarray]:
    """The depth of a frame and where it is known, as `read_depth_sample` describes, without reading the image."""
    encoding = entry_of(sample.dataset).encoding
    pixels = reading.decode(sample.depth, cv2.IMREAD_UNCHANGED)
    if fault := _fault(pixels, encoding):
        raise InvalidData(f"{sample.depth} holds {fault}, but depth of {sample.dataset} is {encoding}: "
                          "use the authors' original file")  # fmt: skip
    values = _one_channel(pixels)
    valid = ~np.isin(values, encoding.unknown)
    scale = encoding.full_depth / encoding.full_value
    return np.where(valid, values * np.float64(scale), 0).astype(np.float32), valid


def check_size(sample: DepthSample, depth_wh: tuple[int, int], image_wh: tuple[int, int]) -> None:
    """Raise InvalidData unless depth and frame are of one size (width and height in pixels)."""
    if tuple(depth_wh) != tuple(image_wh):
        raise InvalidData(f"depth {sample.depth} is {depth_wh[0]}×{depth_wh[1]} but its frame is "
                          f"{image_wh[0]}×{image_wh[1]}: replace it by depth of the frame's own size")  # fmt: skip


def _one_channel(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.ndim == 2 else pixels[..., 0]


def _fault(pixels: np.ndarray, encoding: Encoding) -> str:
    """What the decoded file holds instead of depth in this encoding; "" if nothing speaks against it."""
    if pixels.dtype.kind != "u":
        return f"{pixels.dtype} numbers"
    if pixels.ndim == 3 and (pixels[..., :3] != pixels[..., :1]).any():
        return "channels that differ (a picture of depth in colours?)"
    if pixels.dtype.itemsize * 8 != encoding.bits:
        return f"{pixels.dtype.itemsize * 8}-bit values"
    values = _one_channel(pixels)
    if values.min() == values.max():
        return f"the value {values.min()} everywhere"
    if encoding.bits == 16 and values.max() <= 255:
        return f"only values up to {values.max()} (an 8-bit map in a 16-bit file?)"
    return ""
