"""The files behind the arguments of `detect`: images, folders, videos, patterns; each with its own stem."""

import glob
import itertools
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lesionkit import datasets
from lesionkit.detect.outputs import ENDINGS, PAIR, RESULTS

VIDEOS = (".mp4", ".m4v", ".avi", ".mov", ".mkv", ".mpg", ".mpeg", ".webm", ".wmv")
IMAGES = (*datasets.SUFFIXES, ".webp")
FRAME = re.compile(r"_\d{6,}$")


class UsageError(ValueError):
    """What was asked for cannot be done at all, whatever the inputs are; one sentence."""


@dataclass(frozen=True)
class InputFile:
    """One file to read, under its name in detections.json; `stem` is what its outputs are called."""

    input: str
    path: Path
    stem: str


@dataclass(frozen=True)
class Failure:
    """An input that gives no file to read."""

    input: str
    error: str


def find_inputs(arguments: Sequence[str], out: Path) -> list[InputFile | Failure]:
    """The files behind images, folders (recursively), videos and patterns, in that order, each file once.

    Hidden files are passed over, and so is `out` below a folder: it holds the results of an earlier call.
    Two inputs with one stem get different ones: the second is called STEM_FOLDER, more STEM_2, STEM_3 ...
    Raises UsageError when an output would overwrite a file that is no result of an earlier call.
    """
    found: list[InputFile | Failure] = []
    names, seen = _Names(), set()
    for argument in arguments:
        try:
            paths, error = _expand(argument, out)
        except OSError as problem:  # a name too long, a folder that may not be entered: the other inputs go on
            paths, error = [], f"cannot be read ({problem.strerror}); check the path"
        for path in paths:
            if path.resolve() not in seen:
                seen.add(path.resolve())
                found.append(InputFile(str(path), path, names.take(path)))
        if error:
            found.append(Failure(argument, error))
    _check_overwrites([source for source in found if isinstance(source, InputFile)], seen, out)
    return found


def _expand(argument: str, out: Path) -> tuple[list[Path], str]:
    """The files that one argument names, or none and the reason."""
    path = Path(argument)
    if path.is_dir():
        found, error = _folder(path, out)
        nothing = "" if found else "no image or video in this folder; it may be empty or hold other files"
        return found, error or nothing
    if path.exists():
        return [path], ""
    if not glob.has_magic(argument):
        return [], "does not exist; check the path"
    found, problem = [], ""
    for match in sorted(glob.glob(argument, recursive=True)):
        path = Path(match)
        if not _is_output(path, out) and path.resolve() != out.resolve():
            inside, error = _folder(path, out) if path.is_dir() else ([path] if _is_medium(path) else [], "")
            found, problem = found + inside, problem or error
    return found, problem or ("" if found else "no image or video matches this pattern")


def _folder(folder: Path, out: Path) -> tuple[list[Path], str]:
    """The images and videos below a folder, links to other folders followed; and what could not be entered."""
    results = out.resolve()
    inside = results != folder.resolve() and results.is_relative_to(folder.resolve())
    found, problems, entered = [], [], set()
    for place, folders, names in os.walk(folder, onerror=problems.append, followlinks=True):
        here, real = Path(place), Path(place).resolve()
        if real in entered or (inside and real.is_relative_to(results)):  # a link that leads back, or our own results
            folders.clear()
            continue
        entered.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = [here / name for name in names if not name.startswith(".")]
        found += [p for p in paths if _is_medium(p) and p.is_file() and not _is_output(p, out)]
    error = f"{problems[0].filename} cannot be read ({problems[0].strerror}); check the folder" if problems else ""
    return sorted(found), error


def _is_medium(path: Path) -> bool:
    return path.suffix.lower() in IMAGES + VIDEOS


def _is_output(path: Path, out: Path) -> bool:
    """Whether a file is the result of an earlier call into the same folder."""
    called_so = path.name.endswith(ENDINGS) and path.resolve().parent == out.resolve()
    return called_so and (out / RESULTS).is_file()


class _Names:
    """Gives every input a stem of its own; the same inputs in the same order always get the same ones."""

    def __init__(self) -> None:
        self.stems: set[str] = set()  # in lower case, because macOS and Windows take A.png and a.png for one
        self.videos: set[str] = set()
        self.frames: set[str] = set()  # stems of images that are called like frames, without the number

    def take(self, path: Path) -> str:
        tries = (f"_{number}" for number in itertools.count(2))
        for ending in itertools.chain(("", f"_{path.absolute().parent.name}"), tries):
            stem = f"{path.stem}{ending}"
            if self._take(stem.lower(), path.suffix.lower() in VIDEOS):
                return stem
        raise AssertionError("unreachable: the numbers never end")

    def _take(self, stem: str, is_video: bool) -> bool:
        """Frames of a video `a` are called a_000025, so an image of that name must not meet them."""
        frame_of = FRAME.sub("", stem) if FRAME.search(stem) else None
        if stem in self.stems or (is_video and stem in self.frames) or frame_of in self.videos:
            return False
        self.stems.add(stem)
        if is_video:
            self.videos.add(stem)
        elif frame_of:
            self.frames.add(frame_of)
        return True


def _check_overwrites(sources: Iterable[InputFile], inputs: set[Path], out: Path) -> None:
    """The user's own a_mask.png must survive, wherever `out` is and whether or not it is an input itself. Results come
    in pairs, and beside the inputs with RESULTS: such a pair is of an earlier call, anything else the user's own."""
    folder = out.resolve()
    if (folder / RESULTS).is_file() and not _is_results(folder / RESULTS):
        raise UsageError(f"{folder / RESULTS} exists and is not ours: give another --out")
    present = {path.name for path in folder.iterdir() if path.is_file()} if folder.is_dir() else set()
    for source in sources:
        beside = source.path.resolve().parent == folder
        for stem in _result_stems(source, present):
            pair = all(f"{stem}{ending}" in present for ending in PAIR)
            ours = pair and (RESULTS in present or not beside)
            for name in (f"{stem}{ending}" for ending in ENDINGS if f"{stem}{ending}" in present):
                if not ours or folder / name in inputs:
                    raise UsageError(f"{folder / name} exists and a result would overwrite it: give another --out")


def _is_results(path: Path) -> bool:
    """Whether a detections.json is one that `detect` wrote: a list of entries that name their input."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(entries, list) and all(isinstance(entry, dict) and "input" in entry for entry in entries)


def _result_stems(source: InputFile, present: set[str]) -> set[str]:
    """What results of a source are called; of a video's frames those whose names are taken."""
    if source.path.suffix.lower() not in VIDEOS:
        return {source.stem}
    frame = re.compile(rf"({re.escape(source.stem)}_\d{{6,}})(?:{'|'.join(map(re.escape, ENDINGS))})")
    return {match[1] for name in present if (match := frame.fullmatch(name))}
