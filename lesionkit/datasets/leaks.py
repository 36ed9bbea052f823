"""Leaks: images that are equal, or one alike, in two parts of a split."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lesionkit.datasets.errors import listing

# Root mean square distance of 16×16 thumbnails, in grey levels. In Kvasir-SEG near-duplicates lie below 5.7
# and all other pairs above 15; in CVC-ClinicDB this finds frames of a video that follow each other.
NEAR_LEVELS = 8.0


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """What of one image is compared."""

    stem: str
    official: bool  # image and mask are byte for byte the distributed ones
    pixels: bytes  # digest of the decoded image: equal for two encodings without loss
    thumbnail: np.ndarray  # float32, 16·16 grey levels


def find_leaks(
    split: str, prints: Sequence[Fingerprint], parts: Mapping[str, Sequence[str]]
) -> tuple[list[str], list[str]]:
    """Problems and notes, one sentence each: equal pixels in two parts are a problem, unless they were published that
    way; what only looks alike is a note. parts: part -> stems."""
    part_of = {stem: part for part, stems in parts.items() for stem in stems}
    prints = [one for one in prints if one.stem in part_of]

    def told(kind: str, pairs: list[tuple[Fingerprint, Fingerprint]], end: str) -> list[str]:
        shown = [f"{a.stem} in {part_of[a.stem]} and {b.stem} in {part_of[b.stem]}" for a, b in pairs]
        sentence = f"split {split}: {len(pairs)} {kind} pair(s) of images sit in two parts ({listing(shown)}){end}"
        return [sentence] if pairs else []

    equal = [(a, b) for a, b in _equal_pairs(prints) if part_of[a.stem] != part_of[b.stem]]
    near = [(a, b) for a, b in _near_pairs(prints) if part_of[a.stem] != part_of[b.stem]]
    published = [(a, b) for a, b in equal if a.official and b.official]
    own = [(a, b) for a, b in equal if not (a.official and b.official)]
    problems = told("equal", own, ": keep one image of each pair")
    return problems, told("equal", published, ", as published") + told("near-duplicate", near, "")


def _equal_pairs(prints: Sequence[Fingerprint]) -> Iterator[tuple[Fingerprint, Fingerprint]]:
    """Each image with the first one of the same pixels."""
    first: dict[bytes, Fingerprint] = {}
    for one in prints:
        yield first.setdefault(one.pixels, one), one


def _near_pairs(prints: Sequence[Fingerprint]) -> Iterator[tuple[Fingerprint, Fingerprint]]:
    """Pairs of thumbnails closer than NEAR_LEVELS, without the pairs of equal pixels."""
    thumbnails = np.array([one.thumbnail for one in prints])
    for row, one in enumerate(prints):  # row by row: the matrix of a large folder would not fit
        levels = np.sqrt(np.square(thumbnails[row + 1 :] - thumbnails[row]).mean(axis=1))
        for index in np.flatnonzero(levels < NEAR_LEVELS):
            other = prints[row + 1 + index]
            if one.pixels != other.pixels:
                yield one, other
