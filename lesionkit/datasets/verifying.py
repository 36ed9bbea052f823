"""Is a data set on this disk complete and sound: names, pairs, sizes, mask values, checksums, the encoding of depth,
and leaks between the parts of its splits."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import click
import cv2
import numpy as np
from PIL import Image

from lesionkit.datasets import splits
from lesionkit.datasets.depth import find_depth, read_depth
from lesionkit.datasets.masks import is_undecided
from lesionkit.datasets.reading import (
    DatasetError,
    InvalidData,
    check_size,
    image_size,
    listing,
    orientation,
    read_image,
    read_mask_values,
)
from lesionkit.datasets.registry import REGISTRY, Entry, folder_of
from lesionkit.datasets.samples import Sample, find_samples

# Root mean square distance of 16×16 thumbnails, in grey levels. In Kvasir-SEG near-duplicates lie below 5.7
# and all other pairs above 15; in CVC-ClinicDB this finds frames of a video that follow each other.
NEAR_LEVELS = 8.0
NAMED = 3  # pairs that a sentence names
BLOCK = 256  # images compared with all others at once: 20 MB for 20,000
PROGRESS = 1000  # pairs between two lines that say how far it is

Log = Callable[[str], object]
Findings = tuple[int, list[str], list[str]]  # number of samples, problems, notes
Kinds = dict[str, list[str]]  # what holds for some pairs -> their names


@dataclass(frozen=True)
class Report:
    """What `verify` found: `ok` when there is no problem; notes are worth knowing, but no reason to stop."""

    ok: bool
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    images: int


def _to_stderr(line: str) -> None:
    click.echo(line, err=True)


def verify(name: str, root: Path | None = None, log: Log = _to_stderr) -> Report:
    """Check whether a data set, in `folder_of(name, root)`, is complete and sound, by reading all of it.

    With masks: names, number, pairing, sizes, mask values and checksums, and leaks between the parts of splits. Other
    bytes than the distributed ones (a re-encoded copy) are a note, as long as the content is sound. With depth: pairs,
    sizes and encodings; a part of the set is a note, for the full ones have tens of gigabytes. Of a folder of one's
    own, what `lesionkit run` needs is asked as well: a run begins with this check. log: gets a line every PROGRESS
    pairs.

    Raises UnknownDataset; MissingData when there is no folder, or in it no images/ or masks/.
    """
    folder, entry = folder_of(name, root), REGISTRY.get(name)
    if entry and entry.depth:
        images, problems, notes = _depth_findings(name, entry, folder)
    else:
        images, problems, notes = _mask_findings(name, entry, folder, log)
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


def _mask_findings(name: str, entry: Entry | None, folder: Path, log: Log) -> Findings:
    samples, problems = find_samples(name, folder)
    known = splits.official_files(name) if entry else {}
    prints, faulty, odd = _looked_at(name, entry, samples, known, log)
    stems = {sample.name for sample in samples}
    problems += _name_problems(name, stems, set(known)) if entry else []

    def told(kinds: Mapping[str, list[str]]) -> list[str]:
        return [f"{len(of)} of {len(samples)} pairs ({listing(of)}) {kind}" for kind, of in kinds.items()]

    problems += told(faulty)
    notes = told(odd)
    if entry and (other := [one.stem for one in prints if not one.official]):
        notes += told({"have other bytes than the files commonly distributed: a re-encoded copy": other})
    for split in splits.splits_of(name):
        try:
            parts = splits.split_stems(name, split, stems)
        except InvalidData as error:  # too few
            return len(samples), [*problems, str(error)], notes
        problems += [] if entry else _parts_without_lesion(name, prints, parts)
        leaks, alike = _leaks(split, prints, parts)
        problems += leaks
        notes += alike
    return len(samples), problems, notes


def _looked_at(
    name: str, entry: Entry | None, samples: Sequence[Sample], known: Mapping[str, tuple[str, str]], log: Log
) -> tuple[list["_Fingerprint"], Kinds, Kinds]:
    """Every pair, read: what is compared of it, and the names of those of which something is wrong, or odd."""
    prints, faulty, odd, reason = [], defaultdict(list), defaultdict(list), ""
    for count, sample in enumerate(samples, 1):
        if count % PROGRESS == 0:
            log(f"{count} of {len(samples)} pairs of {name} read")
        try:
            image, values = read_image(sample.image), read_mask_values(sample.mask)
        except DatasetError as error:
            reason = reason or str(error)
            faulty[f"cannot be read: {reason}"].append(sample.name)
            continue
        prints.append(_fingerprint(sample, image, values, known.get(sample.name)))
        for fault in _faults(entry, image, values):
            faulty[fault].append(sample.name)
        for oddity in () if entry else _oddities(sample, values):
            odd[oddity].append(sample.name)
    return prints, faulty, odd


def _parts_without_lesion(
    name: str, prints: Sequence["_Fingerprint"], parts: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    lesions = {one.stem for one in prints if one.has_lesion}
    for part in (part for part, stems in parts.items() if not lesions & set(stems)):
        yield (
            f"no image of the {part} part of {name} shows a lesion, so nothing could be learned or measured on it: "
            "add images with lesions; parts are dealt by the names"
        )


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
        turned = values.shape == image.shape[1::-1]
        advice = "turn the mask by a quarter, as EXIF turns the image upright" if turned else "replace the mask"
        yield f"have a mask of another size than the image: {advice}"
    if entry and entry.size_wh and image.shape[1::-1] != entry.size_wh:
        yield "are not of the size of this data set: fetch the original files"
    if is_undecided(values):
        yield "have a mask that is not black and white: a mask holds 0 and 255, or numbers of classes"
    elif entry and not (values > 127).any():
        yield "have a mask without a lesion, though every image of the set shows one: replace the mask"


def _oddities(sample: Sample, values: np.ndarray) -> Iterator[str]:
    """What one may not have meant in data of one's own; to be read after "N pairs"."""
    lesion = values > 127
    edge = np.concatenate([lesion[0], lesion[-1], lesion[:, 0], lesion[:, -1]])
    if not lesion.any():
        yield "have a mask of one value: no lesion"
    elif lesion.all():
        yield "have a mask of one value: all is lesion; look whether that is meant"
    elif lesion.mean() > 0.5 and edge.mean() > 0.9:
        yield "have a mask that marks all but some of the middle: look whether black and white are exchanged"
    if _turn(sample.image) not in (1, _turn(sample.mask)):
        yield "have an image that EXIF turns or mirrors: look whether the mask was drawn on the upright image"


def _turn(path: Path) -> int:
    with suppress(Exception), Image.open(path) as picture:  # what Pillow cannot read, OpenCV could
        return orientation(picture)
    return 1


@dataclass(frozen=True, eq=False)
class _Fingerprint:
    """What of one pair is compared."""

    stem: str
    official: bool  # image and mask are byte for byte the distributed ones
    has_lesion: bool
    pixels: str  # digest of the decoded image: equal for two encodings without loss
    thumbnail: np.ndarray  # float32, 16·16 grey levels


def _fingerprint(
    sample: Sample, image: np.ndarray, values: np.ndarray, official: tuple[str, str] | None
) -> _Fingerprint:
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (16, 16), interpolation=cv2.INTER_AREA)
    digests = tuple(hashlib.sha256(path.read_bytes()).hexdigest()[:32] for path in (sample.image, sample.mask))
    pixels = hashlib.sha256(image.tobytes() + str(image.shape).encode()).hexdigest()
    has_lesion = bool((values > 127).any())
    return _Fingerprint(sample.name, digests == official, has_lesion, pixels, grey.ravel().astype(np.float32))


def _leaks(
    split: str, prints: Sequence[_Fingerprint], parts: Mapping[str, Sequence[str]]
) -> tuple[list[str], list[str]]:
    """Problems and notes, one sentence each: equal pixels in two parts are a problem, unless they were published that
    way; equal ones in one part, and what only looks alike in two, are a note."""
    part_of = {stem: part for part, stems in parts.items() for stem in stems}
    prints = [one for one in prints if one.stem in part_of]
    where = [f"{one.stem} in {part_of[one.stem]}" for one in prints]
    counts, named = defaultdict(int), defaultdict(list)
    for start, kinds in _alike(prints, np.array([splits.PARTS.index(part_of[one.stem]) for one in prints])):
        for kind, alike in kinds.items():
            counts[kind] += int(alike.sum())
            first = np.argwhere(alike)[: NAMED - len(named[kind])]  # a video that hardly moves has millions of pairs
            named[kind] += [f"{where[start + row]} and {where[column]}" for row, column in first]

    def told(kind: str, sentence: str) -> list[str]:
        count = counts[kind]
        pairs = ", ".join(named[kind]) + (f" and {count - NAMED} more" if count > NAMED else "")
        return [f"split {split}: {count} {sentence.format(pairs)}"] if count else []

    also = f" and of the {counts['equal here']} in one part" if counts["equal here"] else ""
    problems = told("equal", f"equal pair(s) of images sit in two parts ({{}}): keep one image of each pair{also}")
    notes = told("published", "equal pair(s) of images sit in two parts ({}), as published")
    notes += told("equal here", "equal pair(s) of images sit in one part ({}): each counts twice")
    return problems, notes + told("near", "near-duplicate pair(s) of images sit in two parts ({})")


def _alike(prints: Sequence[_Fingerprint], parts: np.ndarray) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Block by block of the images, for all images would not fit: its first one's number, and which of it (rows) is
    like which of all (columns), each pair once, by kind. parts: n numbers."""
    official, order = np.array([one.official for one in prints]), np.arange(len(prints))
    same = np.unique([one.pixels for one in prints], return_inverse=True)[1]
    thumbnails = np.array([one.thumbnail for one in prints])
    squares = np.square(thumbnails).sum(axis=-1)
    for start in range(0, len(prints), BLOCK):
        rows = slice(start, start + BLOCK)
        apart, here = parts[rows, None] < parts, (parts[rows, None] == parts) & (order[rows, None] < order)
        equal, published = same[rows, None] == same, official[rows, None] & official
        distances = squares[rows, None] + squares - 2 * thumbnails[rows] @ thumbnails.T
        near = distances < thumbnails.shape[1] * NEAR_LEVELS**2
        kinds = {"equal": apart & equal & ~published, "published": apart & equal & published}
        yield start, kinds | {"equal here": here & equal & ~published, "near": apart & near & ~equal}
