"""Is a data set on this disk complete and sound: names, pairs, sizes, mask values, checksums, the encoding of depth,
and leaks between the parts of its splits."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from lesionkit.datasets import splits
from lesionkit.datasets.depth import DepthSample, find_depth, read_depth
from lesionkit.datasets.errors import DatasetError, listing
from lesionkit.datasets.leaks import Fingerprint, find_leaks
from lesionkit.datasets.reading import check_size, image_size, read_image, read_mask_values
from lesionkit.datasets.registry import REGISTRY, Entry, folder_of
from lesionkit.datasets.samples import Sample, find_samples

# Official masks hold up to 0.02 % of pixels between these values (anti-aliased or JPEG edges).
UNDECIDED_VALUES = (64, 191)
UNDECIDED_SHARE = 0.01

Digests = tuple[str, str]  # of an image and its mask
Findings = tuple[Sequence[Sample | DepthSample], list[str], list[str]]  # what pairs, problems, notes


@dataclass(frozen=True)
class Report:
    """What `verify` found: `ok` when there is no problem; notes are worth knowing, but no reason to stop."""

    ok: bool
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    images: int


def verify(name: str, root: Path | None = None) -> Report:
    """Check whether a data set is complete and sound, by reading all of it.

    With masks: names, number, pairing, sizes, mask values and checksums, and leaks between the parts of splits. Other
    bytes than the distributed ones (a re-encoded copy) are a note, as long as the content is sound. With depth: pairs,
    sizes and encodings; a part of the set is a note, for the full ones have tens of gigabytes.

    Args:
        name: a registry name or "folder:PATH".
        root: the folder of all data sets; None means `data_root()`.

    Raises:
        UnknownDataset; MissingData when there is no folder, or in it no images/ or masks/.
    """
    folder, entry = folder_of(name, root), REGISTRY.get(name)
    findings = _depth_findings if entry and entry.depth else _mask_findings
    samples, problems, notes = findings(name, entry, folder)
    return Report(not problems, tuple(problems), tuple(notes), len(samples))


# --- depth ------------------------------------------------------------------------------------------------


def _depth_findings(name: str, entry: Entry, folder: Path) -> Findings:
    samples, problems = find_depth(name, folder)
    faults = {sample.name: fault for sample in samples if (fault := _depth_fault(sample, entry))}
    if faults:
        first, names = next(iter(faults.values())), listing(list(faults))
        problems.append(f"{len(faults)} of {len(samples)} frames ({names}) are not sound: {first}")
    if len(samples) == entry.images:
        return samples, problems, []
    return samples, problems, [f"{len(samples)} of the {entry.images} frames of {entry.title} are here"]


def _depth_fault(sample: DepthSample, entry: Entry) -> str:
    try:
        size = image_size(sample.image)
        depth, _ = read_depth(sample)
        check_size(sample.depth, depth.shape[::-1], size, "depth", "frame")
    except DatasetError as error:
        return str(error)
    if size != entry.size_wh:
        return "{} is {}×{}, not {}×{} as the authors' files: fetch those".format(sample.image, *size, *entry.size_wh)
    return ""


# --- masks ------------------------------------------------------------------------------------------------


_FAULTS = {
    "unreadable": "cannot be read: replace the image or the mask",
    "mask size": "have a mask of another size than the image: replace the mask",
    "image size": "are not of the size of this data set: fetch the original files",
    "mask values": "have a mask that is not black and white: a mask holds 0 and 255, or 0 and 1",
    "no lesion": "have a mask without a lesion, though every image of the set shows one: replace the mask",
}


def _mask_findings(name: str, entry: Entry | None, folder: Path) -> Findings:
    samples, problems = find_samples(name, folder)
    stems = [sample.name for sample in samples]
    known = splits.official_files(name) if entry else {}
    prints, faulty = _look_at(samples, entry, known)
    problems += _name_problems(name, set(stems), set(known)) if entry else []
    for kind, sentence in _FAULTS.items():
        if names := faulty[kind]:
            problems.append(f"{len(names)} of {len(samples)} pairs ({listing(names)}) {sentence}")
    notes = []
    if entry and (other := [one.stem for one in prints if not one.official]):
        pairs = f"{len(other)} of {len(samples)} pairs ({listing(other)})"
        notes.append(f"{pairs} have other bytes than the files commonly distributed: a re-encoded copy")
    for split in splits.splits_of(name) if len(samples) >= 3 else ():
        leaks, alike = find_leaks(split, prints, splits.split_stems(name, split, stems))
        problems += leaks
        notes += alike
    return samples, problems, notes


def _name_problems(name: str, stems: set[str], known: set[str]) -> list[str]:
    problems = []
    if absent := sorted(known - stems):
        problems.append(f"{len(absent)} of {len(known)} pairs are missing ({listing(absent)}): fetch again")
    if extra := sorted(stems - known):
        problems.append(f"{len(extra)} pair(s) do not belong to {name} ({listing(extra)}): remove them")
    return problems


def _look_at(
    samples: Iterable[Sample], entry: Entry | None, known: dict[str, Digests]
) -> tuple[list[Fingerprint], dict[str, list[str]]]:
    """Every pair that can be read, and kind of fault -> stems."""
    prints, faulty = [], defaultdict(list)
    for sample in samples:
        try:
            image, values = read_image(sample.image), read_mask_values(sample.mask)
        except DatasetError:
            faulty["unreadable"].append(sample.name)
            continue
        prints.append(_look(sample, image, known.get(sample.name)))
        for kind in _faults(entry, image, values):
            faulty[kind].append(sample.name)
    return prints, faulty


def _look(sample: Sample, image: np.ndarray, official: Digests | None) -> Fingerprint:
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (16, 16), interpolation=cv2.INTER_AREA)
    digests = tuple(hashlib.sha256(path.read_bytes()).hexdigest()[:32] for path in (sample.image, sample.mask))
    pixels = hashlib.sha256(image.tobytes() + str(image.shape).encode()).digest()
    return Fingerprint(sample.name, digests == official, pixels, grey.ravel().astype(np.float32))


def _faults(entry: Entry | None, image: np.ndarray, values: np.ndarray) -> Iterator[str]:
    if values.shape != image.shape[:2]:
        yield "mask size"
    if entry and entry.size_wh and image.shape[1::-1] != entry.size_wh:
        yield "image size"
    low, high = UNDECIDED_VALUES
    # class numbers, say {0, 2}, would be an empty mask after `> 127`; a black JPEG holds a little noise
    top = values.max()
    class_numbers = 16 < top <= 127 or (top <= 16 and (values > 0).mean() > UNDECIDED_SHARE)
    if class_numbers or ((values >= low) & (values <= high)).mean() > UNDECIDED_SHARE:
        yield "mask values"
    elif entry and not (values > 127).any():
        yield "no lesion"
