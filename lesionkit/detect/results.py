"""The results in an output folder: whose they are, and detections.json while a call adds to it.

Ours is what detections.json names: each entry its `file`, and the `stem` of its pictures, STEM_mask.png and so on.
It is written before they are, so that no picture is without an entry, however a call ends.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import filelock

from lesionkit import files
from lesionkit.datasets.reading import listing
from lesionkit.detect.outputs import ENDINGS, FILM, RESULTS, TABLES, pictures_of
from lesionkit.detect.reading import Entry, Source

LOCK = ".detections.lock"  # there only while a call is, or after a kill
FRAME = re.compile(r"_\d{6,}$")
HEAD, TAIL = b"[\n", b"\n]\n"  # of detections.json; between them, an entry a line


class UsageError(ValueError):
    """What was asked for cannot be done at all, whatever the inputs are; one sentence."""


class Results:
    """What a folder holds: the `entries` of its detections.json, by the stem of their pictures; those of errors, which
    have neither pictures nor a file, by a slash and their input. Raises UsageError for a detections.json that is not
    ours."""

    def __init__(self, out: Path, save: Sequence[str] = ()):
        self.out, self.path, self.kinds = out, out / RESULTS, save
        self.entries = _load(self.path)
        self.finished: set[str] = set()  # stems that this call need not make again
        self.replaced: set[str] = set()  # stems that this call has yet to make again

    def stems(self) -> dict[str, str]:
        """What the pictures of each file are called, but for the numbers of frames."""
        return {
            entry["file"]: FRAME.sub("", stem) if "#frame=" in entry["input"] else stem
            for stem, entry in self.entries.items()
            if "file" in entry
        }

    def pictures(self, stem: str, endings: Iterable[str] = ENDINGS) -> list[Path]:
        return [self.out / f"{stem}{ending}" for ending in endings]

    def is_ours(self, name: str) -> bool:
        """Whether a file of this name in the folder is a result."""
        if name in (table for table, _ in TABLES.values()):
            return self.path.exists()
        named = any(stem in self.entries for stem in _stems(name))
        return named or name == RESULTS or any(name == entry.get("film") for entry in self.entries.values())

    def check(self, found: Sequence[Source], resume: bool) -> None:
        """Raise UsageError where a call would replace what is not its own: results of other inputs, unless it adds to
        them, or the user's own a_mask.png."""
        others = self.stems().keys() - {source.file for source in found}
        if others and not resume:
            what = f"{self.out} holds results of other inputs ({listing(sorted(others))})"
            raise UsageError(f"{what}: give another --out, or add to them with --resume")
        made = [name for kind, (name, _) in TABLES.items() if kind in self.kinds]
        made += [film_of(one.stem) for one in found if one.kind == "video" and "video" in self.kinds]
        wanted = {one.stem if one.kind == "image" else f"{one.stem}/" for one in found if one.path}
        for path in sorted(self.out.glob("*")):
            meets = any({stem, FRAME.sub("/", stem)} & wanted for stem in _stems(path.name))  # of a/ are all a_000025
            if (meets or path.name in made) and path.is_file() and not self.is_ours(path.name):
                raise UsageError(f"{path.resolve()} exists and a result would overwrite it: give another --out")

    def begin(self, found: Sequence[Source], resume: bool) -> None:
        """Sort what is there: pictures that are asked for are to be made again or, to `resume`, finished if they are
        there; errors go, but those of other inputs for a call that is to `resume`."""
        asked, tried = {one.file for one in found if one.path}, {f"/{one.input}" for one in found}
        for key in [key for key, entry in self.entries.items() if "error" in entry and (key in tried or not resume)]:
            del self.entries[key]
        again = {stem for stem, entry in self.entries.items() if entry.get("file") in asked}
        self.finished = {stem for stem in again if resume and self._is_complete(stem)}
        self.replaced = again - self.finished
        for film in {self.entries[stem].get("film") for stem in self.replaced} - {None}:
            (self.out / film).unlink(missing_ok=True)
        self.save()

    def _is_complete(self, stem: str) -> bool:
        """A video's frames are finished together, if a film of them is asked for."""
        of_film = [self.out / film_of(stem)] if "video" in self.kinds and "time_s" in self.entries[stem] else []
        return all(path.is_file() for path in [*self.pictures(stem, pictures_of(self.kinds)), *of_film])

    def add(self, entry: Entry) -> None:
        """An entry of this call, on disk at once: in place of the file's end, which follows."""
        self.entries[_key(entry)] = entry
        self.replaced.discard(_key(entry))
        with suppress(OSError), self.path.open("r+b", buffering=0) as file:  # `save` will try again, and say why not
            end = file.seek(-len(TAIL), os.SEEK_END)
            text = (b",\n" if end > len(HEAD) else b"") + _line(entry) + TAIL
            if file.write(text) < len(text):  # the disk is full: as it was
                file.seek(end)
                file.truncate()
                file.write(TAIL)

    def remove(self, stem: str) -> None:
        """An entry and its pictures go."""
        self.entries.pop(stem, None)
        self.clear(stem, ENDINGS)

    def clear(self, stem: str, endings: Iterable[str]) -> None:
        for path in self.pictures(stem, endings):
            with suppress(OSError):  # it may not be there
                path.unlink()

    def save(self) -> None:
        """Write all entries: beside detections.json if another program holds that, and then there to the end."""
        self.path = files.write_bytes(self.path, HEAD + b",\n".join(map(_line, self.entries.values())) + TAIL)

    def save_tables(self) -> None:
        for kind, (name, table) in TABLES.items():
            if kind in self.kinds:
                files.write_bytes(self.out / name, table(list(self.entries.values())))


def film_of(stem: str) -> str:
    """What the film is called of a video, by its stem or that of one of its frames."""
    return f"{FRAME.sub('', stem)}{FILM}"


@contextmanager
def opened(out: Path, found: Sequence[Source], resume: bool, save: Sequence[str]) -> Iterator[Results]:
    """The results that a call adds to. What an earlier one made of the same files goes in the end, if this one did not
    make it again. Raises UsageError when another call writes there, or has since the inputs were found."""
    with _alone(out):
        results = Results(out, save)
        results.check(found, resume)
        results.begin(found, resume)
        try:
            yield results
            for stem in results.replaced:
                results.remove(stem)
        finally:
            results.save()
            results.save_tables()
            with suppress(OSError):  # Windows keeps what is open
                (out / LOCK).unlink()


def _alone(out: Path) -> AbstractContextManager:
    try:  # better now than after all images
        out.mkdir(parents=True, exist_ok=True)
        return filelock.FileLock(out / LOCK, blocking=False).acquire()
    except filelock.Timeout:
        raise UsageError(f"another call writes into {out}: wait for it, or give another --out") from None
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written to ({error.strerror}): give another folder") from None


def _load(path: Path) -> dict[str, Entry]:
    if not path.exists():
        return {}
    with suppress(OSError, ValueError, TypeError, KeyError):
        entries = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(entries, list):
            return {_key(entry): entry for entry in entries}
    raise UsageError(f"{path.resolve()} exists and is not ours, or an older version's: give another --out")


def _key(entry: Entry) -> str:
    return f"/{entry['input']}" if "error" in entry else entry["stem"]


def _line(entry: Entry) -> bytes:  # a file name that is no UTF-8 becomes JSON's own escape
    return json.dumps(entry, ensure_ascii=False, allow_nan=False).encode(errors="backslashreplace")


def _stems(name: str) -> list[str]:
    return [name.removesuffix(ending) for ending in ENDINGS if name.endswith(ending)]
