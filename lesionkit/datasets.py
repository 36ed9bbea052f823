"""Real data sets: what is known of them, where they lie, how they are split, and how a file becomes an array.

Shapes: H, W = an image's own height and width in pixels; B = number of samples; S = side of the square
model input. Nothing here needs a network; `lesionkit.fetching` downloads and verifies. Tensors appear in
`load` only, which is why torch is imported there and not at the top.
"""

import csv
import difflib
import hashlib
import io
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import platformdirs
from PIL import Image, UnidentifiedImageError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
PARTS = ("train", "validation", "test")
FOLDER = "folder:"


class DatasetError(RuntimeError):
    """A data set is not as it should be; the message is one sentence: what, where, what to do."""


class UnknownDataset(DatasetError):
    """The name is not one the kit knows."""


class MissingData(DatasetError):
    """The files are not where they are expected."""


class InvalidData(DatasetError):
    """The files are there, but they are not what they should be."""


# --- the registry -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """What is known of one public data set."""

    title: str
    images: int
    terms: str  # as the authors state them
    homepage: str
    url: str | None  # the authors' archive; None: nothing that can be downloaded and unpacked unattended
    obtain: str  # how the authors hand it out
    citation: str
    splits: tuple[str, ...]  # the first is the default
    size_wh: tuple[int, int] | None = None  # None: sizes vary

    @property
    def default_split(self) -> str:
        return self.splits[0]


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

# (data set, split) -> the files in splits/ that list its training and its test part
SPLIT_FILES = {
    ("kvasir-seg", "pranet"): ("pranet_kvasir_train900.txt", "pranet_kvasir_test100.txt"),
    ("kvasir-seg", "medico2020"): ("kvasir_medico2020_train880.txt", "kvasir_medico2020_val120.txt"),
    ("cvc-clinicdb", "pranet"): ("pranet_clinicdb_train550.txt", "pranet_clinicdb_test62.txt"),
    ("cvc-clinicdb", "sequence"): ("clinicdb_by_sequence_train.txt", "clinicdb_by_sequence_test.txt"),
}


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
    return Path(root or data_root()).expanduser().absolute() / name


def status(root: Path | None = None) -> list[dict]:
    """One row per registry entry: name, title, images, present, where, terms, splits (the default first)."""
    rows = []
    for name, entry in REGISTRY.items():
        where = folder_of(name, root)
        present = all((where / part).is_dir() for part in ("images", "masks"))
        rows.append({"name": name, "title": entry.title, "images": entry.images, "present": present,
                     "where": str(where), "terms": entry.terms, "splits": entry.splits})  # fmt: skip
    return rows


# --- the facts in splits/ ---------------------------------------------------------------------------------


@cache
def _fact_lines(filename: str) -> tuple[str, ...]:
    text = (files("lesionkit") / "splits" / filename).read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line and not line.startswith("#"))


def official_files(name: str) -> dict[str, tuple[str, str]]:
    """stem -> the first 32 hex digits of the SHA-256 of the image and of the mask as commonly distributed."""
    rows = (line.split() for line in _fact_lines(f"{name}_sha256.txt"))
    return {stem: (image, mask) for stem, image, mask in rows}


def sequences() -> dict[str, str]:
    """CVC-ClinicDB: frame (stem) -> video sequence, both as decimal text."""
    rows = csv.DictReader(_fact_lines("cvc_clinicdb_frame_to_sequence.csv"))
    return {row["frame"]: row["sequence"] for row in rows}


def _groups(name: str) -> dict[str, str]:
    """stem -> key of the group that must stay on one side of a split; stems that stand alone are left out."""
    if name == "cvc-clinicdb":
        return sequences()
    if name == "kvasir-seg":
        lines = [line.split() for line in _fact_lines("kvasir_near_duplicates.txt")]
        return {stem: stems[0] for stems in lines for stem in stems}
    return {}


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
        return _hash_parts(name, sorted(stems))
    train, test = (_fact_lines(filename) for filename in SPLIT_FILES[name, split])
    held_out = _tenth(train, _groups(name))
    return {
        "train": tuple(stem for stem in train if stem not in held_out),
        "validation": tuple(stem for stem in train if stem in held_out),
        "test": test,
    }


def _rank(text: str) -> str:
    # Python's hash() differs between processes; this one is the same everywhere
    return hashlib.sha256(unicodedata.normalize("NFC", text).encode()).hexdigest()


def _tenth(stems: Sequence[str], groups: dict[str, str]) -> set[str]:
    """Whole groups, in the order of their hashes, as long as they fit into a tenth of `stems`."""
    members: dict[str, list[str]] = {}
    for stem in stems:
        members.setdefault(groups.get(stem, stem), []).append(stem)
    taken: set[str] = set()
    for key in sorted(members, key=_rank):
        if len(taken) + len(members[key]) <= round(len(stems) / 10):
            taken.update(members[key])
    return taken


def _hash_parts(name: str, stems: Sequence[str]) -> dict[str, tuple[str, ...]]:
    if len(stems) < 3:
        raise InvalidData(f"{name} has {len(stems)} image(s): a split needs 3 or more, add some")
    ordered = sorted(stems, key=_rank)
    share = max(1, round(0.15 * len(ordered)))
    cuts = {"test": ordered[:share], "validation": ordered[share : 2 * share], "train": ordered[2 * share :]}
    return {part: tuple(sorted(cuts[part])) for part in PARTS}


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
                f"{self.root} lacks {len(absent)} of the {len(stems)} {part} images ({some(absent)}): "
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
            problems.append(f"{folder} has {len(stems)} {what} ({some(sorted(stems))}): "
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
        problems.append(f"{folder} has {len(twice)} stem(s) twice ({some(twice)}): keep one file of each")
    if not found:
        problems.append(f"{folder} holds no image: put files there that end in {', '.join(SUFFIXES)}")
    return found, problems


def some(names: Sequence[str], limit: int = 3) -> str:
    """The first names, and how many more there are, for messages."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


# --- reading ----------------------------------------------------------------------------------------------


def read_image(path: Path) -> np.ndarray:
    """Read an image as uint8 H×W×3 RGB, upright (by EXIF orientation), without alpha, 16 bits cut to 8.

    Raises:
        MissingData: no such file. InvalidData: empty, cut off, or not an image.
    """
    return cv2.cvtColor(_decode(Path(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def read_mask_values(path: Path) -> np.ndarray:
    """Read a mask's values as uint8 H×W, the maximum over its channels; a mask of {0, 1} becomes {0, 255}."""
    values = _decode(Path(path), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH).max(axis=2)
    if values.max() <= 1:
        return values.astype(np.uint8) * 255
    if values.max() > 255:  # 16 bits; smaller values are 8 bits in a wide file
        values = values >> 8
    return values.astype(np.uint8)


def read_mask(path: Path, size_hw: tuple[int, int] | None = None) -> np.ndarray:
    """Read a mask as bool H×W, True where `read_mask_values` exceeds 127.

    Raises:
        MissingData: no such file. InvalidData: unreadable, or not of `size_hw` (height, width in pixels).
    """
    mask = read_mask_values(path) > 127
    if size_hw is not None and mask.shape != tuple(size_hw):
        raise _wrong_size(path, mask.shape, size_hw)
    return mask


def read_sample(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Read one pair: image uint8 H×W×3 RGB and mask bool H×W; raises as `read_image` and `read_mask` do."""
    image = read_image(sample.image)
    return image, read_mask(sample.mask, image.shape[:2])


def check_files(samples: Iterable[Sample]) -> None:
    """Whether every file is whole and every mask of its image's size, from bytes and headers: a second per thousand
    images, where decoding them takes ten. Raises as `read_sample` does, for the first that is not."""
    for sample in samples:
        (have_w, have_h), (want_w, want_h) = _header_size(sample.mask), _header_size(sample.image)
        if (have_w, have_h) != (want_w, want_h):
            raise _wrong_size(sample.mask, (have_h, have_w), (want_h, want_w))


def _header_size(path: Path) -> tuple[int, int]:
    """Width and height as `read_image` would give them, without decoding."""
    try:
        with Image.open(io.BytesIO(_whole_bytes(path))) as picture:
            turned = picture.getexif().get(0x0112, 1) >= 5  # EXIF orientation: a quarter turn
            return picture.size[::-1] if turned else picture.size
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError):
        raise InvalidData(f"{path} is not an image, or it is damaged: replace it") from None


def _wrong_size(path: Path, have_hw: tuple[int, int], want_hw: tuple[int, int]) -> InvalidData:
    (have_h, have_w), (want_h, want_w) = have_hw, want_hw
    return InvalidData(f"mask {path} is {have_w}×{have_h} but its image is {want_w}×{want_h}: "
                       "replace it by a mask of the image's own size")  # fmt: skip


def _whole_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise MissingData(f"{path} does not exist: check the path") from None
    except OSError as error:
        raise InvalidData(f"{path} cannot be read ({error.strerror}): check the file") from None
    if not data:
        raise InvalidData(f"{path} is empty: copy or download it again")
    if _is_cut_off(data):
        raise InvalidData(f"{path} is cut off after {len(data)} bytes: copy or download it again")
    return data


def _decode(path: Path, flags: int) -> np.ndarray:
    pixels = _quiet_imdecode(_whole_bytes(path), flags)
    if pixels is None:
        raise InvalidData(f"{path} is not an image that OpenCV can decode, or it is damaged: replace it")
    return pixels


def _quiet_imdecode(data: bytes, flags: int) -> np.ndarray | None:
    log = cv2.utils.logging
    level = log.setLogLevel(log.LOG_LEVEL_SILENT)  # our own sentence says what OpenCV would print
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None
    finally:
        log.setLogLevel(level)


def _is_cut_off(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end mark; some OpenCV versions fill the rest with grey, silently.

    Bytes after the end mark are accepted: many real files have them.
    """
    if data.startswith(b"\xff\xd8"):
        return not _jpeg_ends(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return not _png_ends(data)
    return False


def _png_ends(data: bytes) -> bool:
    """Walk the chunks (length, type, body, CRC) up to IEND."""
    at = 8
    while at + 12 <= len(data):
        if data[at + 4 : at + 8] == b"IEND":
            return True
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return False


_JPEG_MARK = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])", re.DOTALL)  # not a stuffed zero, not a restart mark


def _jpeg_ends(data: bytes) -> bool:
    """Walk the segments to the end mark; a search for it alone would find that of an embedded thumbnail."""
    at = 2
    while found := _JPEG_MARK.search(data, at):
        if found[1] == b"\xd9":
            return True
        at = found.end()
        if found[1] != b"\x01":  # the one mark without a length
            at += int.from_bytes(data[at : at + 2], "big")
    return False


# --- loading ----------------------------------------------------------------------------------------------


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
