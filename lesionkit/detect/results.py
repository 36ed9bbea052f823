"""What an output folder holds and whose that is.

Ours is what detections.json names. An entry's pictures are called after its `input`, or `stem` where that was taken;
its file is the one called `input`, or `file`, a path from the folder, where `input` might become another one's name.
What a killed call left without an entry stands in CLAIMS, a file that is there only while a call is.
"""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unicodedata import normalize

from lesionkit.datasets.reading import listing
from lesionkit.detect.outputs import ENDINGS, RESULTS

CLAIMS = ".detections.claims"
FRAME = re.compile(r"_\d{6,}$")
INPUT = re.compile(r"(.*?)(?:#frame=(\d+))?", re.DOTALL)
Entry = dict[str, Any]


class UsageError(ValueError):
    """What was asked for cannot be done at all, whatever the inputs are; one sentence."""


@dataclass(frozen=True)
class Source:
    """One file to read, under its name in detections.json; or why an argument gives none, and then `path` is None."""

    input: str
    path: Path | None = None
    stem: str = ""  # what its outputs are called
    error: str = ""
    kind: str = "image"  # or of several frames: "stack", "video"
    file: str = ""  # its path from the output folder

    @property
    def marks(self) -> Entry:
        """What its entries say where `input` alone would not tell the file or its pictures."""
        stem = {} if self.stem == Path(self.input).stem else {"stem": self.stem}
        return stem if str(self.path.resolve()) == self.input else stem | {"file": self.file}


def place_from(out: Path, path: Path) -> str:
    """The path of a file from the output folder: the same from wherever a call is made, and when both are moved."""
    try:
        return Path(os.path.relpath(path.resolve(), out.resolve())).as_posix()
    except ValueError:  # on another drive
        return path.resolve().as_posix()


def reserved(stem: str, several: bool) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """What a stem takes for itself, and what must be free for it. Frames of `several` called a are a_000025, so that an
    image of that name must not meet them. macOS and Windows take A.png and a.png for one, macOS both forms of ä."""
    name = normalize("NFC", stem).lower()
    mine, other = ("several", "one") if several else ("one", "several")
    of = name if several else FRAME.sub("", name)
    return {("stem", name), (mine, of)}, {("stem", name), (other, of)}


class Held:
    """What a folder holds. Raises UsageError for a detections.json that is not ours.

    `entries` and the `files` they are of go by what the pictures are called, or by a slash and the input of an error;
    `stems` says of files what their pictures are called, `taken` what is `reserved` for them.
    """

    def __init__(self, out: Path):
        self.out, self.entries, self.files, self.stems, self.taken = out, {}, {}, {}, set()
        places: dict[str, str] = {}  # a video has thousands of entries
        for entry in _entries(out / RESULTS):
            name, number = INPUT.fullmatch(entry["input"]).groups()
            places[name] = entry.get("file") or places.get(name) or place_from(out, Path(name))
            stem = entry.get("stem", Path(name).stem)
            key = f"{stem}_{int(number):06d}" if number else stem
            if "error" in entry:
                key = f"/{entry['input']}"
            else:
                self.stems[places[name]] = stem
                self.taken |= reserved(stem, number is not None)[0]
            self.entries[key], self.files[key] = entry, places[name]
        self.claims: dict[str, str] = _json(out / CLAIMS, {}) or {}
        self.stems = self.claims | self.stems
        self.taken.update(*(reserved(stem, several)[0] for stem in self.claims.values() for several in (True, False)))
        self.claimed = {stem: file for file, stem in self.claims.items()}

    @property
    def finished(self) -> list[str]:
        return [key for key in self.entries if not key.startswith("/")]

    def owner(self, picture: str) -> str | None:
        """The file of which a picture of this stem is; None if it is none of ours."""
        return self.files.get(picture) or self.claimed.get(picture) or self.claimed.get(FRAME.sub("", picture))

    def is_ours(self, name: str) -> bool:
        """Whether a file of this name in the folder is a result."""
        return name == RESULTS or any(self.owner(stem) for stem in _stems(name))

    def check(self, found: Sequence[Source], resume: bool) -> None:
        """Raise UsageError where a call would replace what is not its own: results of other inputs, unless it adds to
        them, or the user's own a_mask.png, wherever that is and whether or not it is an input itself."""
        asked = {source.file for source in found}
        others = [self.entries[key]["input"] for key in self.finished if self.files[key] not in asked]
        if others and not resume:
            what = f"holds results of other inputs ({listing(sorted({INPUT.fullmatch(name)[1] for name in others}))})"
            raise UsageError(f"{self.out} {what}: give another --out, or add to them with --resume")
        inputs = {source.path.resolve() for source in found if source.path}
        owners = {one.stem if one.kind == "image" else f"{one.stem}/": one for one in found if one.path}
        for path in sorted(self.out.resolve().glob("*")):
            for stem in _stems(path.name):
                source = owners.get(stem) or owners.get(FRAME.sub("/", stem))  # of a/ are all a_000025
                free = source is None or (self.owner(stem) == source.file and path not in inputs)
                if not free and path.is_file():
                    raise UsageError(f"{path} exists and a result would overwrite it: give another --out")


def _stems(name: str) -> list[str]:
    return [name.removesuffix(ending) for ending in ENDINGS if name.endswith(ending)]


def _entries(results: Path) -> list[Entry]:
    entries = _json(results, [])
    if isinstance(entries, list) and all(isinstance(entry, dict) and "input" in entry for entry in entries):
        return entries
    raise UsageError(f"{results.resolve()} exists and is not ours: give another --out")


def _json(path: Path, default: Any) -> Any:
    if not path.is_file():
        return default
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
