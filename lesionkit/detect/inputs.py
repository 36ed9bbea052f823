"""The files behind the arguments of `detect`: images, folders, videos, patterns; each with its own stem."""

import glob
import os
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain, count
from pathlib import Path
from unicodedata import normalize

from PIL import Image

from lesionkit import datasets
from lesionkit.datasets.samples import files_below
from lesionkit.detect.reading import Source
from lesionkit.detect.results import FRAME, Results

IMAGES = (*datasets.SUFFIXES, ".webp", ".jfif", ".jpe", ".jp2", ".gif", ".apng", ".avif", ".ppm", ".pgm", ".pbm")
STACKS = (".tif", ".tiff", ".gif", ".webp", ".png", ".apng", ".avif")  # no JPEG: a phone's second picture is a preview
VIDEOS = (".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".avi", ".mkv", ".webm", ".flv", ".wmv", ".asf", ".ogv")
VIDEOS += (".mpg", ".mpeg", ".mpe", ".m2v", ".vob", ".ts", ".mts", ".m2ts", ".mxf", ".dv")  # of recorders and discs


def find_inputs(
    arguments: Sequence[str], out: Path, resume: bool = False, tell: Callable[[str], None] = lambda text: None
) -> list[Source]:
    """The files behind images, folders (recursively), videos and patterns, in that order, each file once.

    Hidden files are passed over, and so is `out` below a folder: it holds the results of an earlier call; `tell` gets
    a line on files of unknown endings. Two inputs with one stem get different ones: the second is called STEM_FOLDER,
    more STEM_2, STEM_3 ... Raises UsageError when an output would overwrite what is no result of the same file, or
    `out` holds results of other files and the call does not `resume`.
    """
    held, found, seen = Results(out), [], set()
    stems = held.stems()
    taken = {name for stem in stems.values() for several in (False, True) for name in _claims(stem, several)[0]}
    for argument in arguments:
        passed: Counter[str] = Counter()
        try:
            paths, error = _expand(argument, held, passed)
        except OSError as problem:  # a name too long, a folder that may not be entered: the other inputs go on
            paths, error = [], f"cannot be read ({problem.strerror}); check the path"
        for path in paths:
            file, kind = os.path.realpath(path), kind_of(path)
            if file not in seen:
                seen.add(file)
                stem = stems.get(file) or _free_stem(path, kind, taken)
                found.append(Source(str(path), file, path, stem, kind=kind))
        if error:
            found.append(Source(argument, os.path.realpath(argument), error=error))
        if passed:
            which = ", ".join(f"{number} {ending}" for ending, number in sorted(passed.items()))
            tell(f"{argument}: files of other endings are passed over, {which}")
    held.check(found, resume)
    return found


def kind_of(path: Path) -> str:
    """What a file is read as: "image", "stack" (an image file of several frames, as its header says) or "video"."""
    ending = path.suffix.lower()
    if ending not in STACKS:
        return "video" if ending in VIDEOS else "image"
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as picture:
            return "stack" if picture.n_frames > 1 else "image"
    except Exception:  # damaged, or unknown to Pillow: the reader will say so, or knows it
        return "image"


def _expand(argument: str, held: Results, passed: Counter[str]) -> tuple[list[Path], str]:
    """The files that one argument names, and what is wrong with it; the endings of what is neither join `passed`."""
    path, out = Path(argument), held.out.resolve()
    if path.is_dir():
        places, nothing = [path], "no image or video in this folder; it may be empty or hold other files"
    elif path.exists():
        return [path], ""
    elif not glob.has_magic(argument):
        return [], "does not exist; check the path"
    else:
        matches = map(Path, sorted(glob.glob(argument, recursive=True)))
        places = [match for match in matches if match.resolve() != out]
        nothing = "no image or video matches this pattern"
    problems: list[OSError] = []
    files = [file for place in places for file in (_below(place, out, problems) if place.is_dir() else [place])]
    files = [file for file in files if not (held.is_ours(file.name) and file.resolve().parent == out)]
    found = [file for file in files if file.suffix.lower() in IMAGES + VIDEOS]
    passed.update(file.suffix.lower() or "without" for file in set(files) - set(found))
    if problems:
        return found, f"{problems[0].filename} cannot be read ({problems[0].strerror}); check the folder"
    return found, "" if found else nothing


def _below(folder: Path, out: Path, problems: list[OSError]) -> list[Path]:
    """The files below a folder, but for our own results; what could not be entered joins `problems`."""
    results = {out} - {folder.resolve()}
    return sorted(path for path in files_below(folder, results, problems.append) if path.is_file())


def _free_stem(path: Path, kind: str, taken: set[str]) -> str:
    """A stem that is not `taken` yet, the same for the same inputs in the same order."""
    for ending in chain(("", f"_{path.absolute().parent.name}"), (f"_{number}" for number in count(2))):
        claimed, unclaimed = _claims(f"{path.stem}{ending}", kind != "image")
        if not taken & unclaimed:
            break
    taken |= claimed
    return f"{path.stem}{ending}"


def _claims(stem: str, several: bool) -> tuple[set[str], set[str]]:
    """What a stem takes for itself, and what nobody may have taken: frames of `several` called a are a_000025, which an
    image may be, too. macOS and Windows take A.png and a.png for one, macOS both forms of ä."""
    name = normalize("NFC", stem).lower()
    if several:
        return {name, f"{name}/"}, {name, f"{name}_#"}
    return {name, FRAME.sub("_#", name)}, {name, FRAME.sub("/", name)}
