"""Images that are equal, or look alike, in two parts of a split: what of an image is compared, and the sentences."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from lesionkit.datasets.samples import Sample
from lesionkit.datasets.splits import PARTS

# Root mean square distance of 16×16 thumbnails, in grey levels. In Kvasir-SEG near-duplicates lie below 5.7
# and all other pairs above 15; in CVC-ClinicDB this finds frames of a video that follow each other.
NEAR_LEVELS = 8.0
NAMED = 3  # pairs that a sentence names
BLOCK = 256  # images compared with all others at once: 20 MB for 20,000


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """What of one pair is compared."""

    stem: str
    official: bool  # image and mask are byte for byte the distributed ones
    has_lesion: bool
    pixels: str  # digest of the decoded image: equal for two encodings without loss
    thumbnail: np.ndarray  # float32, 16·16 grey levels


def fingerprint(sample: Sample, image: np.ndarray, values: np.ndarray, official: tuple[str, str] | None) -> Fingerprint:
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (16, 16), interpolation=cv2.INTER_AREA)
    digests = tuple(hashlib.sha256(path.read_bytes()).hexdigest()[:32] for path in (sample.image, sample.mask))
    pixels = hashlib.sha256(image.tobytes() + str(image.shape).encode()).hexdigest()
    has_lesion = bool((values > 127).any())
    return Fingerprint(sample.name, digests == official, has_lesion, pixels, grey.ravel().astype(np.float32))


def find_leaks(
    split: str, prints: Sequence[Fingerprint], parts: Mapping[str, Sequence[str]]
) -> tuple[list[str], list[str]]:
    """Problems and notes, one sentence each: equal pixels in two parts are a problem, unless they were published that
    way; equal ones in one part, and what only looks alike in two, are a note."""
    part_of = {stem: part for part, stems in parts.items() for stem in stems}
    prints = [one for one in prints if one.stem in part_of]
    where = [f"{one.stem} in {part_of[one.stem]}" for one in prints]
    counts, named = defaultdict(int), defaultdict(list)
    for start, kinds in _alike(prints, np.array([PARTS.index(part_of[one.stem]) for one in prints])):
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


def _alike(prints: Sequence[Fingerprint], parts: np.ndarray) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
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
