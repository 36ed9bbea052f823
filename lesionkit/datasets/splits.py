"""The published facts in splits/ (names, splits, checksums), and how images are dealt into parts without them."""

import csv
import hashlib
import unicodedata
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from lesionkit.datasets.reading import InvalidData

PARTS = ("train", "validation", "test")

# (data set, split) -> the files in splits/ that list its training and its test part
SPLIT_FILES = {
    ("kvasir-seg", "pranet"): ("pranet_kvasir_train900.txt", "pranet_kvasir_test100.txt"),
    ("kvasir-seg", "medico2020"): ("kvasir_medico2020_train880.txt", "kvasir_medico2020_val120.txt"),
    ("cvc-clinicdb", "pranet"): ("pranet_clinicdb_train550.txt", "pranet_clinicdb_test62.txt"),
    ("cvc-clinicdb", "sequence"): ("clinicdb_by_sequence_train.txt", "clinicdb_by_sequence_test.txt"),
}


# --- the facts in splits/ ---------------------------------------------------------------------------------


@cache
def fact_lines(filename: str) -> tuple[str, ...]:
    """The lines of a file in splits/, without blank lines and comments."""
    text = (files("lesionkit.datasets") / "facts" / filename).read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line and not line.startswith("#"))


def official_files(name: str) -> dict[str, tuple[str, str]]:
    """stem -> the first 32 hex digits of the SHA-256 of the image and of the mask as commonly distributed."""
    rows = (line.split() for line in fact_lines(f"{name}_sha256.txt"))
    return {stem: (image, mask) for stem, image, mask in rows}


def sequences() -> dict[str, str]:
    """CVC-ClinicDB: frame (stem) -> video sequence, both as decimal text."""
    rows = csv.DictReader(fact_lines("cvc_clinicdb_frame_to_sequence.csv"))
    return {row["frame"]: row["sequence"] for row in rows}


def groups_of(name: str) -> dict[str, str]:
    """stem -> key of the group that must stay on one side of a split; stems that stand alone are left out."""
    if name == "cvc-clinicdb":
        return sequences()
    if name == "kvasir-seg":
        lines = [line.split() for line in fact_lines("kvasir_near_duplicates.txt")]
        return {stem: stems[0] for stems in lines for stem in stems}
    return {}


# --- dealing ----------------------------------------------------------------------------------------------


def published_parts(name: str, split: str) -> dict[str, tuple[str, ...]]:
    """train, validation, test -> stems of a published split; a tenth of its training part is the validation part."""
    train, test = (fact_lines(filename) for filename in SPLIT_FILES[name, split])
    held_out = tenth(train, groups_of(name))
    return {
        "train": tuple(stem for stem in train if stem not in held_out),
        "validation": tuple(stem for stem in train if stem in held_out),
        "test": test,
    }


def _rank(text: str) -> str:
    # Python's hash() differs between processes; this one is the same everywhere
    return hashlib.sha256(unicodedata.normalize("NFC", text).encode(errors="surrogateescape")).hexdigest()


def tenth(stems: Sequence[str], groups: dict[str, str]) -> set[str]:
    """Whole groups, in the order of their hashes, as long as they fit into a tenth of `stems`."""
    members: dict[str, list[str]] = {}
    for stem in stems:
        members.setdefault(groups.get(stem, stem), []).append(stem)
    taken: set[str] = set()
    for key in sorted(members, key=_rank):
        if len(taken) + len(members[key]) <= round(len(stems) / 10):
            taken.update(members[key])
    return taken


def hash_parts(name: str, stems: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """train, validation, test -> stems, 70/15/15 by a stable hash. Raises InvalidData for fewer than 3 stems."""
    if len(stems) < 3:
        raise InvalidData(f"{name} has {len(stems)} image(s): a split needs 3 or more, add some")
    ordered = sorted(stems, key=_rank)
    share = max(1, round(0.15 * len(ordered)))
    cuts = {"test": ordered[:share], "validation": ordered[share : 2 * share], "train": ordered[2 * share :]}
    return {part: tuple(sorted(cuts[part])) for part in PARTS}
