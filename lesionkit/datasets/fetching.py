"""Data sets from their authors' archives: download one, arrange its files, verify them, put them in their place.

A data set appears under its name only when it is complete and sound: everything before that happens in a hidden folder
`.fetching-NAME` beside it, which the next attempt removes if this one is killed. One process at a time may fetch a set.
Sets with depth come in several archives of many gigabytes behind a web page: each adds its sequences.
"""

import logging
import os
import shutil
import tarfile
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from lesionkit.datasets import splits
from lesionkit.datasets.depth import frame_name
from lesionkit.datasets.reading import SUFFIXES, DatasetError, InvalidData, MissingData, UnknownDataset
from lesionkit.datasets.registry import REGISTRY, at_home, folder_of, is_folder
from lesionkit.datasets.verifying import verify

ATTEMPTS = 3
ZIP_METHODS = {"store", "deflate", "bzip2", "lzma"}  # that Python unpacks
IMAGE_FOLDERS = ("images", "image", "original")
MASK_FOLDERS = ("masks", "mask", "ground truth", "groundtruth", "gt")


def fetch(name: str, root: Path | None = None, url: str | None = None) -> Path:
    """Download a data set, arrange it, verify it, and only then put it in its place, `folder_of(name, root)`.

    Images and masks go into images/ and masks/; frames with depth keep the folders of their sequences, while poses,
    meshes, normals and flow are left in the archive. `url` is a zip or tar archive instead of the authors': http(s)://,
    file:// or a path. What is there already is verified, never overwritten; a set with depth grows by each `url`.

    Raises UnknownDataset: not a registry name; MissingData: no download possible; InvalidData: the archive, or what
    lies in the place already, is not the data set; DatasetError: the place cannot be written to.
    """
    if name == "scenes" or is_folder(name):
        raise UnknownDataset(f"{name} cannot be fetched: choose one of {', '.join(REGISTRY)}")
    target = folder_of(name, root)
    there = _occupied(target)
    if not there or (REGISTRY[name].depth and url):
        _bring(name, url or REGISTRY[name].url, target)
    if there:
        _require_sound(name, target.parent, f"{target} (move it away to fetch it again)")
    return target


def _bring(name: str, url: str | None, target: Path) -> None:
    """Unpack and verify an archive's files beside `target`, then move them there."""
    entry, work = REGISTRY[name], target.parent / f".fetching-{name}"
    if url is None:
        place = f"put the files into {target / 'images'} and {target / 'masks'} (one stem for an image and its mask)"
        if entry.depth:
            place = f"unpack it into {target}, names and folders unchanged"
        raise MissingData(
            f"{name} cannot be downloaded unattended, the authors give {entry.obtain} at {entry.homepage}: get it "
            f"there and {place}, or fetch it with the address (url) of a zip or tar archive"
        )
    shutil.rmtree(work, ignore_errors=True)  # what a killed attempt left
    try:
        work.mkdir(parents=True)
    except OSError as error:
        reason = f"{work.parent} is not writable ({error.strerror})"
        raise DatasetError(f"{reason}: set LESIONKIT_DATA to a folder of your own") from None
    try:
        _unpack(name, url, work)
        _require_sound(name, work, f"the archive {url}")
        _move_in(work / name, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _require_sound(name: str, root: Path, what: str) -> None:
    """Raise InvalidData, which says `what` it is, unless root/name is a sound copy of a data set."""
    try:
        problems = verify(name, root).problems
    except MissingData as error:
        problems = (str(error),)
    if problems:
        more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
        raise InvalidData(f"{what} is not a sound copy of {name}: {problems[0]}{more}")


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


def _obtain(name: str, url: str, work: Path) -> Path:
    """The archive as a local file, downloaded into `work` if `url` is http(s)://."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        archive = Path(url2pathname(parts.path)) if parts.scheme == "file" else at_home(lambda: Path(url).expanduser())
        if archive.is_dir():
            what = "the folders of its sequences" if REGISTRY[name].depth else "its images/ and masks/"
            raise InvalidData(f"{url} is a folder: copy {what} to {work.parent / name}, then `lesionkit verify {name}`")
        if not archive.is_file():
            raise MissingData(f"the archive {url} of {name} does not exist: give another address or path")
        return archive
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)  # it would print every attempt
    # no hash of the archive: `verify` checks every file in it, and authors repack archives
    source = pooch.create(work, "", registry={"archive": None}, urls={"archive": url}, retry_if_failed=ATTEMPTS - 1)
    try:
        return Path(source.fetch("archive"))
    except OSError as error:  # all errors of requests are OSErrors
        raise MissingData(
            f"{name} could not be downloaded from {url} in {ATTEMPTS} attempts ({' '.join(str(error).split())[:160]}): "
            "check the network and try again, or give the address (url) of a copy you have"
        ) from None


def _unpack(name: str, url: str, work: Path) -> None:
    """Write the archive's files that belong to the set to their places below work/name; links are not followed."""
    archive = _obtain(name, url, work)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                files = {info.filename.replace("\\", "/"): info for info in opened.infolist() if not info.is_dir()}
                names = zipfile.compressor_names
                if odd := {names.get(info.compress_type, "another method") for info in files.values()} - ZIP_METHODS:
                    made = f"the archive {url} was made with {min(odd).capitalize()}"  # Windows takes it above 2 GB
                    raise InvalidData(f"{made}, which cannot be unpacked here: repack it as an ordinary zip or tar")
                _write(name, url, work / name, files, opened.open)
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as opened:
                files = {info.name: info for info in opened if info.isfile()}
                _write(name, url, work / name, files, opened.extractfile)
        else:
            raise InvalidData(f"the file fetched for {name} is neither zip nor tar: give the address (url) of one")
    except InvalidData:
        raise
    except Exception as error:  # damage, a password, a full disk: each decompressor has errors of its own
        reason = f"the archive of {name} cannot be unpacked ({error})"
        raise InvalidData(f"{reason}: download it again, or free disk space") from error


def _write(name: str, url: str, folder: Path, files: dict[str, Any], open_file: Callable[[Any], IO[bytes]]) -> None:
    """files: path in the archive -> what `open_file` opens."""
    for path in files:
        windows = PureWindowsPath(path)  # knows / and \ and drives
        if windows.anchor or ".." in windows.parts:
            raise InvalidData(f"the archive {url} holds the path {path!r}, leading out of it: do not use it")
    members = {PurePosixPath(path): info for path, info in files.items()}
    found = sorted(path for path in members if _is_wanted(name, path))
    if not found:
        raise InvalidData(f"the archive {url} holds no frame of {name}: is it the right one?")
    if REGISTRY[name].depth:
        loose = Path(urlsplit(url).path).stem or name  # a sequence at the top of its archive must not meet another
        places = {path: path if path.parent.name else loose / path for path in found}
    else:
        places = _mask_places(name, found)
    for path in (path for path in members if path in places):  # in the archive's order: a tar.gz winds back slowly
        place = folder / places[path]
        place.parent.mkdir(parents=True, exist_ok=True)
        with open_file(members[path]) as source, place.open("wb") as copy:
            shutil.copyfileobj(source, copy)


def _is_wanted(name: str, path: PurePosixPath) -> bool:
    files = REGISTRY[name].depth
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    if hidden or path.suffix.lower() not in SUFFIXES:
        return False
    return files is None or any(frame_name(pattern, str(path)) for pattern in (files.image, files.depth))


def _mask_places(name: str, found: Iterable[PurePosixPath]) -> dict[PurePosixPath, str]:
    """Path in the archive -> images/STEM or masks/STEM, of the two folders that fit the data set's names best: archives
    hold images/ and masks/, or Original/ and Ground Truth/, in several formats or data sets."""
    folders: dict[PurePosixPath, dict[str, PurePosixPath]] = defaultdict(dict)
    for path in found:
        folders[path.parent][path.stem] = path
    pairs = []
    for masks in (folder for folder in folders if folder.name.lower() in MASK_FOLDERS):
        beside = [folder for folder in folders if folder.parent == masks.parent and folder != masks]
        named = [folder for folder in beside if folder.name.lower() in IMAGE_FOLDERS]
        pairs += [(folders[images], folders[masks]) for images in named or beside]
    if not pairs:
        raise InvalidData(f"the archive of {name} holds no images/ beside masks/: is it the right one?")
    known = splits.official_files(name).keys()
    images, masks = max(pairs, key=lambda pair: len(pair[0].keys() & known) - len(pair[0].keys() - known))
    # ETIS and ColonDB call the mask of image 12 "p12"
    masks = {stem[1:] if stem[0] == "p" and stem[1:] in images else stem: path for stem, path in masks.items()}
    sides = (("images", images), ("masks", masks))
    return {path: f"{part}/{stem}{path.suffix.lower()}" for part, paths in sides for stem, path in paths.items()}
