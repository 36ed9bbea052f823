"""Real data sets: download one, unpack it in one step, and verify what lies there (`verifying`).

A data set appears under its name only when it is complete and sound: everything before that happens in a
hidden folder `.fetching-NAME` beside it, which the next attempt removes if this one is killed. A broken
download starts again from its beginning (Kvasir-SEG has some 50 MB). One process at a time may fetch a set.
"""

import os
import shutil
from collections import defaultdict
from pathlib import Path, PurePosixPath

from lesionkit.datasets import archives
from lesionkit.datasets import samples as datasets
from lesionkit.datasets import splits as splitting
from lesionkit.datasets.samples import InvalidData, MissingData, UnknownDataset
from lesionkit.datasets.verifying import Report, require_sound, verify

__all__ = ["Report", "fetch", "require_sound", "verify"]

IMAGE_FOLDERS = ("images", "image", "original")
MASK_FOLDERS = ("masks", "mask", "ground truth", "groundtruth", "gt")


# --- fetch ------------------------------------------------------------------------------------------------


def fetch(name: str, root: Path | None = None, url: str | None = None) -> Path:
    """Download a data set, arrange it into images/ and masks/, verify it, and only then put it in its place.

    Args:
        name: a registry name.
        root: the folder of all data sets; None means `datasets.data_root()`.
        url: a zip or tar archive to use instead of the authors': http(s)://, file:// or a path.

    Returns:
        The folder that holds images/ and masks/. If it was there and sound, nothing was downloaded.

    Raises:
        UnknownDataset: not a registry name. MissingData: no download possible. InvalidData: the archive, or
        what lies in the place already, is not the data set. DatasetError: the place cannot be written to.
    """
    if name not in datasets.REGISTRY:
        datasets.check_name(name)
        raise UnknownDataset(f"{name} cannot be fetched: choose one of {', '.join(datasets.NAMES)}")
    target = datasets.folder_of(name, root)
    if _is_there(name, target):
        return target
    url = url or datasets.REGISTRY[name].url
    if url is None:
        raise MissingData(_by_hand(name, target))
    work = target.parent / f".fetching-{name}"
    archives.make_empty(work)
    try:
        _unpack(name, archives.obtain(name, url, work), work / name)
        require_sound(name, verify(name, work), f"the archive {url}")
        os.replace(work / name, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _is_there(name: str, target: Path) -> bool:
    """Whether a sound data set is in place already; the user's own files are never overwritten."""
    if not target.exists():
        return False
    if target.is_dir() and not any(target.iterdir()):
        target.rmdir()
        return False
    try:
        require_sound(name, verify(name, target.parent), str(target))
    except MissingData:
        raise InvalidData(f"{target} lacks images/ or masks/: move it away and fetch again") from None
    except InvalidData as error:
        raise InvalidData(f"{error}; or move {target} away and fetch again") from None
    return True


def _by_hand(name: str, target: Path) -> str:
    entry = datasets.REGISTRY[name]
    return (
        f"{name} cannot be downloaded unattended, the authors give {entry.obtain} at {entry.homepage}: get "
        f"it there and put the files into {target / 'images'} and {target / 'masks'} (one stem for an image "
        "and its mask), or fetch it with the address (url) of a zip or tar archive of it"
    )


# --- unpack -----------------------------------------------------------------------------------------------


def _unpack(name: str, archive: Path, target: Path) -> None:
    """Copy the images and masks of an archive into target/images and target/masks."""
    with archives.images_in(name, archive) as members:
        images, masks = _choose(name, members)
        for folder, chosen in (("images", images), ("masks", masks)):
            for stem, member in chosen.items():
                archives.copy(members[member], target / folder / (stem + PurePosixPath(member).suffix.lower()))


def _choose(name: str, members: dict) -> tuple[dict[str, str], dict[str, str]]:
    """The image and the mask folder of an archive that fit the data set's names best, as stem -> member.

    Archives differ: images/ and masks/, or Original/ and Ground Truth/, in several formats or data sets.
    """
    folders: dict[PurePosixPath, dict[str, str]] = defaultdict(dict)
    for member in sorted(members):
        folders[PurePosixPath(member).parent][PurePosixPath(member).stem] = member
    known = splitting.official_files(name).keys()
    best = None
    for masks in (folder for folder in folders if folder.name.lower() in MASK_FOLDERS):
        beside = [folder for folder in folders if folder.parent == masks.parent and folder != masks]
        named = [folder for folder in beside if folder.name.lower() in IMAGE_FOLDERS]
        for images in named or beside:
            fit = len(folders[images].keys() & known) - len(folders[images].keys() - known)
            if best is None or fit > best[0]:
                best = (fit, images, masks)
    if best is None:
        raise InvalidData(f"the archive of {name} holds no images/ beside masks/: is it the right one?")
    return folders[best[1]], _same_stems(folders[best[1]], folders[best[2]])


def _same_stems(images: dict[str, str], masks: dict[str, str]) -> dict[str, str]:
    """ETIS and ColonDB call the mask of image 12 "p12"."""
    return {stem[1:] if stem[0] == "p" and stem[1:] in images else stem: path for stem, path in masks.items()}
