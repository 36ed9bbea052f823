"""Data sets from their authors' archives: download one, arrange its files, verify them, put them in their place.

A data set appears under its name only when it is complete and sound: everything before that happens in a
hidden folder `.fetching-NAME` beside it, which the next attempt removes if this one is killed. A broken
download starts again from its beginning (Kvasir-SEG has some 50 MB). One process at a time may fetch a set.

Sets with depth come in several archives of many gigabytes behind a web page: each adds its sequences.
"""

import os
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from lesionkit.datasets import archives, splits
from lesionkit.datasets.depth import frame_name
from lesionkit.datasets.errors import DatasetError, InvalidData, MissingData, UnknownDataset
from lesionkit.datasets.reading import SUFFIXES
from lesionkit.datasets.registry import REGISTRY, folder_of, is_folder
from lesionkit.datasets.verifying import verify

IMAGE_FOLDERS = ("images", "image", "original")
MASK_FOLDERS = ("masks", "mask", "ground truth", "groundtruth", "gt")


def fetch(name: str, root: Path | None = None, url: str | None = None) -> Path:
    """Download a data set, arrange it, verify it, and only then put it in its place.

    Images and masks go into images/ and masks/; frames with depth keep the folders of their sequences, while poses,
    meshes, normals and flow are left in the archive. What is there already is never overwritten.

    Args:
        name: a registry name.
        root: the folder of all data sets; None means `data_root()`.
        url: a zip or tar archive instead of the authors': http(s)://, file:// or a path. A set with depth grows by it.

    Returns:
        The folder of the data set, which may have been there, and sound, before.

    Raises:
        UnknownDataset: not a registry name. MissingData: no download possible. InvalidData: the archive, or
        what lies in the place already, is not the data set. DatasetError: the place cannot be written to.
    """
    if name == "scenes" or is_folder(name):
        raise UnknownDataset(f"{name} cannot be fetched: choose one of {', '.join(REGISTRY)}")
    target, entry = folder_of(name, root), REGISTRY[name]
    there, place = _occupied(target), f"{target} (move it away to fetch it again)"
    if there and not (entry.depth and url):
        _require_sound(name, target.parent, place)
        return target
    url = url or entry.url
    if url is None:
        raise MissingData(_by_hand(name, target))
    with _work_folder(target.parent / f".fetching-{name}") as work:
        _arrange(name, url, work)
        _require_sound(name, work, f"the archive {url}")
        _move_in(work / name, target)
    if there:
        _require_sound(name, target.parent, place)
    return target


def _require_sound(name: str, root: Path, what: str) -> None:
    """Raise InvalidData, which says `what` it is, unless root/name is a sound copy of a data set."""
    try:
        problems = verify(name, root).problems
    except MissingData as error:
        problems = (str(error),)
    if problems:
        more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
        raise InvalidData(f"{what} is not a sound copy of {name}: {problems[0]}{more}")


def _by_hand(name: str, target: Path) -> str:
    entry = REGISTRY[name]
    if entry.depth:
        what, place = "each archive", f"unpack it into {target}, names and folders unchanged"
    else:
        what = "a zip or tar archive of it"
        place = f"put the files into {target / 'images'} and {target / 'masks'} (one stem for an image and its mask)"
    return (
        f"{name} cannot be downloaded unattended, the authors give {entry.obtain} at {entry.homepage}: get it there "
        f"and {place}, or fetch it with the address (url) of {what}"
    )


@contextmanager
def _work_folder(work: Path) -> Iterator[Path]:
    shutil.rmtree(work, ignore_errors=True)  # what a killed attempt left
    try:
        work.mkdir(parents=True)
    except OSError as error:
        raise DatasetError(
            f"{work.parent} is not writable ({error.strerror}): set LESIONKIT_DATA to a folder of your own"
        ) from None
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _occupied(place: Path) -> bool:
    return place.is_file() or (place.is_dir() and any(place.iterdir()))


def _move_in(folder: Path, target: Path) -> None:
    """The whole in one step; where there is something already, each folder of files that is not there yet."""
    parts = {path.parent for path in folder.rglob("*") if path.is_file()} if _occupied(target) else {folder}
    for part in sorted(parts):
        place = target / part.relative_to(folder)
        if not _occupied(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(place, ignore_errors=True)  # empty: Windows would not replace it
            os.replace(part, place)


# --- arrange ----------------------------------------------------------------------------------------------


def _arrange(name: str, url: str, work: Path) -> None:
    """Unpack the archive and move its files to where they belong below work/name."""
    unpacked = work / "unpacked"
    archives.unpack(name, archives.obtain(name, url, work), unpacked, lambda path: _is_wanted(name, path))
    found = [path.relative_to(unpacked) for path in sorted(unpacked.rglob("*")) if path.is_file()]
    if REGISTRY[name].depth:
        loose = Path(urlsplit(url).path).stem or name  # a sequence at the top of its archive must not meet another
        places = {path if path.parent.name else loose / path: path for path in found}
    else:
        places = _mask_places(name, found)
    if not places:
        raise InvalidData(f"the archive {url} holds no frame of {name}: is it the right one?")
    for place, path in places.items():
        (work / name / place).parent.mkdir(parents=True, exist_ok=True)
        os.replace(unpacked / path, work / name / place)


def _is_wanted(name: str, path: PurePosixPath) -> bool:
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    if hidden or path.suffix.lower() not in SUFFIXES:
        return False
    files = REGISTRY[name].depth
    return files is None or any(frame_name(pattern, str(path)) for pattern in (files.image, files.depth))


def _mask_places(name: str, found: Iterable[Path]) -> dict[Path, Path]:
    """images/STEM and masks/STEM -> path in the archive, of the two folders that fit the data set's names best:
    archives hold images/ and masks/, or Original/ and Ground Truth/, in several formats or data sets."""
    folders: dict[Path, dict[str, Path]] = defaultdict(dict)
    for path in found:
        folders[path.parent][path.stem] = path
    known = splits.official_files(name).keys()

    def fit(pair: tuple[Path, Path]) -> int:
        stems = folders[pair[0]].keys()
        return len(stems & known) - len(stems - known)

    mask_folders = [folder for folder in folders if folder.name.lower() in MASK_FOLDERS]
    pairs = [(images, masks) for masks in mask_folders for images in _beside(masks, folders)]
    if not pairs:
        raise InvalidData(f"the archive of {name} holds no images/ beside masks/: is it the right one?")
    images, masks = (folders[folder] for folder in max(pairs, key=fit))
    # ETIS and ColonDB call the mask of image 12 "p12"
    masks = {stem[1:] if stem[0] == "p" and stem[1:] in images else stem: path for stem, path in masks.items()}
    return {
        Path(folder) / (stem + path.suffix.lower()): path
        for folder, chosen in (("images", images), ("masks", masks))
        for stem, path in chosen.items()
    }


def _beside(masks: Path, folders: Iterable[Path]) -> list[Path]:
    """The folders beside a mask folder that are called as image folders are; all of them, if none is."""
    beside = [folder for folder in folders if folder.parent == masks.parent and folder != masks]
    return [folder for folder in beside if folder.name.lower() in IMAGE_FOLDERS] or beside
