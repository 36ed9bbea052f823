"""Frames of a video in order, and what OpenCV does not see to: odd names, cut off files, two moments in one frame.

Shapes: H, W = a frame's own height and width in pixels.
"""

import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from lesionkit.datasets import InvalidData

OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
APART = 12  # grey levels; lines of one moment differ by less
COMBED = 0.002  # share of pixels
DEINTERLACED = "interlaced: every second line was interpolated"
BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp", b"moof", b"sidx", b"uuid")  # of MP4, MOV, 3GP


def frames(path: Path, wanted: Callable[[int], bool]) -> Iterator[tuple[int, np.ndarray | None, str]]:
    """Number, pixels and note of every frame that is wanted, from 0; uint8 H×W×3 RGB, or None if it cannot be decoded.
    Combed frames are deinterlaced, and the note says so. Raises InvalidData after the last one if there was none, or
    the file is cut off: a header's number of frames is a guess (variable rate, edit lists, long audio), so that few
    frames alone are no damage."""
    with _plain_path(path) as name:
        capture, promised = _opened(name)
    number, note, more = 0, "", capture.grab()
    while more:
        is_wanted = wanted(number)
        frame = capture.retrieve()[1] if is_wanted else None
        more = capture.grab()
        if is_wanted:
            if more:  # the last frame is as the one before
                note = DEINTERLACED if is_combed(frame, capture.retrieve()[1]) else ""
            rgb = None if frame is None else cv2.cvtColor(deinterlaced(frame) if note else frame, cv2.COLOR_BGR2RGB)
            yield number, rgb, note
        number += 1
    if number == 0:
        raise InvalidData("is not a video that OpenCV can decode; it may be damaged")
    if number + 3 < promised and is_cut_off(path):
        count = f"{number} of {promised:.0f} frames"
        raise InvalidData(f"ends after {count}: the file is cut off; what could be read was detected; copy it again")


def rate(path: Path) -> float:
    """Frames a second by the header; 25 where that says nothing that can be."""
    with _plain_path(path) as name:
        said = cv2.VideoCapture(name).get(cv2.CAP_PROP_FPS)
    return said if 0.1 < said < 1000 else 25.0


@contextmanager
def _plain_path(path: Path) -> Iterator[str]:
    """A name for OpenCV: absolute, or what stands before a colon would be a protocol; a link to the file if its own is
    no UTF-8, of which OpenCV dies. Only needed to open the file."""
    name = str(path.absolute())
    try:
        name.encode()
        yield name
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory() as folder:
            link = Path(folder, "file" + (path.suffix if path.suffix.isascii() else ""))
            link.symlink_to(name)
            yield str(link)


def _opened(name: str) -> tuple[cv2.VideoCapture, float]:
    """A video, and the number of frames that its header promises. OpenCV 4.13 and 5.0 do not convert frames that are
    flagged as interlaced, and return the same memory for each. So where the first two are equal, all are read by way of
    FFmpeg's filters, which take the flag away; but not of a phone's video, which they would not turn upright."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # our own sentence says what FFmpeg would print
    plain = cv2.VideoCapture(name)
    promised, (good, frame) = plain.get(cv2.CAP_PROP_FRAME_COUNT), plain.read()
    if good and np.array_equal(frame, plain.read()[1]) and not plain.get(cv2.CAP_PROP_ORIENTATION_META):
        escaped = re.sub(r"([\\'\[\],;])", r"\\\1", re.sub(r"([\\':])", r"\\\1", name))  # FFmpeg reads it twice
        before, os.environ[OPTIONS] = os.environ.get(OPTIONS, ""), "input_format;lavfi"
        filtered = cv2.VideoCapture(f"movie={escaped},setfield=prog", cv2.CAP_FFMPEG)
        os.environ[OPTIONS] = before
        if filtered.isOpened():
            return filtered, promised
    return cv2.VideoCapture(name), promised  # from its beginning


def is_cut_off(path: Path) -> bool:
    """Whether a video file ends in zeros, as a copy does that was broken off, or before the last of the parts that it
    consists of: boxes of MP4, RIFFs of AVI. Their lengths are written in their headers; other containers say none."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 4096))
        is_blank, position, length = not any(file.read()), 0, 1
        while length > 0:
            file.seek(position)
            length = _length(file.read(16))
            position += length
    return is_blank or position > size


def _length(head: bytes) -> int:
    """Of a part of a file, by its first bytes; 0 for what is none, and for one that goes on to the end."""
    if head[4:8] in BOXES:
        return int.from_bytes(head[8:] if head[:4] == b"\0\0\0\1" else head[:4])
    return 8 + int.from_bytes(head[4:8], "little") if head[:4] == b"RIFF" else 0


def is_combed(frame: np.ndarray | None, after: np.ndarray | None) -> bool:
    """Whether two moments are woven into one frame (uint8 H×W×3), line by line. Stripes look like that too, but no more
    or less so when every second line is taken from the frame `after`, whichever; of moments, one such weave joins
    neighbours, the other those three apart."""
    if frame is None or np.shape(after) != frame.shape:
        return False
    now, then = (cv2.cvtColor(each, cv2.COLOR_BGR2GRAY)[:, ::4].astype(np.int16) for each in (frame, after))
    weaves = [now.copy(), then.copy()]
    weaves[0][1::2], weaves[1][1::2] = then[1::2], now[1::2]
    near, far = sorted(map(_combs, weaves))
    return _combs(now) > COMBED and far > 1.3 * near + COMBED  # of noise, the two differ less


def _combs(lines: np.ndarray) -> float:
    """The share of pixels that differ from the mean of those above and below by more than these from each other."""
    up, middle, down = lines[:-2], lines[1:-1], lines[2:]
    return float((np.abs(2 * middle - up - down) > 2 * np.abs(up - down) + 2 * APART).mean())


def deinterlaced(frame: np.ndarray) -> np.ndarray:
    """The frame with its odd lines made of the even ones above and below, which are of one moment."""
    lines = np.repeat(frame[::2], 2, axis=0)[: len(frame)]
    lines[1:-1:2] = cv2.addWeighted(frame[:-2:2], 0.5, frame[2::2], 0.5, 0)
    return lines
