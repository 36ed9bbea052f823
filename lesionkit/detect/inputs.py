"""The files behind the arguments of `detect`: images, folders, videos, patterns; each with its own stem."""

import glob
import os
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain, count
from pathlib import Path

import cv2

from lesionkit import datasets
from lesionkit.detect import stacks, videos
from lesionkit.detect.results import Held, Source, place_from, reserved

# fmt: off
VIDEOS = (
    ".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".f4v", ".avi", ".divx", ".mkv", ".webm", ".mpg", ".mpeg", ".mpe",
    ".mpv", ".m1v", ".m2v", ".vob", ".vro", ".ts", ".mts", ".m2ts", ".m2t", ".trp", ".tod", ".flv", ".wmv", ".asf",
    ".ogv", ".ogm", ".mxf", ".dv", ".dav", ".rm", ".rmvb", ".mjpg", ".mjpeg", ".y4m", ".h264", ".264", ".h265", ".hevc",
)
IMAGES = (
    *datasets.SUFFIXES, ".webp", ".jfif", ".jpe", ".jp2", ".j2k", ".gif", ".apng", ".avif", ".dib", ".ppm", ".pgm",
    ".pbm", ".pnm", ".pam", ".ras", ".sr",
)
# fmt: on


def find_inputs(
    arguments: Sequence[str], out: Path, resume: bool = False, tell: Callable[[str], None] = lambda text: None
) -> list[Source]:
    """The files behind images, folders (recursively), videos and patterns, in that order, each file once.

    Hidden files are passed over, and so is `out` below a folder: it holds the results of an earlier call; `tell` gets
    a line on files of unknown endings. Two inputs with one stem get different ones: the second is called STEM_FOLDER,
    more STEM_2, STEM_3 ... Raises UsageError when an output would overwrite what is no result of the same file, or
    `out` holds results of other files and the call does not `resume`.
    """
    held, found, seen = Held(out), [], set()
    taken = set(held.taken)
    for argument in arguments:
        passed: Counter[str] = Counter()
        try:
            paths, error = _expand(argument, held, passed)
        except OSError as problem:  # a name too long, a folder that may not be entered: the other inputs go on
            paths, error = [], f"cannot be read ({problem.strerror}); check the path"
        for path in paths:
            if path.resolve() not in seen:
                seen.add(path.resolve())
                kind, file = kind_of(path), place_from(out, path)
                stem = held.stems.get(file) or _free_stem(path, kind, taken)
                found.append(Source(str(path), path, stem, kind=kind, file=file))
        if error:
            found.append(Source(argument, error=error, file=place_from(out, Path(argument))))
        if passed:
            which = ", ".join(f"{number} {ending}" for ending, number in sorted(passed.items()))
            tell(f"{argument}: files of other endings are passed over, {which}; name one to try it")
    held.check(found, resume)
    return found


def kind_of(path: Path) -> str:
    """What a file is read as: "image", "stack" (an image file of several frames) or "video". The ending says it, or
    where it is unknown the content; a text is never a video, though FFmpeg would make one of it."""
    ending = path.suffix.lower()
    if ending in VIDEOS:
        return "video"
    if (ending in stacks.SUFFIXES or ending not in IMAGES) and stacks.has_frames(path):
        return "stack"
    if ending in IMAGES:
        return "image"
    try:
        with path.open("rb") as file, videos.plain_path(path) as name:
            return "image" if b"\0" not in file.read(1024) or cv2.haveImageReader(name) else "video"
    except OSError:  # the reader will say so
        return "image"


def _expand(argument: str, held: Held, passed: Counter[str]) -> tuple[list[Path], str]:
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
    endings = Counter(file.suffix.lower() for file in files)
    passed.update({ending or "without": number for ending, number in endings.items() if ending not in IMAGES + VIDEOS})
    if problems:
        return found, f"{problems[0].filename} cannot be read ({problems[0].strerror}); check the folder"
    return found, "" if found else nothing


def _below(folder: Path, out: Path, problems: list[OSError]) -> list[Path]:
    """The files below a folder, links to other folders followed; what could not be entered joins `problems`."""
    found, entered = [], {out} - {folder.resolve()}
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


def _free_stem(path: Path, kind: str, taken: set[tuple[str, str]]) -> str:
    """A stem that is not `taken` yet, the same for the same inputs in the same order. Frames of a video `a` are called
    a_000025, so an image of that name must not meet them."""
    for ending in chain(("", f"_{path.absolute().parent.name}"), (f"_{number}" for number in count(2))):
        takes, meets = reserved(f"{path.stem}{ending}", kind != "image")
        if not taken & meets:
            break
    taken |= takes
    return f"{path.stem}{ending}"
