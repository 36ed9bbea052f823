"""Is a data set on this disk complete and sound: names, pairs, sizes, mask values, checksums, the encoding of depth,
and leaks between the parts of its splits."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from lesionkit.datasets import splits
from lesionkit.datasets.depth import find_depth, read_depth
from lesionkit.datasets.reading import (
    DatasetError,
    InvalidData,
    check_size,
    image_size,
    listing,
    read_image,
    read_mask_values,
)
from lesionkit.datasets.registry import REGISTRY, Entry, folder_of
from lesionkit.datasets.samples import Sample, find_samples

# Official masks hold up to 0.02 % of pixels between these values (anti-aliased or JPEG edges).
UNDECIDED_VALUES = (64, 191)
UNDECIDED_SHARE = 0.01
# Root mean square distance of 16×16 thumbnails, in grey levels. In Kvasir-SEG near-duplicates lie below 5.7
# and all other pairs above 15; in CVC-ClinicDB this finds frames of a video that follow each other.
NEAR_LEVELS = 8.0

Findings = tuple[int, list[str], list[str]]  # number of samples, problems, notes


@dataclass(frozen=True)
class Report:
    """What `verify` found: `ok` when there is no problem; notes are worth knowing, but no reason to stop."""

    ok: bool
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    images: int


def verify(name: str, root: Path | None = None) -> Report:
    """Check whether a data set, in `folder_of(name, root)`, is complete and sound, by reading all of it.

    With masks: names, number, pairing, sizes, mask values and checksums, and leaks between the parts of splits. Other
    bytes than the distributed ones (a re-encoded copy) are a note, as long as the content is sound. With depth: pairs,
    sizes and encodings; a part of the set is a note, for the full ones have tens of gigabytes.

    Raises UnknownDataset; MissingData when there is no folder, or in it no images/ or masks/.
    """
    folder, entry = folder_of(name, root), REGISTRY.get(name)
    findings = _depth_findings if entry and entry.depth else _mask_findings
    images, problems, notes = findings(name, entry, folder)
    return Report(not problems, tuple(problems), tuple(notes), images)


def _depth_findings(name: str, entry: Entry, folder: Path) -> Findings:
    samples, problems = find_depth(name, folder)
    faults = {}
    for sample in samples:
        try:
            size = image_size(sample.image)
            check_size(sample.depth, read_depth(sample)[0].shape[::-1], size, "depth", "frame")
            if size != entry.size_wh:
                have, want = ("{}×{}".format(*one) for one in (size, entry.size_wh))
                raise InvalidData(f"{sample.image} is {have}, not {want} as the authors' files: fetch those")
        except DatasetError as error:
            faults[sample.name] = str(error)
    if faults:
        first, names = next(iter(faults.values())), listing(list(faults))
        problems.append(f"{len(faults)} of {len(samples)} frames ({names}) are not sound: {first}")
    note = f"{len(samples)} of the {entry.images} frames of {entry.title} are here"
    return len(samples), problems, [note] if len(samples) != entry.images else []


def _mask_findings(name: str, entry: Entry | None, folder: Path) -> Findings:
    samples, problems = find_samples(name, folder)
    known = splits.official_files(name) if entry else {}
    prints, faulty, notes = [], defaultdict(list), []
    for sample in samples:
        try:
            image, values = read_image(sample.image), read_mask_values(sample.mask)
        except DatasetError:
            faulty["cannot be read: replace the image or the mask"].append(sample.name)
            continue
        prints.append(_fingerprint(sample, image, known.get(sample.name)))
        for fault in _faults(entry, image, values):
            faulty[fault].append(sample.name)
    stems = {sample.name for sample in samples}
    problems += _name_problems(name, stems, set(known)) if entry else []
    problems += [f"{len(of)} of {len(samples)} pairs ({listing(of)}) {fault}" for fault, of in faulty.items()]
    if entry and (other := [one.stem for one in prints if not one.official]):
        pairs = f"{len(other)} of {len(samples)} pairs ({listing(other)})"
        notes.append(f"{pairs} have other bytes than the files commonly distributed: a re-encoded copy")
    for split in splits.splits_of(name) if len(samples) >= 3 else ():
        leaks, alike = _leaks(split, prints, splits.split_stems(name, split, stems))
        problems += leaks
        notes += alike
    return len(samples), problems, notes


def _name_problems(name: str, stems: set[str], known: set[str]) -> list[str]:
    problems = []
    if absent := sorted(known - stems):
        problems.append(f"{len(absent)} of {len(known)} pairs are missing ({listing(absent)}): fetch again")
    if extra := sorted(stems - known):
        problems.append(f"{len(extra)} pair(s) do not belong to {name} ({listing(extra)}): remove them")
    return problems


def _faults(entry: Entry | None, image: np.ndarray, values: np.ndarray) -> Iterator[str]:
    """What is wrong with a pair; to be read after "N pairs"."""
    if values.shape != image.shape[:2]:
        yield "have a mask of another size than the image: replace the mask"
    if entry and entry.size_wh and image.shape[1::-1] != entry.size_wh:
        yield "are not of the size of this data set: fetch the original files"
    low, high = UNDECIDED_VALUES
    # class numbers, say {0, 2}, would be an empty mask after `> 127`; a black JPEG holds a little noise
    top = values.max()
    class_numbers = 16 < top <= 127 or (top <= 16 and (values > 0).mean() > UNDECIDED_SHARE)
    if class_numbers or ((values >= low) & (values <= high)).mean() > UNDECIDED_SHARE:
        yield "have a mask that is not black and white: a mask holds 0 and 255, or 0 and 1"
    elif entry and not (values > 127).any():
        yield "have a mask without a lesion, though every image of the set shows one: replace the mask"


@dataclass(frozen=True, eq=False)
class _Fingerprint:
    """What of one image is compared."""

    stem: str
    official: bool  # image and mask are byte for byte the distributed ones
    pixels: bytes  # digest of the decoded image: equal for two encodings without loss
    thumbnail: np.ndarray  # float32, 16·16 grey levels


def _fingerprint(sample: Sample, image: np.ndarray, official: tuple[str, str] | None) -> _Fingerprint:
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (16, 16), interpolation=cv2.INTER_AREA)
    digests = tuple(hashlib.sha256(path.read_bytes()).hexdigest()[:32] for path in (sample.image, sample.mask))
    pixels = hashlib.sha256(image.tobytes() + str(image.shape).encode()).digest()
    return _Fingerprint(sample.name, digests == official, pixels, grey.ravel().astype(np.float32))


def _leaks(
    split: str, prints: Sequence[_Fingerprint], parts: Mapping[str, Sequence[str]]
) -> tuple[list[str], list[str]]:
    """Problems and notes, one sentence each: equal pixels in two parts are a problem, unless they were published that
    way; what only looks alike is a note."""
    part_of = {stem: part for part, stems in parts.items() for stem in stems}
    prints = [one for one in prints if one.stem in part_of]
    thumbnails = np.array([one.thumbnail for one in prints])
    equal, published, near = [], [], []
    for row, one in enumerate(prints):  # row by row: the matrix of a large folder would not fit
        levels = np.sqrt(np.square(thumbnails[row + 1 :] - thumbnails[row]).mean(axis=1))
        for other in (prints[row + 1 + index] for index in np.flatnonzero(levels < NEAR_LEVELS)):
            if part_of[one.stem] == part_of[other.stem]:
                continue
            kind = near
            if one.pixels == other.pixels:
                kind = published if one.official and other.official else equal
            kind.append(f"{one.stem} in {part_of[one.stem]} and {other.stem} in {part_of[other.stem]}")

    def told(kind: str, pairs: list[str], end: str) -> list[str]:
        sentence = f"split {split}: {len(pairs)} {kind} pair(s) of images sit in two parts ({listing(pairs)}){end}"
        return [sentence] if pairs else []

    notes = told("equal", published, ", as published") + told("near-duplicate", near, "")
    return told("equal", equal, ": keep one image of each pair"), notes
