"""Data sets from their authors' archives: download one, arrange its files, verify them, put them in their place.

A data set appears under its name only when it is complete and sound: everything before that happens in a hidden folder
`.fetching-NAME` beside it, which the next attempt removes if this one is killed. One process at a time may fetch a set.
"""

import logging
import os
import shutil
import tarfile
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from lesionkit.datasets import splits
from lesionkit.datasets.reading import SUFFIXES, DatasetError, InvalidData, MissingData, UnknownDataset
from lesionkit.datasets.registry import REGISTRY, at_home, folder_of
from lesionkit.datasets.verifying import verify

ATTEMPTS = 3
IMAGE_FOLDERS = ("images", "image", "original")
MASK_FOLDERS = ("masks", "mask", "ground truth", "groundtruth", "gt")


def fetch(name: str, root: Path | None = None, url: str | None = None) -> Path:
    """Download a data set, arrange it in images/ and masks/, verify it, and only then put it in its place,
    `folder_of(name, root)`. `url` is a zip or tar archive instead of the authors': http(s)://, file:// or a path. What
    is there already is verified, never overwritten. Of sets with depth, which are several archives of many gigabytes
    behind a web page, it says where they are.

    Raises UnknownDataset: not a registry name; MissingData: no download possible; InvalidData: the archive, or what
    lies in the place already, is not the data set; DatasetError: the place cannot be written to.
    """
    if name not in REGISTRY:
        raise UnknownDataset(f"{name} cannot be fetched: choose one of {', '.join(REGISTRY)}")
    entry, target = REGISTRY[name], folder_of(name, root)
    url = url or entry.url
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        _require_sound(name, target.parent, f"{target} (move it away to fetch it again)")
    elif url is None or not entry.masks:
        layout = "in images/ and masks/ (one stem for an image and its mask), or fetch it with the url of a zip or tar"
        if not entry.masks:
            layout = f"images in images/, then `lesionkit verify {name}`"
        if entry.depth:
            layout = f"names and folders unchanged, then `lesionkit verify {name}`"
        reason = f"the authors give {entry.obtain} at {entry.homepage}"
        raise MissingData(f"{name} cannot be downloaded unattended, {reason}: put its files into {target}, {layout}")
    else:
        _bring(name, url, target)
    return target


def _bring(name: str, url: str, target: Path) -> None:
    """Unpack and verify an archive's files beside `target`, then move them there in one step."""
    work = target.parent / f".fetching-{name}"
    shutil.rmtree(work, ignore_errors=True)  # what a killed attempt left
    try:
        work.mkdir(parents=True)
    except OSError as error:
        reason = f"{work.parent} is not writable ({error.strerror})"
        raise DatasetError(f"{reason}: set LESIONKIT_DATA to a folder of your own") from None
    try:
        _unpack(name, url, work)
        _require_sound(name, work, f"the archive {url}")
        if target.is_dir():
            target.rmdir()  # empty: Windows would not replace it
        os.replace(work / name, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _require_sound(name: str, root: Path, what: str) -> None:
    """Raise InvalidData, which says `what` it is, unless root/name is a sound copy of a data set."""
    try:
        problems = verify(name, root).problems
    except MissingData as error:
        problems = (str(error),)
    if problems:
        raise InvalidData(f"{what} is not a sound copy of {name}: {problems[0]}")


def _obtain(name: str, url: str, work: Path) -> Path:
    """The archive as a local file, downloaded into `work` if `url` is http(s)://."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        archive = Path(url2pathname(parts.path)) if parts.scheme == "file" else at_home(lambda: Path(url).expanduser())
        if archive.is_dir():
            advice = f"copy its images/ and masks/ to {work.parent / name}, then `lesionkit verify {name}`"
            raise InvalidData(f"{url} is a folder: {advice}")
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
        reason = f"could not be downloaded from {url} in {ATTEMPTS} attempts ({' '.join(str(error).split())[:160]})"
        raise MissingData(f"{name} {reason}: check the network, or give the address (url) of a copy you have") from None


def _unpack(name: str, url: str, work: Path) -> None:
    """Write the archive's files that belong to the set to their places below work/name; links are not followed."""
    archive = _obtain(name, url, work)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                files = {info.filename.replace("\\", "/"): info for info in opened.infolist() if not info.is_dir()}
                _write(name, work / name, files, opened.open)
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as opened:
                files = {info.name: info for info in opened if info.isfile()}
                _write(name, work / name, files, opened.extractfile)
        else:
            raise InvalidData(f"the file fetched for {name} is neither zip nor tar: give the address (url) of one")
    except InvalidData:
        raise
    except NotImplementedError:
        made = f"the archive {url} was made with Deflate64, as Windows does above 2 GB, or another method"
        raise InvalidData(f"{made} that cannot be unpacked here: repack it as an ordinary zip or tar") from None
    except Exception as error:  # damage, a password, a full disk: each decompressor has errors of its own
        reason = f"the archive of {name} cannot be unpacked ({error})"
        raise InvalidData(f"{reason}: download it again, or free disk space") from error


def _write(name: str, folder: Path, files: dict[str, Any], open_file: Callable[[Any], IO[bytes]]) -> None:
    """files: path in the archive -> what `open_file` opens."""
    places = _places(name, map(PurePosixPath, files))
    for path, info in files.items():  # in the archive's order: a tar.gz winds back slowly
        if place := places.get(PurePosixPath(path)):
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            with open_file(info) as source, (folder / place).open("wb") as copy:
                shutil.copyfileobj(source, copy)


def _places(name: str, paths: Iterable[PurePosixPath]) -> dict[PurePosixPath, str]:
    """Path in the archive -> images/STEM or masks/STEM, of the two folders that fit the data set's names best: archives
    hold images/ and masks/, or Original/ and Ground Truth/, in several formats or data sets."""
    folders: dict[PurePosixPath, dict[str, PurePosixPath]] = defaultdict(dict)
    for path in paths:
        is_hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
        if path.suffix.lower() in SUFFIXES and not is_hidden:
            folders[path.parent][path.stem] = path
    known = splits.official_files(name).keys()

    def fit(images: PurePosixPath) -> tuple[int, bool]:
        stems = folders[images].keys()
        return len(stems & known) - len(stems - known), images.name.lower() in IMAGE_FOLDERS

    beside = [(one, other) for one in folders for other in folders if one.parent == other.parent and one != other]
    pairs = [(images, masks) for images, masks in beside if masks.name.lower() in MASK_FOLDERS]
    if not pairs:
        raise InvalidData(f"the archive of {name} holds no images/ beside masks/: is it the right one?")
    images, masks = (folders[folder] for folder in max(pairs, key=lambda pair: fit(pair[0])))
    # ETIS and ColonDB call the mask of image 12 "p12"
    masks = {stem[1:] if stem[0] == "p" and stem[1:] in images else stem: path for stem, path in masks.items()}
    sides = (("images", images), ("masks", masks))
    return {path: f"{part}/{stem}{path.suffix.lower()}" for part, paths in sides for stem, path in paths.items()}
