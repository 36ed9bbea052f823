"""What an output folder holds, whose that is, and detections.json while a call adds to it.

Ours is what detections.json names. An entry's pictures are called after its `input`, or `stem` where that was taken;
its file is the one called `input`, or `file`, a path from the folder, where `input` might become another one's name.
CLAIMS says the same of the pictures that a call is about to make, which a kill may leave without an entry.
"""

import json
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unicodedata import normalize

import filelock

from lesionkit import files
from lesionkit.datasets.reading import listing
from lesionkit.detect.outputs import ENDINGS, RESULTS

CLAIMS, LOCK = ".detections.claims", ".detections.lock"  # there only while a call is, or after a kill
FRAME = re.compile(r"_\d{6,}$")
INPUT = re.compile(r"(.*?)(?:#frame=(\d+))?", re.DOTALL)
WRITE_S = 1.0  # seconds between two writings of detections.json, more where one takes long
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
    """What a folder holds: `entries`, and the `files` they are of, by what their pictures are called, or by a slash and
    the input of an error; `stems`, what a file's pictures are called; `taken`, what is `reserved` for them. Raises
    UsageError for a detections.json that is not ours."""

    def __init__(self, out: Path):
        self.out, self.entries, self.files, self.taken = out, {}, {}, set()
        self.claims = {claim["input"]: claim["stem"] for claim in _entries(out / CLAIMS)}
        self.claimed = {stem: file for file, stem in self.claims.items()}
        self.stems, places = dict(self.claims), {}  # a video has thousands of entries, and one place
        for entry in _entries(out / RESULTS):
            name, number = INPUT.fullmatch(entry["input"]).groups()
            file = places[name] = entry.get("file") or places.get(name) or place_from(out, Path(name))
            stem = entry.get("stem", Path(name).stem)
            key = f"{stem}_{int(number):06d}" if number else stem
            key = f"/{entry['input']}" if "error" in entry else key
            self.entries[key], self.files[key] = entry, file
            if "error" not in entry:
                self.stems[file] = stem
                self.taken |= reserved(stem, number is not None)[0]
        self.taken.update(*(reserved(stem, several)[0] for stem in self.claimed for several in (True, False)))

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
        others = {INPUT.fullmatch(self.entries[key]["input"])[1] for key, file in self.files.items()
                  if key[0] != "/" and file not in asked}  # fmt: skip
        if others and not resume:
            what = f"{self.out} holds results of other inputs ({listing(sorted(others))})"
            raise UsageError(f"{what}: give another --out, or add to them with --resume")
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


def _entries(path: Path) -> list[Entry]:
    if not path.is_file():
        return []
    with suppress(OSError, ValueError, TypeError, KeyError):
        entries = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(entries, list) and all(isinstance(entry["input"], str) for entry in entries):
            return entries
    raise UsageError(f"{path.resolve()} exists and is not ours: give another --out")


class Log:
    """The entries that a folder keeps until this call replaces them, and those that it adds; `finished` are the
    pictures that a call which goes on need not make again."""

    def __init__(self, held: Held, found: Sequence[Source], resume: bool):
        self.out, self.path = held.out, held.out / RESULTS
        self.asked = {source.file: source.stem for source in found if source.path}
        again = {key for key, file in held.files.items() if file in self.asked}
        pictures = {key for key in held.files if key[0] != "/"}
        self.finished = {key for key in pictures if resume and (self.out / f"{key}{ENDINGS[0]}").is_file()}
        self.replaced = set() if resume else pictures & again
        stay = [key for key in held.entries if key in pictures or (resume and key not in again)]
        self.texts = {key: _text(held.entries[key]) for key in stay}
        self.changed, self.turn, self.pause_s = True, threading.Lock(), WRITE_S

    def add(self, stem: str, entry: Entry) -> None:
        """An entry, and what its pictures are called."""
        key = f"/{entry['input']}" if "error" in entry else stem
        with self.turn:
            self.texts.pop(key, None)  # it goes to the end
            self.texts[key], self.changed = _text(entry), True
            self.replaced.discard(key)

    def write(self) -> None:
        with self.turn:
            text, changed, self.changed = ",\n".join(self.texts.values()), self.changed, False
        if changed:
            start, content = time.perf_counter(), f"[\n{text}\n]\n" if text else "[]\n"
            # a file name that is no UTF-8 becomes JSON's own escape
            self.path = files.write_bytes(self.out / RESULTS, content.encode(errors="backslashreplace"))
            self.pause_s = max(WRITE_S, 20 * (time.perf_counter() - start))

    def keep(self, ended: threading.Event) -> None:
        """Write every now and then."""
        while not ended.wait(self.pause_s):
            try:
                self.write()
            except OSError:  # a disk that is full for now; the last writing will say so
                self.changed = True

    def drop_replaced(self) -> None:
        """What an earlier call made of the same files, and this one did not make again."""
        for key in self.replaced:
            del self.texts[key]
            for ending in ENDINGS:
                (self.out / f"{key}{ending}").unlink(missing_ok=True)
        self.changed |= bool(self.replaced)


def _text(entry: Entry) -> str:  # kept: to make a hundred thousand anew takes a second
    return json.dumps(entry, ensure_ascii=False, allow_nan=False)


@contextmanager
def opened(out: Path, found: Sequence[Source], resume: bool) -> Iterator[Log]:
    """The log of a call: an entry is on disk a second or two after it was added, and all are in the end, however the
    call ends. Raises UsageError when another call writes there, or has since the inputs were found."""
    with _alone(out):
        held = Held(out)
        held.check(found, resume)
        log, ended = Log(held, found, resume), threading.Event()
        _claim(out, held.claims | log.asked)
        log.write()
        keeper = threading.Thread(target=log.keep, args=(ended,), daemon=True)
        keeper.start()
        try:
            yield log
            log.drop_replaced()
        finally:
            ended.set()
            keeper.join()
            log.write()
            if log.path.name == RESULTS:  # else nothing but the claims tells whose the pictures are
                _claim(out, {file: stem for file, stem in held.claims.items() if file not in log.asked})


def _claim(out: Path, claims: dict[str, str]) -> None:
    if claims:
        files.write_json(out / CLAIMS, [{"input": file, "stem": stem} for file, stem in claims.items()])
    else:
        (out / CLAIMS).unlink(missing_ok=True)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    out.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(out / LOCK, blocking=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise UsageError(f"another call writes into {out}: wait for it, or give another --out") from None
    try:
        yield
    finally:
        with suppress(OSError):  # Windows keeps what is open
            (out / LOCK).unlink()
        lock.release()
