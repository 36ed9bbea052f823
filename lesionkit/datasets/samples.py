"""Real data sets with lesion masks: what is known of them, where they lie, how they are split and loaded.

Shapes: H, W = an image's own height and width in pixels; B = number of samples; S = side of the square
model input. Nothing here needs a network; `lesionkit.fetching` downloads and verifies. Tensors appear in
`load` only, which is why torch is imported there and not at the top.
"""

import difflib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import platformdirs

from lesionkit.datasets.reading import (
    SUFFIXES,
    InvalidData,
    MissingData,
    UnknownDataset,
    image_size,
    read_image,
    read_mask,
    wrong_size,
)
from lesionkit.datasets.reading import DatasetError as DatasetError  # what callers catch, whichever room raises it
from lesionkit.datasets.splits import PARTS, hash_parts, published_parts

FOLDER = "folder:"


# --- the registry -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of any public data set, with masks or with depth."""

    title: str
    images: int
    terms: str  # as the authors state them
    homepage: str
    obtain: str  # how the authors hand it out
    citation: str

    def row(self, name: str, where: Path, present: bool) -> dict:
        """The data set in a list of what there is."""
        return {"name": name, "title": self.title, "images": self.images, "present": present, "where": str(where),
                "terms": self.terms}  # fmt: skip


@dataclass(frozen=True)
class Entry(DatasetInfo):
    """One with lesion masks."""

    url: str | None  # the authors' archive; None: nothing that can be downloaded and unpacked unattended
    splits: tuple[str, ...]  # the first is the default
    size_wh: tuple[int, int] | None = None  # None: sizes vary


REGISTRY: dict[str, Entry] = {
    "kvasir-seg": Entry(
        title="Kvasir-SEG",
        images=1000,
        terms="academic and research use; commercial use needs permission",
        homepage="https://datasets.simula.no/kvasir-seg/",
        url="https://datasets.simula.no/downloads/kvasir-seg.zip",
        obtain="a zip archive",
        citation="Jha et al., Kvasir-SEG: A Segmented Polyp Dataset, MultiMedia Modeling 2020",
        splits=("pranet", "medico2020"),
    ),
    "cvc-clinicdb": Entry(
        title="CVC-ClinicDB",
        images=612,
        terms="research and education only; no commercial use",
        homepage="https://polyp.grand-challenge.org/CVCClinicDB/",
        url=None,
        obtain="a RAR archive",
        citation="Bernal et al., WM-DOVA maps for accurate polyp highlighting in colonoscopy, CMIG 43, 2015",
        splits=("pranet", "sequence"),
        size_wh=(384, 288),
    ),
    "etis-laribpolypdb": Entry(
        title="ETIS-LaribPolypDB",
        images=196,
        terms="research and education only; no commercial use",
        homepage="https://polyp.grand-challenge.org/ETISLarib/",
        url=None,
        obtain="a RAR archive",
        citation="Silva et al., Toward embedded detection of polyps in WCE images, IJCARS 9, 2014",
        splits=("hash",),
        size_wh=(1225, 966),
    ),
    "cvc-colondb": Entry(
        title="CVC-ColonDB",
        images=380,  # the set that papers pass on; the authors' page describes 300 of its frames
        terms="research use; citation asked",
        homepage="http://vi.cvc.uab.es/colon-qa/cvccolondb/",
        url=None,
        obtain="an archive on request",
        citation="Bernal et al., Towards automatic polyp detection, Pattern Recognition 45, 2012",
        splits=("hash",),
        size_wh=(574, 500),
    ),
}
NAMES = tuple(REGISTRY)


def check_name(name: str) -> str:
    """Return `name` if it is "scenes", a registry name or "folder:PATH"; else raise UnknownDataset."""
    allowed = ("scenes", *NAMES)
    if name in allowed or (name.startswith(FOLDER) and name != FOLDER):
        return name
    close = difflib.get_close_matches(name.lower(), allowed, n=1, cutoff=0.5)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    choice = f"{', '.join(allowed)} or folder:PATH"
    raise UnknownDataset(f"unknown data set {name!r}{hint}: choose one of {choice}")


def data_root() -> Path:
    """The folder of all data sets: LESIONKIT_DATA, else the user's cache folder; it need not exist."""
    given = os.environ.get("LESIONKIT_DATA")
    return Path(given).expanduser().absolute() if given else platformdirs.user_cache_path("lesionkit")


def folder_of(name: str, root: Path | None = None) -> Path:
    """The folder that holds, or would hold, images/ and masks/ of a data set.

    Args:
        name: a registry name (then the folder is root/name) or "folder:PATH" (then it is PATH).
        root: the folder of all data sets; None means `data_root()`.

    Raises:
        UnknownDataset: for other names, and for "scenes", which are rendered and have no files.
    """
    if check_name(name) == "scenes":
        raise UnknownDataset("scenes are rendered and have no files: name a real data set or folder:PATH")
    if name.startswith(FOLDER):
        return Path(name.removeprefix(FOLDER)).expanduser().absolute()
    return place_of(name, root)


def place_of(name: str, root: Path | None = None) -> Path:
    """root/name, whatever the data set; `root` None means `data_root()`."""
    return Path(root or data_root()).expanduser().absolute() / name


def status(root: Path | None = None) -> list[dict]:
    """One row per registry entry: name, title, images, present, where, terms, splits (the default first)."""
    rows = []
    for name, entry in REGISTRY.items():
        where = folder_of(name, root)
        present = all((where / part).is_dir() for part in ("images", "masks"))
        rows.append(entry.row(name, where, present) | {"splits": entry.splits})
    return rows


# --- splits -----------------------------------------------------------------------------------------------


def splits_of(name: str) -> tuple[str, ...]:
    """The names of a data set's splits, the default first; the user's own folder has one, "hash"."""
    return ("hash",) if check_name(name).startswith(FOLDER) else REGISTRY[name].splits


def split_stems(name: str, split: str | None = None, stems: Iterable[str] = ()) -> dict[str, tuple[str, ...]]:
    """Which stem belongs to which part.

    Published splits have a training and a test part; a tenth of the training part (whole video sequences,
    whole groups of near-duplicates) becomes the validation part, chosen by a stable hash. The split "hash"
    deals out `stems` 70/15/15 by the same hash. It knows nothing of videos: frames of one video may fall on
    both sides.

    Args:
        name: a registry name or "folder:PATH".
        split: one of `splits_of(name)`; None means the first.
        stems: the stems at hand, used by "hash" only.

    Returns:
        train, validation, test -> stems; a published split lists all its names, at hand or not.

    Raises:
        InvalidData: unknown split, or fewer than 3 stems for "hash".
    """
    allowed = splits_of(name)
    split = allowed[0] if split is None else split
    if split not in allowed:
        raise InvalidData(f"{name} has no split {split!r}: choose one of {', '.join(allowed)}")
    if split == "hash":
        return hash_parts(name, sorted(stems))
    return published_parts(name, split)


# --- opening ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """One image with its mask; `name` is their common stem."""

    name: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class Dataset:
    """The paired files of one data set, in the order of their stems; `root` holds images/ and masks/."""

    name: str
    root: Path
    samples: tuple[Sample, ...]

    def part(self, part: str, split: str | None = None) -> tuple[Sample, ...]:
        """The samples of "train", "validation" or "test"; see `split_stems` for how they are chosen.

        Raises:
            InvalidData: unknown part or split, or images of the split that are not there.
        """
        if part not in PARTS:
            raise InvalidData(f"{self.name} has no part {part!r}: choose one of {', '.join(PARTS)}")
        here = {sample.name: sample for sample in self.samples}
        stems = split_stems(self.name, split, here)[part]
        if absent := [stem for stem in stems if stem not in here]:
            raise InvalidData(
                f"{self.root} lacks {len(absent)} of the {len(stems)} {part} images ({listing(absent)}): "
                f"run `lesionkit verify {self.name}`, or use folder:{self.root} for a data set of your own"
            )
        return tuple(here[stem] for stem in stems)


def open_dataset(name: str, root: Path | None = None) -> Dataset:
    """Find and pair the files of a data set; no image is read.

    Args:
        name: a registry name (images/ and masks/ under root/name) or "folder:PATH" (the same under PATH).
        root: the folder of all data sets; None means `data_root()`.

    Raises:
        UnknownDataset, MissingData; InvalidData when images and masks do not pair one to one.
    """
    folder = folder_of(name, root)
    samples, problems = pair_files(name, folder)
    if problems:
        raise InvalidData(problems[0])
    return Dataset(name, folder, samples)


def pair_files(name: str, folder: Path) -> tuple[tuple[Sample, ...], list[str]]:
    """The samples that pair by stem, and one sentence per problem; MissingData without the two folders."""
    images, problems = _by_stem(name, folder / "images")
    masks, more = _by_stem(name, folder / "masks")
    problems += more
    checks = (("image(s) without a mask", images.keys() - masks.keys(), "masks"),
              ("mask(s) without an image", masks.keys() - images.keys(), "images"))  # fmt: skip
    for what, stems, where in checks:
        if stems:
            problems.append(f"{folder} has {len(stems)} {what} ({listing(sorted(stems))}): "
                            f"add a file of the same stem to {where}/ or remove them")  # fmt: skip
    both = sorted(images.keys() & masks.keys())
    return tuple(Sample(stem, images[stem], masks[stem]) for stem in both), problems


def _by_stem(name: str, folder: Path) -> tuple[dict[str, Path], list[str]]:
    if not folder.is_dir():
        if name.startswith(FOLDER):
            raise MissingData(f"{folder} does not exist: {name} must hold images/ and masks/")
        raise MissingData(f"{folder} does not exist: run `lesionkit fetch {name}` or set LESIONKIT_DATA "
                          f"to the folder that holds {name}/")  # fmt: skip
    found: dict[str, Path] = {}
    twice = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() not in SUFFIXES or not path.is_file():
            continue  # macOS and Windows leave ._x.jpg, .DS_Store and Thumbs.db behind
        if path.stem in found:
            twice.append(f"{found[path.stem].name} and {path.name}")
        found.setdefault(path.stem, path)
    problems = []
    if twice:
        problems.append(f"{folder} has {len(twice)} stem(s) twice ({listing(twice)}): keep one file of each")
    if not found:
        problems.append(f"{folder} holds no image: put files there that end in {', '.join(SUFFIXES)}")
    return found, problems


def listing(names: Sequence[str], limit: int = 3) -> str:
    """The first names, and how many more there are, for messages."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


# --- loading ----------------------------------------------------------------------------------------------


def read_sample(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Read one pair: image uint8 H×W×3 RGB and mask bool H×W; raises as `read_image` and `read_mask` do."""
    image = read_image(sample.image)
    return image, read_mask(sample.mask, image.shape[:2])


def check_files(samples: Iterable[Sample]) -> None:
    """Whether every file is whole and every mask of its image's size, from bytes and headers: a second per thousand
    images, where decoding them takes ten. Raises as `read_sample` does, for the first that is not."""
    for sample in samples:
        (have_w, have_h), (want_w, want_h) = image_size(sample.mask), image_size(sample.image)
        if (have_w, have_h) != (want_w, want_h):
            raise wrong_size(sample.mask, (have_h, have_w), (want_h, want_w))


def load(samples: Sequence[Sample], size_px: int, device: str = "cpu"):
    """Read samples and resize them to squares (the aspect ratio is not kept) as two torch tensors.

    Args:
        samples: B samples.
        size_px: S, the side of the squares.
        device: where the tensors go.

    Returns:
        image: float32 B×3×S×S in [0, 1], averaged over areas. mask: float32 B×1×S×S, 1 where more than half
        of the area is lesion, else 0.

    Raises:
        MissingData, InvalidData: as `read_sample` does.
    """
    import torch

    images = np.zeros((len(samples), size_px, size_px, 3), np.uint8)
    masks = np.zeros((len(samples), size_px, size_px), np.uint8)
    for index, sample in enumerate(samples):
        image, mask = read_sample(sample)
        images[index] = _square(image, size_px)
        masks[index] = _square(mask.astype(np.float32), size_px) > 0.5
    image_tensor = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255
    return image_tensor.contiguous(), torch.from_numpy(masks).to(device)[:, None].float()


def _square(pixels: np.ndarray, size_px: int) -> np.ndarray:
    shrinks = min(pixels.shape[:2]) >= size_px  # the average over less than a pixel is nearest neighbour
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(pixels, (size_px, size_px), interpolation=how)
