"""Frames of a video in order, and what OpenCV does not see to: odd names, cut off files, two moments in one frame.

Shapes: H, W = a frame's own height and width in pixels.
"""

import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from lesionkit.datasets import reading

OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
CLOSE = 12  # grey levels between lines that are taken for the same
COMBED = 0.002  # share of pixels
DEINTERLACED = "interlaced: every second line was interpolated"
EBML, ASF = b"\x1a\x45\xdf\xa3", b"\x30\x26\xb2\x75"
ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")  # of the object that tells the file's length
BOXES, LONG_BOX = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp"), b"\0\0\0\1"  # of MP4, MOV, 3GP


@contextmanager
def plain_path(path: Path) -> Iterator[str]:
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


class Video:
    """An opened video. When `frames` has ended, `fault` says what was wrong with it."""

    def __init__(self, path: Path):
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # our own sentence says what FFmpeg would print
        self.path, self.count, self.reached_ms, self.trusted, self.interlaced = path, 0, 0.0, False, False
        with plain_path(path) as name:
            self.capture = cv2.VideoCapture(name)  # closed when nobody holds it any more
        self.promised, self.rate = (self.capture.get(of) for of in (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FPS))

    def frames(self, every: int, skip: Callable[[int], bool]) -> Iterator[tuple[int, np.ndarray | None, str]]:
        """Number, pixels and note of every `every`-th frame that is not to be skipped, from 0; uint8 H×W×3 RGB, or None
        if it cannot be decoded. Combed frames are deinterlaced, and the note says so."""
        more = self.capture.grab()
        while more:
            number, wanted = self.count, self.count % every == 0 and not skip(self.count)
            frame = self.capture.retrieve()[1] if wanted else None
            self.count, self.reached_ms = number + 1, self.capture.get(cv2.CAP_PROP_POS_MSEC)
            more = self.capture.grab()
            if frame is not None:
                after = self.capture.retrieve()[1] if more else None
                frame, after = self._checked(number, frame, after)
                combed = is_combed(frame, after, self.interlaced)
                self.interlaced |= combed
                rgb = cv2.cvtColor(deinterlaced(frame) if combed else frame, cv2.COLOR_BGR2RGB)
                yield number, rgb, DEINTERLACED if combed else ""
            elif wanted:
                yield number, None, ""

    def _checked(self, number: int, *pair: np.ndarray | None) -> tuple[np.ndarray | None, ...]:
        """A frame and the one after it, unless OpenCV made them of nothing: 4.13 and 5.0 do not convert what is flagged
        as interlaced, but return what they did before, black at first. Then all is read anew by way of FFmpeg's filters
        that take the flag away. Only a frame that is like the next is doubted, and once a video."""
        frame, after = pair
        doubtful = number == 0 if after is None else np.array_equal(frame, after)
        if self.trusted or not doubtful or self.capture.get(cv2.CAP_PROP_ORIENTATION_META):
            return pair
        self.trusted, other = True, _through_filters(self.path)
        if not all(other.grab() for _ in range(number + 1)):
            return pair
        same, more = other.retrieve()[1], other.grab()
        if same is None or same.shape != frame.shape or np.array_equal(same, frame):
            return pair
        self.capture = other
        return same, other.retrieve()[1] if more else None

    def fault(self) -> str:
        """A sentence, or nothing. A header's number of frames is a guess (variable rate, edit lists, long audio), so
        that few frames are no damage, unless the file's own structure says that it breaks off."""
        if not self.count:
            return "is not a video that OpenCV can decode; it may be damaged"
        seen = max(self.count, self.reached_ms / 1000 * self.rate + 1)
        if 0 < self.promised <= seen + 3 or not is_cut_off(self.path):
            return ""
        count = f"{self.count} of {self.promised:.0f}" if self.promised > 0 else f"{self.count}"
        return f"ends after {count} frames: the file is cut off; what could be read was detected; copy it again"


def _through_filters(path: Path) -> cv2.VideoCapture:
    with plain_path(path) as name, reading.quiet():
        name = re.sub(r"([\\'\[\],;])", r"\\\1", re.sub(r"([\\':])", r"\\\1", name))  # FFmpeg reads it twice
        before = os.environ.get(OPTIONS)
        os.environ[OPTIONS] = "input_format;lavfi"
        try:
            return cv2.VideoCapture(f"movie={name},setfield=prog", cv2.CAP_FFMPEG)
        finally:
            os.environ.pop(OPTIONS)
            if before is not None:
                os.environ[OPTIONS] = before


def is_cut_off(path: Path) -> bool:
    """Whether a video file is shorter than its container says, or ends in zeros, as a copy does that was broken off."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 4096))
        return not any(file.read()) or _promised_bytes(file) > size


def _promised_bytes(file: BinaryIO) -> int:
    """Where a file ends by the lengths that are written in it; 0 for a container that says none."""
    file.seek(0)
    head = file.read(1 << 16)
    if head[4:8] in BOXES:
        return _walk(file, 0, 16, lambda part: int.from_bytes(part[8:] if part[:4] == LONG_BOX else part[:4]))
    if head.startswith(b"RIFF"):  # AVI, in one piece or in several
        return _walk(file, 0, 8, lambda part: 8 + int.from_bytes(part[4:], "little") if part[:4] == b"RIFF" else 0)
    if head.startswith(b"FLV"):
        return _walk(file, 13, 11, lambda tag: 15 + int.from_bytes(tag[1:4]) if tag[0] in (8, 9, 18) else 0)
    if head.startswith(ASF) and (at := head.find(ASF_FILE)) > 0:
        return int.from_bytes(head[at + 40 : at + 48], "little")
    if head.startswith(EBML):  # Matroska, WebM: a header, then one segment
        length, begin = _variable(head, 4)
        return sum(_variable(head, begin + length + 4))
    return 0


def _walk(file: BinaryIO, position: int, header: int, length: Callable[[bytes], int]) -> int:
    """Where the last of the parts ends that follow each other from `position`, by the lengths in their headers."""
    step = 1
    while step > 0:
        file.seek(position)
        part = file.read(header)
        step = length(part) if len(part) == header else 0
        position += step
    return position


def _variable(head: bytes, at: int) -> tuple[int, int]:
    """A number of Matroska's and where it ends; 0 if it says that the length is unknown, or is not there."""
    count = 9 - head[at].bit_length() if at < len(head) else 8
    value, most = int.from_bytes(head[at : at + count]), (1 << 7 * count) - 1
    return (value & most) % most, at + count


def is_combed(frame: np.ndarray, after: np.ndarray | None, interlaced: bool) -> bool:
    """Whether two moments are woven into one frame (uint8 H×W×3), line by line. Stripes of a plain video look like that
    too, but keep to them when lines of the frame `after` are woven in, whichever of the two kinds; moments do not: one
    weave joins neighbours, the other those three apart. Less is asked of a video that is known to be `interlaced`, and
    of its last frame no more than that it looks so."""
    now = _lines(frame)
    here = _combs(now)
    if here < COMBED or after is None or after.shape != frame.shape:
        return here >= COMBED and interlaced
    then = _lines(after)
    weaves = [now.copy(), then.copy()]
    weaves[0][1::2], weaves[1][1::2] = then[1::2], now[1::2]
    near, far = sorted(map(_combs, weaves))
    chance = 5 * ((near + far) / now.size) ** 0.5  # five standard deviations of what noise does to two counts
    return (interlaced or near < 3 * here) and far > 0.8 * here and far - near > max(0.15 * near + COMBED, chance)


def _lines(frame: np.ndarray) -> np.ndarray:
    step = max(1, frame.shape[1] // 200)  # so many columns are enough
    return cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)[:, ::step].astype(np.int16)


def _combs(lines: np.ndarray) -> float:
    """The share of pixels that are brighter or darker than both neighbours above and below, which are alike."""
    up, middle, down = lines[:-2], lines[1:-1], lines[2:]
    above, below = middle - up, middle - down
    sticks_out = (np.minimum(above, below) > CLOSE) | (np.maximum(above, below) < -CLOSE)
    return float((sticks_out & (np.abs(up - down) < CLOSE)).mean()) if middle.size else 0.0


def deinterlaced(frame: np.ndarray) -> np.ndarray:
    """The frame with its odd lines made of the even ones above and below, which are of one moment."""
    lines = frame.copy()
    lines[1:-1:2] = cv2.addWeighted(frame[:-2:2], 0.5, frame[2::2], 0.5, 0)
    if len(lines) % 2 == 0:
        lines[-1] = lines[-2]
    return lines
