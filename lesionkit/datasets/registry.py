"""The public data sets that facts/registry.toml describes: what each is, and where it lies on this machine."""

import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import platformdirs

from lesionkit.datasets.reading import MissingData, UnknownDataset

FACTS = files("lesionkit.datasets") / "facts"
FOLDER = "folder:"


@dataclass(frozen=True)
class DepthFiles:
    """How frames and depth are named, and how the stored values of one channel mean depth: linearly, through 0."""

    image: str  # pattern of the file name, perhaps with its folder; its group is the frame
    depth: str
    bits: int
    full_value: int  # the stored value that means `full_depth`
    full_depth: float
    unit: str  # "mm", or "relative": only metrics that are free of scale and shift apply
    unknown: Sequence[int]  # stored values that mean: no depth here


@dataclass(frozen=True)
class Entry:
    """What is known of a data set: it has lesion masks, or `depth` says how its depth is stored, or images alone."""

    title: str
    images: int
    terms: str  # as the authors state them
    homepage: str
    obtain: str  # how the authors hand it out
    citation: str
    url: str | None = None  # the authors' archive; None: nothing that can be downloaded and unpacked unattended
    size_wh: tuple[int, int] | None = None  # None: sizes vary
    # published splits, the default first: name -> the files in facts/ that list its training and its test part
    splits: Mapping[str, Sequence[str]] = field(default_factory=dict)
    depth: DepthFiles | None = None
    masks: bool = True
    lesion_free: bool = False  # whether some of its masks are black

    @property
    def kind(self) -> str:
        return "masks" if self.masks else "depth, no masks" if self.depth else "no lesions, no masks"


def _entry(size_wh: list[int] | None = None, depth: dict | None = None, masks: bool = True, **facts) -> Entry:
    depth_files = depth and DepthFiles(**depth)
    return Entry(**facts, size_wh=size_wh and tuple(size_wh), depth=depth_files, masks=masks and not depth)


_TABLES = tomllib.loads((FACTS / "registry.toml").read_text(encoding="utf-8"))
REGISTRY: dict[str, Entry] = {name: _entry(**facts) for name, facts in _TABLES.items()}
NAMES = tuple(name for name, entry in REGISTRY.items() if entry.masks)
DEPTH_NAMES = tuple(name for name, entry in REGISTRY.items() if entry.depth)


def check_name(name: str) -> str:
    """Return `name` if it is "scenes", one of NAMES or "folder:PATH"; else raise UnknownDataset."""
    if name in ("scenes", *NAMES) or is_folder(name):
        return name
    choice = f"scenes, {', '.join(NAMES)} or folder:PATH"
    raise UnknownDataset(f"{name!r} is no data set with lesion masks: choose one of {choice}")


def is_folder(name: str) -> bool:
    """Whether a name is "folder:PATH", the user's own data."""
    return name.startswith(FOLDER) and name != FOLDER


def data_root() -> Path:
    """The folder of all data sets: LESIONKIT_DATA, else the user's cache folder; it need not exist. Raises MissingData
    for a user without a home folder, UnknownDataset as `folder_of`."""
    given = os.environ.get("LESIONKIT_DATA")
    return _place(given) if given else at_home(lambda: platformdirs.user_cache_path("lesionkit"))


def folder_of(name: str, root: Path | None = None) -> Path:
    """The folder that holds, or would hold, the files of a data set: PATH of "folder:PATH", else root/name, where no
    `root` means `data_root()`. Raises UnknownDataset, also for "scenes", which are rendered, and for a path that is no
    UTF-8; MissingData as `data_root`."""
    if is_folder(name):
        return _place(name.removeprefix(FOLDER))
    if name not in REGISTRY:
        raise UnknownDataset(f"{name!r} is no data set with files: choose one of {', '.join(REGISTRY)} or folder:PATH")
    return _place(root or data_root()) / name


def _place(path: str | Path) -> Path:
    place = at_home(lambda: Path(path).expanduser()).absolute()
    if shown := not_utf8(place):  # notebooks and records, which name it, are UTF-8
        raise UnknownDataset(f"the path {shown} is no UTF-8: rename the folder")
    return place


def at_home(find: Callable[[], Path]) -> Path:
    """A path that may need the user's home folder. Raises MissingData for a user who has none."""
    try:
        return find()
    except (RuntimeError, KeyError, OSError):  # pathlib and platformdirs raise what they meet
        advice = "set HOME to one, or, for data sets alone, LESIONKIT_DATA to a full path"
        raise MissingData(f"this user has no home folder: {advice}") from None


def not_utf8(path: str | Path) -> str:
    """A path that is no UTF-8 as it stands in messages, with \\xe4 for such bytes; "" for one that is."""
    shown = os.fsencode(path).decode(errors="backslashreplace")
    return "" if shown == str(path) else shown


def check_folder(name: str, folder: Path) -> None:
    """Raise MissingData unless a folder of a data set is there."""
    if not folder.is_dir():
        advice = f"run `lesionkit fetch {name}` or set LESIONKIT_DATA to the folder that holds {name}/"
        if is_folder(name):
            advice = f"{name} must hold images/ and masks/"
        raise MissingData(f"{folder} does not exist: {advice}")


def status(root: Path | None = None) -> list[dict]:
    """One row per data set: name, kind (what comes with the images), title, images, present, where, terms."""
    rows = []
    for name, entry in REGISTRY.items():
        where = folder_of(name, root)
        row = {"name": name, "kind": entry.kind, "title": entry.title}
        row |= {"images": entry.images, "present": where.is_dir(), "where": str(where), "terms": entry.terms}
        rows.append(row)
    return rows
