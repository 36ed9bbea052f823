"""Is a data set on this disk complete and sound: names, pairs, sizes, mask values, checksums, and leaks between the
parts of its splits."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from lesionkit.datasets import reading
from lesionkit.datasets import samples as datasets
from lesionkit.datasets import splits as splitting
from lesionkit.datasets.samples import DatasetError, InvalidData, Sample, listing

# Official masks hold up to 0.02 % of pixels between these values (anti-aliased or JPEG edges).
UNDECIDED_VALUES = (64, 191)
UNDECIDED_SHARE = 0.01
# Root mean square distance of 16×16 thumbnails, in grey levels. In Kvasir-SEG near-duplicates lie below 5.7
# and all other pairs above 15; in CVC-ClinicDB this finds frames of a video that follow each other.
NEAR_LEVELS = 8.0


@dataclass(frozen=True)
class Report:
    """What `verify` found: `ok` when there is no problem; notes are worth knowing, but no reason to stop."""

    ok: bool
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    images: int


def require_sound(name: str, report: Report, what: str) -> None:
    """Raise InvalidData unless what was verified (a folder, an archive) is a sound copy of a data set."""
    if not report.ok:
        more = f" (and {len(report.problems) - 1} more problems)" if len(report.problems) > 1 else ""
        raise InvalidData(f"{what} is not a sound copy of {name}: {report.problems[0]}{more}")


@dataclass(frozen=True)
class _PairFacts:
    """One pair, read once."""

    stem: str
    faults: tuple[str, ...]  # kinds of fault, as `_FAULTS` names them
    official: bool  # both files are byte for byte the distributed ones
    pixels: bytes  # digest of the decoded image: equal for two encodings without loss
    thumbnail: np.ndarray  # float32, 16·16 grey levels


def verify(name: str, root: Path | None = None) -> Report:
    """Check names, number, pairing, sizes, mask values and checksums of a data set, and leaks between parts.

    Other bytes than the distributed ones (a re-encoded copy) are a note, as long as the content is sound. Two
    images with equal decoded pixels in two parts of a split are a problem, unless they were published that
    way; images that only look alike are a note per split.

    Args:
        name: a registry name or "folder:PATH".
        root: the folder of all data sets; None means `datasets.data_root()`.

    Raises:
        UnknownDataset; MissingData when there is no folder images/ or masks/.
    """
    folder = datasets.folder_of(name, root)
    samples, problems = datasets.pair_files(name, folder)
    problems = [*problems, *_name_problems(name, {sample.name for sample in samples})]
    looks = [_look(name, sample) for sample in samples]
    problems += _fault_sentences(looks)
    notes = _checksum_notes(name, looks)
    for split in datasets.splits_of(name) if len(looks) >= 3 else ():
        stems = datasets.split_stems(name, split, [look.stem for look in looks])
        part_of = {stem: part for part, members in stems.items() for stem in members}
        leaks, published = _equal_pairs(looks, part_of)
        problems += _pair_sentence(split, "equal", leaks, part_of, ": keep one image of each pair")
        notes += _pair_sentence(split, "equal", published, part_of, ", as published")
        notes += _pair_sentence(split, "near-duplicate", _near_pairs(looks, part_of), part_of, "")
    return Report(not problems, tuple(problems), tuple(notes), len(samples))


def _name_problems(name: str, stems: set[str]) -> list[str]:
    if name not in datasets.REGISTRY:
        return []
    known = splitting.official_files(name).keys()
    problems = []
    if absent := sorted(known - stems):
        problems.append(f"{len(absent)} of {len(known)} pairs are missing ({listing(absent)}): fetch again")
    if extra := sorted(stems - known):
        problems.append(f"{len(extra)} pair(s) do not belong to {name} ({listing(extra)}): remove them")
    return problems


_FAULTS = {
    "unreadable": "cannot be read: replace the image or the mask",
    "mask size": "have a mask of another size than the image: replace the mask",
    "image size": "are not of the size of this data set: fetch the original files",
    "mask values": "have a mask that is not black and white: a mask holds 0 and 255, or 0 and 1",
    "no lesion": "have a mask without a lesion, though every image of the set shows one: replace the mask",
}


def _fault_sentences(looks: list[_PairFacts]) -> list[str]:
    by_kind = {kind: [look.stem for look in looks if kind in look.faults] for kind in _FAULTS}
    return [
        f"{len(stems)} of {len(looks)} pairs ({listing(stems)}) {_FAULTS[kind]}"
        for kind, stems in by_kind.items()
        if stems
    ]


def _look(name: str, sample: Sample) -> _PairFacts:
    try:
        image, values = reading.read_image(sample.image), reading.read_mask_values(sample.mask)
    except DatasetError:
        nothing = np.full(256, np.inf, np.float32)
        return _PairFacts(sample.name, ("unreadable",), False, os.fsencode(sample.name), nothing)
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (16, 16), interpolation=cv2.INTER_AREA)
    return _PairFacts(
        stem=sample.name,
        faults=tuple(_faults(name, image, values)),
        official=_is_official(name, sample),
        pixels=hashlib.sha256(image.tobytes() + str(image.shape).encode()).digest(),
        thumbnail=grey.ravel().astype(np.float32),
    )


def _faults(name: str, image: np.ndarray, values: np.ndarray) -> Iterator[str]:
    entry = datasets.REGISTRY.get(name)
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


def _is_official(name: str, sample: Sample) -> bool:
    if name not in datasets.REGISTRY:
        return False
    have = tuple(hashlib.sha256(path.read_bytes()).hexdigest()[:32] for path in (sample.image, sample.mask))
    return have == splitting.official_files(name).get(sample.name)


def _checksum_notes(name: str, looks: list[_PairFacts]) -> list[str]:
    other = [look.stem for look in looks if not look.official]
    if name not in datasets.REGISTRY or not other:
        return []
    return [
        f"{len(other)} of {len(looks)} pairs ({listing(other)}) have other bytes than the files commonly "
        "distributed: a re-encoded copy"
    ]


# --- leaks between the parts of a split -------------------------------------------------------------------

Pairs = list[tuple[str, str]]


def _equal_pairs(looks: list[_PairFacts], part_of: dict[str, str]) -> tuple[Pairs, Pairs]:
    """Pairs of equal pixels in two parts: those with changed or own files, those published that way."""
    first: dict[bytes, _PairFacts] = {}
    leaks, published = [], []
    for look in (look for look in looks if look.stem in part_of):
        other = first.setdefault(look.pixels, look)
        if part_of[other.stem] != part_of[look.stem]:
            (published if look.official and other.official else leaks).append((other.stem, look.stem))
    return leaks, published


def _near_pairs(looks: list[_PairFacts], part_of: dict[str, str]) -> Pairs:
    """Pairs in two parts with thumbnails closer than NEAR_LEVELS, without the pairs of equal pixels."""
    looks = [look for look in looks if look.stem in part_of and np.isfinite(look.thumbnail[0])]
    thumbnails = np.stack([look.thumbnail for look in looks]) if looks else np.zeros((0, 256), np.float32)
    pairs = []
    for row, look in enumerate(looks):  # row by row: the matrix of a large folder would not fit
        levels = np.sqrt(np.square(thumbnails[row + 1 :] - thumbnails[row]).mean(axis=1))
        for other in (looks[row + 1 + index] for index in np.flatnonzero(levels < NEAR_LEVELS)):
            if part_of[look.stem] != part_of[other.stem] and look.pixels != other.pixels:
                pairs.append((look.stem, other.stem))
    return pairs


def _pair_sentence(split: str, kind: str, pairs: Pairs, part_of: dict[str, str], end: str) -> list[str]:
    if not pairs:
        return []
    shown = [f"{a} in {part_of[a]} and {b} in {part_of[b]}" for a, b in pairs]
    return [f"split {split}: {len(pairs)} {kind} pair(s) of images sit in two parts ({listing(shown)}){end}"]
