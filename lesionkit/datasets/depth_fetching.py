"""Data sets with depth: take one out of the authors' archives, and verify what lies there.

The authors hand these sets out in several archives of many gigabytes behind a web page, so nothing is downloaded
unless an address is given. Each archive adds its sequences; one appears only when all its frames are there and sound.
"""

import os
import shutil
from pathlib import Path
from urllib.parse import urlsplit

from lesionkit.datasets import archives, reading
from lesionkit.datasets import depth as depth_datasets
from lesionkit.datasets.depth import DepthSample
from lesionkit.datasets.reading import DatasetError, InvalidData, MissingData
from lesionkit.datasets.samples import listing
from lesionkit.datasets.verifying import Report, require_sound


def fetch(name: str, root: Path | None = None, url: str | None = None) -> Path:
    """Copy the frames and depth of an archive into the data set's folder, keeping the folders of its sequences.

    Poses, meshes, normals and flow are left in the archive. Sequences that are in the folder already are kept.

    Args:
        name: one of `depth_datasets.NAMES`.
        root: the folder of all data sets; None means `datasets.data_root()`.
        url: a zip or tar archive: http(s)://, file:// or a path. None only asks whether a sound set is in place.

    Returns:
        The folder of the data set.

    Raises:
        UnknownDataset. MissingData: no address given, or no download possible. InvalidData: the archive, or what
        lies in the place already, is not sound. DatasetError: the place cannot be written to.
    """
    target = depth_datasets.folder_of(name, root)
    if url is None:
        if not target.is_dir() or not any(target.iterdir()):
            raise MissingData(_by_hand(name, target))
        require_sound(name, _verify(name, target), str(target))
        return target
    work = target.parent / f".fetching-{name}"
    archives.make_empty(work)
    try:
        _unpack(name, url, archives.obtain(name, url, work), work / name)
        require_sound(name, _verify(name, work / name), f"the archive {url}")
        _move_in(work / name, target)
        require_sound(name, _verify(name, target), str(target))  # what lay there already is checked as well
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _by_hand(name: str, target: Path) -> str:
    entry = depth_datasets.entry_of(name)
    return (
        f"{name} cannot be downloaded unattended, the authors give {entry.obtain} at {entry.homepage}: get it there "
        f"and unpack it into {target}, names and folders unchanged, or fetch it with the address (url) of each archive"
    )


def _unpack(name: str, url: str, archive: Path, target: Path) -> None:
    entry = depth_datasets.entry_of(name)
    loose = Path(urlsplit(url).path).stem or name  # a sequence at the top of its archive must not meet another
    with archives.images_in(name, archive) as members:
        for member, opened in members.items():
            if any(depth_datasets.frame_name(pattern, member) for pattern in (entry.image, entry.depth)):
                archives.copy(opened, target / (member if "/" in member else f"{loose}/{member}"))
    if not target.is_dir():
        raise InvalidData(f"the archive {url} holds no frame of {name}: is it the right one?")


def _move_in(work: Path, target: Path) -> None:
    """Each folder that holds files in one step; the user's own files are never overwritten."""
    for folder in sorted({path.parent for path in work.rglob("*") if path.is_file()}):
        place = target / folder.relative_to(work)
        if place.exists() and any(place.iterdir()):
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(place, ignore_errors=True)  # empty: Windows would not replace it
        os.replace(folder, place)


# --- verify -----------------------------------------------------------------------------------------------


def verify(name: str, root: Path | None = None) -> Report:
    """Check pairs, sizes and encodings: every depth file is decoded, every frame is checked to be whole.

    A part of the data set is a note, not a problem, for the full ones have tens of gigabytes. No checksums of these
    sets are known to the kit.

    Args:
        name: one of `depth_datasets.NAMES`.
        root: the folder of all data sets; None means `datasets.data_root()`.

    Raises:
        UnknownDataset; MissingData when there is no folder.
    """
    return _verify(name, depth_datasets.folder_of(name, root))


def _verify(name: str, folder: Path) -> Report:
    entry = depth_datasets.entry_of(name)
    samples, problems = depth_datasets.pair_files(name, folder)
    faults = {sample.name: fault for sample in samples if (fault := _fault(sample))}
    if faults:
        first = next(iter(faults.values()))
        names = listing(list(faults))
        problems = [*problems, f"{len(faults)} of {len(samples)} frames ({names}) are not sound: {first}"]
    notes = []
    if len(samples) != entry.images:
        notes.append(f"{len(samples)} of the {entry.images} frames of {entry.title} are here")
    return Report(not problems, tuple(problems), tuple(notes), len(samples))


def _fault(sample: DepthSample) -> str:
    want_w, want_h = depth_datasets.entry_of(sample.dataset).size_wh
    try:
        width, height = reading.image_size(sample.image)
        depth, _ = depth_datasets.read_depth(sample)
        depth_datasets.check_size(sample, depth.shape[::-1], (width, height))
    except DatasetError as error:
        return str(error)
    if (width, height) != (want_w, want_h):
        return f"{sample.image} is {width}×{height}, not {want_w}×{want_h} as the authors' files: fetch those"
    return ""
