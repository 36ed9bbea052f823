"""Archives of data sets: download one, look into it, copy images out of it. Nothing here knows a data set."""

import logging
import lzma
import re
import shutil
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pooch

from lesionkit.datasets.reading import SUFFIXES, DatasetError, InvalidData, MissingData

ATTEMPTS = 3
PAUSE_S = 2.0  # between attempts


def make_empty(work: Path) -> None:
    """An empty folder to work in. Raises DatasetError where that cannot be made."""
    shutil.rmtree(work, ignore_errors=True)  # what a killed attempt left
    try:
        work.mkdir(parents=True)
    except OSError as error:
        raise DatasetError(
            f"{work.parent} is not writable ({error.strerror}): set LESIONKIT_DATA to a folder of your own"
        ) from None


def obtain(name: str, url: str, work: Path) -> Path:
    """The archive of a data set as a local file, downloaded into `work` if `url` is http(s)://.

    Raises MissingData: no such file, or no download in ATTEMPTS attempts.
    """
    scheme = urlsplit(url).scheme
    if scheme in ("http", "https"):
        return _download(name, url, work)
    path = Path(url2pathname(urlsplit(url).path)) if scheme == "file" else Path(url).expanduser()
    if not path.is_file():
        raise MissingData(f"the archive {url} of {name} does not exist: give another address or path")
    return path


def _download(name: str, url: str, work: Path) -> Path:
    pooch.get_logger().setLevel(logging.WARNING)  # it would print a hash that is of no use here
    reason = ""
    for attempt in range(ATTEMPTS):
        time.sleep(PAUSE_S if attempt else 0)
        try:
            # no hash of the archive: `verify` checks every file in it, and authors repack archives
            return Path(pooch.retrieve(url, known_hash=None, fname="archive", path=work))
        except OSError as error:  # all errors of requests are OSErrors
            reason = " ".join(str(error).split())[:160]
    raise MissingData(
        f"{name} could not be downloaded from {url} in {ATTEMPTS} attempts ({reason}): "
        "check the network and try again, or give the address (url) of a copy you have"
    )


# --- unpack ----------------------------------------------------------------------------------------------


# RuntimeError: an encrypted zip; OSError: a damaged gzip, a full disk
_ARCHIVE_ERRORS = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError
)  # fmt: skip


@contextmanager
def images_in(name: str, archive: Path) -> Iterator[dict[str, Callable]]:
    """path in the archive -> how to open it, for every image of a zip or tar archive.

    Raises InvalidData: neither zip nor tar, a path that leads out of it, or damage, also while members are read.
    """
    try:
        with closing(_open(name, archive)) as opened:
            yield dict(_members(opened, archive))
    except DatasetError:
        raise
    except _ARCHIVE_ERRORS as error:
        raise InvalidData(
            f"the archive of {name} cannot be unpacked ({error}): download it again, or free disk space"
        ) from None


def copy(open_member: Callable, path: Path) -> None:
    """One member of `images_in` as a file; its folder is made if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_member() as source, path.open("wb") as out:
        shutil.copyfileobj(source, out)


def _open(name: str, archive: Path) -> zipfile.ZipFile | tarfile.TarFile:
    if zipfile.is_zipfile(archive):
        return zipfile.ZipFile(archive)
    if tarfile.is_tarfile(archive):
        return tarfile.open(archive)
    raise InvalidData(f"the file fetched for {name} is neither zip nor tar: give the address (url) of one")


def _members(opened: zipfile.ZipFile | tarfile.TarFile, archive: Path) -> Iterator[tuple[str, Callable]]:
    """(path in the archive, how to open it) of every image; refuses paths that lead out."""
    if isinstance(opened, zipfile.ZipFile):
        every = [(info.filename, info, not info.is_dir()) for info in opened.infolist()]
        how = opened.open
    else:
        every = [(info.name, info, info.isfile()) for info in opened.getmembers()]
        how = opened.extractfile
    for member, info, is_file in every:
        path = PurePosixPath(member.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:", member):
            raise InvalidData(f"{archive.name} holds the path {member!r}, leading out of it: do not use it")
        hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
        if is_file and not hidden and path.suffix.lower() in SUFFIXES:
            yield str(path), lambda info=info: how(info)
