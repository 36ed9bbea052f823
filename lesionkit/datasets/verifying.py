"""Is a data set on this disk complete and sound: names, pairs, sizes, mask values, checksums, the encoding of depth,
and leaks between the parts of its splits."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from PIL import Image

from lesionkit.datasets import splits
from lesionkit.datasets.depth import find_depth, read_depth
from lesionkit.datasets.leaks import Fingerprint, find_leaks, fingerprint
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

PROGRESS = 1000  # pairs between two lines that say how far it is

Findings = tuple[int, list[str], list[str]]  # number of samples, problems, notes
Kinds = dict[str, list[str]]  # what holds for some pairs -> their names


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
    sizes and encodings; a part of the set is a note, for the full ones have tens of gigabytes. Of a folder of one's
    own, what `lesionkit run` needs is asked as well: a run begins with this check. Every PROGRESS pairs a line goes to
    stderr.

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
    prints, faulty, odd = _looked_at(name, entry, samples, known)
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
        problems += [] if entry else _lesionless(name, prints, parts)
        leaks, alike = find_leaks(split, prints, parts)
        problems += leaks
        notes += alike
    return len(samples), problems, notes


def _looked_at(
    name: str, entry: Entry | None, samples: Sequence[Sample], known: Mapping[str, tuple[str, str]]
) -> tuple[list[Fingerprint], Kinds, Kinds]:
    """Every pair, read: what is compared of it, and the names of those of which something is wrong, or odd."""
    prints, faulty, odd, reason = [], defaultdict(list), defaultdict(list), ""
    for count, sample in enumerate(samples, 1):
        if count % PROGRESS == 0:
            click.echo(f"{count} of {len(samples)} pairs of {name} read", err=True)
        try:
            image, values = read_image(sample.image), read_mask_values(sample.mask)
        except DatasetError as error:
            reason = reason or str(error)
            faulty[f"cannot be read: {reason}"].append(sample.name)
            continue
        prints.append(fingerprint(sample, image, values, known.get(sample.name)))
        for fault in _faults(entry, image, values):
            faulty[fault].append(sample.name)
        for oddity in () if entry else _oddities(sample, values):
            odd[oddity].append(sample.name)
    return prints, faulty, odd


def _lesionless(name: str, prints: Sequence[Fingerprint], parts: Mapping[str, Sequence[str]]) -> Iterator[str]:
    lesions = {one.stem for one in prints if one.has_lesion}
    for part in (part for part, stems in parts.items() if not lesions & set(stems)):
        why = "so nothing could be learned or measured on it"
        yield (
            f"no image of the {part} part of {name} shows a lesion, {why}: add images with lesions; "
            "parts are dealt by the names"
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
