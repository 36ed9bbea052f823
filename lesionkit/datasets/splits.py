"""Which image is in which part: published splits, read from facts/, and how images are dealt without them."""

import csv
import hashlib
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache

from lesionkit.datasets.reading import InvalidData
from lesionkit.datasets.registry import FACTS, REGISTRY, check_name, is_folder

PARTS = ("train", "validation", "test")


def splits_of(name: str) -> tuple[str, ...]:
    """The names of a data set's splits, the default first; where none was published there is one, "hash"."""
    published = {} if is_folder(name) else REGISTRY[check_name(name)].splits
    return tuple(published) or ("hash",)


def split_stems(name: str, split: str | None = None, stems: Iterable[str] = ()) -> dict[str, tuple[str, ...]]:
    """train, validation, test -> stems, of one of `splits_of(name)`; None means the first.

    Published splits have a training and a test part; a tenth of the training part (whole video sequences, whole groups
    of near-duplicates) becomes the validation part, chosen by a stable hash. All their names are listed, at hand or
    not. The split "hash" deals out `stems`, 70/15/15 by the same hash. It knows nothing of videos: frames of one video
    may fall on both sides. Raises UnknownDataset; InvalidData: unknown split, or fewer than 3 stems for "hash".
    """
    allowed = splits_of(name)
    split = allowed[0] if split is None else split
    if split not in allowed:
        raise InvalidData(f"{name} has no split {split!r}: choose one of {', '.join(allowed)}")
    if split == "hash":
        return hash_parts(name, sorted(stems))
    train, test = map(fact_lines, REGISTRY[name].splits[split])
    held_out = tenth(train, groups_of(name))
    return {
        "train": tuple(stem for stem in train if stem not in held_out),
        "validation": tuple(stem for stem in train if stem in held_out),
        "test": test,
    }


def hash_parts(name: str, stems: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """train, validation, test -> stems, 70/15/15 by a stable hash. Raises InvalidData for fewer than 3 stems."""
    if len(stems) < 3:
        raise InvalidData(f"{name} has {len(stems)} image(s): a split needs 3 or more, add some")
    ordered = sorted(stems, key=rank)
    share = max(1, round(0.15 * len(ordered)))
    parts = {"train": ordered[2 * share :], "validation": ordered[share : 2 * share], "test": ordered[:share]}
    return {part: tuple(sorted(chosen)) for part, chosen in parts.items()}


def tenth(stems: Sequence[str], groups: dict[str, str]) -> set[str]:
    """Whole groups, in the order of their hashes, as long as they fit into a tenth of `stems`."""
    members: dict[str, list[str]] = {}
    for stem in stems:
        members.setdefault(groups.get(stem, stem), []).append(stem)
    taken: set[str] = set()
    for key in sorted(members, key=rank):
        if len(taken) + len(members[key]) <= round(len(stems) / 10):
            taken.update(members[key])
    return taken


def rank(text: str) -> str:
    """What names are put in order by before they are dealt out."""
    # Python's hash() differs between processes; this one is the same everywhere
    return hashlib.sha256(unicodedata.normalize("NFC", text).encode(errors="surrogateescape")).hexdigest()


@cache
def fact_lines(filename: str) -> tuple[str, ...]:
    """The lines of a file in facts/, without blank lines and comments."""
    lines = (FACTS / filename).read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


def official_files(name: str) -> dict[str, tuple[str, str]]:
    """stem -> the first 32 hex digits of the SHA-256 of the image and of the mask as commonly distributed. Empty for a
    set whose files are not listed."""
    if not (FACTS / f"{name}_sha256.txt").is_file():
        return {}
    return {stem: (image, mask) for stem, image, mask in map(str.split, fact_lines(f"{name}_sha256.txt"))}


def groups_of(name: str) -> dict[str, str]:
    """stem -> key of its group, a video sequence (CVC-ClinicDB) or near-duplicates (Kvasir-SEG), which must stay on one
    side of a split; stems that stand alone are left out."""
    if name == "cvc-clinicdb":
        rows = csv.DictReader(fact_lines("cvc_clinicdb_frame_to_sequence.csv"))
        return {row["frame"]: row["sequence"] for row in rows}
    if name == "kvasir-seg":
        alike = map(str.split, fact_lines("kvasir_near_duplicates.txt"))
        return {stem: stems[0] for stems in alike for stem in stems}
    return {}
