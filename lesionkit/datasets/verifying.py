"""Is a data set on this disk complete and sound: names, pairs, sizes, mask values, checksums, the encoding of depth;
are images there twice, or do they look alike in two parts of a split."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from PIL import Image
from scipy.spatial.distance import cdist

from lesionkit import files
from lesionkit.datasets import splits
from lesionkit.datasets.depth import find_depth, read_depth_sample
from lesionkit.datasets.masks import is_undecided
from lesionkit.datasets.reading import DatasetError, listing, orientation, read_image
from lesionkit.datasets.registry import REGISTRY, Entry, folder_of
from lesionkit.datasets.samples import Sample, find_samples, open_images, read_values

PROGRESS = 1000  # samples between two lines that say how far it is
# Root mean square distance of 16×16 thumbnails, in grey levels. In Kvasir-SEG near-duplicates lie below 5.7
# and all other pairs above 15; in CVC-ClinicDB this finds frames of a video that follow each other.
NEAR_LEVELS, SIDE = 8.0, 16
NAMED = 3  # pairs that a sentence names
BLOCK = 256  # images compared with all others at once: 30 MB for 20,000
WRONG_SIZE = "are not of the size of this data set: fetch the original files"

Findings = tuple[int, list[str], list[str]]  # number of samples, problems, notes
Kinds = defaultdict[str, list[str]]  # what holds for some samples -> their names


@dataclass(frozen=True)
class Report:
    """What `verify` found: `ok` when there is no problem; notes are worth knowing, but no reason to stop."""

    ok: bool
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    images: int


def verify(name: str, root: Path | None = None) -> Report:
    """Check whether a data set, in `folder_of(name, root)`, is complete and sound, by reading all of it.

    With masks: names, pairs, sizes, mask values, checksums, near-duplicates; other bytes than the distributed ones (a
    re-encoded copy) are a note, as long as the content is sound. With depth: pairs, sizes, encodings; a part of a set
    is a note, for the full ones have tens of gigabytes. A run begins with this check, so that of a folder of one's own
    it asks what a training needs as well. Every PROGRESS pairs a line goes to stderr.

    Raises UnknownDataset; MissingData when there is no folder, or in it no images/ or masks/.
    """
    folder, entry = folder_of(name, root), REGISTRY.get(name)
    findings = _depth_findings if entry and entry.depth else _mask_findings
    findings = _image_findings if entry and not (entry.masks or entry.depth) else findings
    images, problems, notes = findings(name, entry, folder)
    return Report(not problems, tuple(problems), tuple(notes), images)


def _depth_findings(name: str, entry: Entry, folder: Path) -> Findings:
    samples, problems = find_depth(name, folder)
    faulty = Kinds(list)
    for sample, (image, *_) in _read_all(name, samples, read_depth_sample, faulty):
        if image.shape[1::-1] != entry.size_wh:
            faulty[WRONG_SIZE].append(sample.name)
    return len(samples), problems + told(faulty, samples), _part_of(entry, samples)


def _image_findings(name: str, entry: Entry, folder: Path) -> Findings:
    samples = [Sample(path.stem, path, path) for path in open_images(name, folder.parent)]
    faulty = Kinds(list)
    for _ in _read_all(name, samples, lambda sample: read_image(sample.image), faulty):
        pass
    return len(samples), told(faulty, samples), _part_of(entry, samples)


def _part_of(entry: Entry, samples: Sequence) -> list[str]:
    whole = len(samples) == entry.images
    return [] if whole else [f"{len(samples)} of the {entry.images} frames of {entry.title} are here"]


def _mask_findings(name: str, entry: Entry | None, folder: Path) -> Findings:
    samples, problems = find_samples(name, folder)
    stems, known = {sample.name for sample in samples}, splits.official_files(name) if entry else {}
    faulty, odd, copies, thumbnails, lesions = Kinds(list), Kinds(list), Kinds(list), {}, set()
    for sample, (image, values) in _read_all(name, samples, read_values, faulty):
        for fault in _faults(entry, image, values):
            faulty[fault].append(sample.name)
        for oddity in (_other_bytes(sample, known) if known else ()) if entry else _oddities(sample, values):
            odd[oddity].append(sample.name)
        copies[hashlib.sha256(image.tobytes()).hexdigest()].append(sample.name)
        grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        thumbnails[sample.name] = grey.ravel()
        if (values > 127).any():
            lesions.add(sample.name)
    problems, notes = problems + told(faulty, samples), told(odd, samples)
    try:
        dealt = {split: splits.split_stems(name, split, stems) for split in splits.splits_of(name)}
    except DatasetError as error:  # too few images
        return len(samples), [*problems, str(error)], notes
    for split, parts in dealt.items():
        notes += near_duplicates(split, thumbnails, parts)
    if entry and not known:  # nobody says which files there are
        notes += _part_of(entry, samples)
    else:
        problems += _missing(name, stems, set(known)) if entry else _unfit(name, copies, lesions, dealt["hash"])
    return len(samples), problems, notes


def _read_all(name: str, samples: Sequence, read: Callable, faulty: Kinds) -> Iterator[tuple[Any, Any]]:
    """Every sample with what `read` makes of it; those of which it raises DatasetError join the `faulty`."""
    reason = ""
    for count, sample in enumerate(samples, 1):
        if count % PROGRESS == 0:
            click.echo(f"{count} of {len(samples)} pairs of {name} read", err=True)
        try:
            found = read(sample)
        except DatasetError as error:
            reason = reason or str(error)
            faulty[f"are not sound: {reason}"].append(sample.name)
        else:
            yield sample, found


def told(kinds: Kinds, samples: Sequence) -> list[str]:
    return [f"{len(of)} of {len(samples)} pairs ({listing(of)}) {kind}" for kind, of in kinds.items()]


def _missing(name: str, stems: set[str], known: set[str]) -> Iterator[str]:
    if absent := sorted(known - stems):
        yield f"{len(absent)} of {len(known)} pairs are missing ({listing(absent)}): fetch again"
    if extra := sorted(stems - known):
        yield f"{len(extra)} pair(s) do not belong to {name} ({listing(extra)}): remove them"


def _unfit(name: str, copies: Kinds, lesions: set[str], parts: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """What of a folder of one's own stands against a training, though every pair is sound."""
    part_of = {stem: part for part, stems in parts.items() for stem in stems}
    twice = [names for names in copies.values() if len(names) > 1]
    if any(len(set(map(part_of.get, names))) > 1 for names in twice):  # all are named: without one, parts are others
        shown = listing([" and ".join(names) for names in twice])
        yield f"{len(twice)} image(s) are there more than once, some in two parts ({shown}): keep one of each"
    for part in (part for part, stems in parts.items() if not lesions & set(stems)):
        yield f"no image of the {part} part of {name}, dealt by the names, shows a lesion: add images with lesions"


def _faults(entry: Entry | None, image: np.ndarray, values: np.ndarray) -> Iterator[str]:
    """What is wrong with a pair; to be read after "N pairs"."""
    if entry and entry.size_wh and image.shape[1::-1] != entry.size_wh:
        yield WRONG_SIZE
    if is_undecided(values):
        yield "have a mask that is not black and white: a mask holds 0 and 255, or numbers of classes"
    elif entry and not entry.lesion_free and not (values > 127).any():
        yield "have a mask without a lesion, though every image of the set shows one: replace the mask"


def _other_bytes(sample: Sample, known: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    if tuple(files.digest(path)[:32] for path in (sample.image, sample.mask)) != known.get(sample.name):
        yield "have other bytes than the files commonly distributed: a re-encoded copy"


def _oddities(sample: Sample, values: np.ndarray) -> Iterator[str]:
    """What one may not have meant in data of one's own; to be read after "N pairs"."""
    lesion = values > 127
    edge = np.concatenate([lesion[0], lesion[-1], lesion[:, 0], lesion[:, -1]])
    if lesion.min() == lesion.max():
        yield f"have a mask of one value, {'all' if lesion.all() else 'no'} lesion: look whether that is meant"
    elif lesion.mean() > 0.5 and edge.mean() > 0.9:
        yield "have a mask that marks all but some of the middle: look whether black and white are exchanged"
    if _turn(sample.image) not in (1, _turn(sample.mask)):
        yield "have an image that EXIF turns or mirrors: look whether the mask was drawn on the upright image"


def _turn(path: Path) -> int:
    with suppress(Exception), Image.open(path) as picture:  # what Pillow cannot read, OpenCV could
        return orientation(picture)
    return 1


def near_duplicates(
    split: str, thumbnails: Mapping[str, np.ndarray], parts: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    """One sentence, if images in two parts look alike. thumbnails: by name. Block by block, for the distances of all
    images would not fit; and of the pairs, of which a video that hardly moves has millions, the first are kept."""
    count, named = 0, []
    for one, other in combinations(parts, 2):
        rows, columns = ([stem for stem in parts[part] if stem in thumbnails] for part in (one, other))
        seen, against = (np.array([thumbnails[s] for s in part]).reshape(-1, SIDE**2) for part in (rows, columns))
        for start in range(0, len(rows), BLOCK):
            alike = cdist(seen[start : start + BLOCK], against) < SIDE * NEAR_LEVELS
            count += int(alike.sum())
            for row, column in np.argwhere(alike)[: NAMED - len(named)]:
                named.append(f"{rows[start + row]} in {one} and {columns[column]} in {other}")
    if count:
        more = f" and {count - NAMED} more" if count > NAMED else ""
        yield f"split {split}: {count} near-duplicate pair(s) of images sit in two parts ({', '.join(named)}{more})"
