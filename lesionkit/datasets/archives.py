"""Archives: download one, and unpack what is wanted of it. Nothing here knows a data set."""

import logging
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from lesionkit.datasets.errors import InvalidData, MissingData

ATTEMPTS = 3
# RuntimeError: an encrypted zip; OSError: a damaged gzip, a full disk
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError)


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
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)  # it would print every attempt
    # no hash of the archive: `verify` checks every file in it, and authors repack archives
    source = pooch.create(work, "", registry={"archive": None}, urls={"archive": url}, retry_if_failed=ATTEMPTS - 1)
    try:
        return Path(source.fetch("archive"))
    except OSError as error:  # all errors of requests are OSErrors
        reason = " ".join(str(error).split())[:160]
        raise MissingData(
            f"{name} could not be downloaded from {url} in {ATTEMPTS} attempts ({reason}): "
            "check the network and try again, or give the address (url) of a copy you have"
        ) from None


def unpack(name: str, archive: Path, folder: Path, wanted: Callable[[PurePosixPath], bool]) -> None:
    """Unpack the files of a zip or tar archive whose path is `wanted`; links are not followed.

    Raises InvalidData: neither zip nor tar, a path that leads out of it, or damage.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                for info in opened.infolist():
                    info.filename = info.filename.replace("\\", "/")  # as some tools on Windows write
                files = {info.filename: info for info in opened.infolist() if not info.is_dir()}
                opened.extractall(folder, _chosen(archive, files, wanted))
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as opened:
                files = {info.name: info for info in opened if info.isfile()}
                opened.extractall(folder, _chosen(archive, files, wanted), filter="data")
        else:
            raise InvalidData(f"the file fetched for {name} is neither zip nor tar: give the address (url) of one")
    except InvalidData:
        raise
    except _DAMAGE as error:
        raise InvalidData(
            f"the archive of {name} cannot be unpacked ({error}): download it again, or free disk space"
        ) from None


def _chosen(archive: Path, files: dict[str, Any], wanted: Callable[[PurePosixPath], bool]) -> list:
    for member in files:
        path = PureWindowsPath(member)  # knows / and \ and drives
        if path.anchor or ".." in path.parts:
            raise InvalidData(f"{archive.name} holds the path {member!r}, leading out of it: do not use it")
    return [info for member, info in files.items() if wanted(PurePosixPath(member))]
