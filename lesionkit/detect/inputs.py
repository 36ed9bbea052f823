"""The files behind the arguments of `detect`: images, folders, videos, patterns; each with its own stem."""

import glob
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, count, product
from pathlib import Path

from lesionkit import datasets
from lesionkit.detect.outputs import ENDINGS, PAIR, RESULTS

VIDEOS = (".mp4", ".m4v", ".avi", ".mov", ".mkv", ".mpg", ".mpeg", ".webm", ".wmv")
IMAGES = (*datasets.SUFFIXES, ".webp")
FRAME = re.compile(r"_\d{6,}$")


class UsageError(ValueError):
    """What was asked for cannot be done at all, whatever the inputs are; one sentence."""


@dataclass(frozen=True)
class Source:
    """One file to read, under its name in detections.json; or why an argument gives none, and then `path` is None."""

    input: str
    path: Path | None = None
    stem: str = ""  # what its outputs are called
    error: str = ""


def is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEOS


def find_inputs(arguments: Sequence[str], out: Path) -> list[Source]:
    """The files behind images, folders (recursively), videos and patterns, in that order, each file once.

    Hidden files are passed over, and so is `out` below a folder: it holds the results of an earlier call.
    Two inputs with one stem get different ones: the second is called STEM_FOLDER, more STEM_2, STEM_3 ...
    Raises UsageError when an output would overwrite a file that is no result of an earlier call.
    """
    found, taken, seen = [], set(), set()
    for argument in arguments:
        try:
            paths, error = _expand(argument, out)
        except OSError as problem:  # a name too long, a folder that may not be entered: the other inputs go on
            paths, error = [], f"cannot be read ({problem.strerror}); check the path"
        for path in paths:
            if path.resolve() not in seen:
                seen.add(path.resolve())
                found.append(Source(str(path), path, _free_stem(path, taken)))
        if error:
            found.append(Source(argument, error=error))
    _check_overwrites([source for source in found if source.path], seen, out)
    return found


def _expand(argument: str, out: Path) -> tuple[list[Path], str]:
    """The files that one argument names, and what is wrong with it."""
    path = Path(argument)
    if path.is_dir():
        places, nothing = [path], "no image or video in this folder; it may be empty or hold other files"
    elif path.exists():
        return [path], ""
    elif not glob.has_magic(argument):
        return [], "does not exist; check the path"
    else:
        matches = map(Path, sorted(glob.glob(argument, recursive=True)))
        places = [match for match in matches if match.resolve() != out.resolve()]
        nothing = "no image or video matches this pattern"
    problems: list[OSError] = []
    found = [file for place in places for file in (_below(place, out, problems) if place.is_dir() else [place])]
    results = out.resolve() if (out / RESULTS).is_file() else None
    ours = {file for file in found if file.name.endswith(ENDINGS) and file.resolve().parent == results}
    found = [file for file in found if file.suffix.lower() in IMAGES + VIDEOS and file not in ours]
    if problems:
        return found, f"{problems[0].filename} cannot be read ({problems[0].strerror}); check the folder"
    return found, "" if found else nothing


def _below(folder: Path, out: Path, problems: list[OSError]) -> list[Path]:
    """The files below a folder, links to other folders followed; what could not be entered joins `problems`."""
    found, entered = [], {out.resolve()} - {folder.resolve()}
    for place, folders, names in os.walk(folder, onerror=problems.append, followlinks=True):
        real = Path(place).resolve()
        if real in entered:  # a link that leads back, or our own results
            folders.clear()
            continue
        entered.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = [Path(place, name) for name in names if not name.startswith(".")]
        found += [path for path in paths if path.is_file()]
    return sorted(found)


def _free_stem(path: Path, taken: set[tuple[str, str]]) -> str:
    """A stem that is not `taken` yet, the same for the same inputs in the same order. Frames of a video `a` are called
    a_000025, so an image of that name must not meet them. macOS and Windows take A.png and a.png for one."""
    mine, other = ("video", "frame") if is_video(path) else ("frame", "video")
    for ending in chain(("", f"_{path.absolute().parent.name}"), (f"_{number}" for number in count(2))):
        name = f"{path.stem}{ending}".lower()
        of = name if mine == "video" else FRAME.sub("", name)
        if not taken & {("stem", name), (other, of)}:
            break
    taken |= {("stem", name), (mine, of)}
    return f"{path.stem}{ending}"


def _check_overwrites(sources: Sequence[Source], inputs: set[Path], out: Path) -> None:
    """The user's own a_mask.png must survive, wherever `out` is and whether or not it is an input itself. Results come
    in pairs, and beside the inputs with RESULTS: such a pair is of an earlier call, anything else the user's own."""
    folder = out.resolve()
    if (folder / RESULTS).is_file() and not _is_ours(folder / RESULTS):
        raise UsageError(f"{folder / RESULTS} exists and is not ours: give another --out")
    present = {path.name for path in folder.glob("*") if path.is_file()}
    owners = {f"{one.stem}/" if is_video(one.path) else one.stem: one for one in sources}  # of a/ are all a_000025
    for name, ending in product(sorted(present), ENDINGS):
        stem = name.removesuffix(ending)
        source = owners.get(stem) or owners.get(FRAME.sub("/", stem))
        if source and name.endswith(ending):
            pair = all(f"{stem}{each}" in present for each in PAIR)
            ours = pair and (RESULTS in present or source.path.resolve().parent != folder)
            if not ours or folder / name in inputs:
                raise UsageError(f"{folder / name} exists and a result would overwrite it: give another --out")


def _is_ours(results: Path) -> bool:
    """Whether a detections.json is one that `detect` wrote: a list of entries that name their input."""
    try:
        entries = json.loads(results.read_text(encoding="utf-8"))
        return isinstance(entries, list) and all(isinstance(entry, dict) and "input" in entry for entry in entries)
    except (OSError, ValueError):
        return False
