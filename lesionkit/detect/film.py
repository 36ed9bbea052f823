"""Annotated videos: every frame of the source, with what was found in the last one that was looked at.

H.264 in MP4, which browsers play, by PyAV. That is an extra, as its encoder x264 is GPL.
"""

from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from lesionkit import fusion
from lesionkit.detect import videos
from lesionkit.detect.reading import Entry
from lesionkit.detect.results import UsageError

QUALITY = {"crf": "20", "preset": "veryfast"}  # of x264: no loss that a person sees, as fast as detection


def library() -> Any:
    """PyAV. Raises UsageError where it is not installed."""
    try:
        import av
    except ImportError:
        raise UsageError("--save video needs PyAV: pip install 'lesionkit[video]'") from None
    return av


class Film:
    """A file that is written frame by frame, uint8 H×W×3 RGB of one size, and stands there once it is closed."""

    def __init__(self, path: Path, rate: float):
        self.path, self.rate = path, Fraction(rate).limit_denominator(1001)
        self.neighbour, self.file = path.with_name(f".{path.name}.part"), None

    def add(self, frame: np.ndarray) -> None:
        even = np.pad(frame, ((0, len(frame) % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
        if self.file is None:  # the first one says the size
            self.file = library().open(str(self.neighbour), "w", format="mp4", options={"movflags": "+faststart"})
            self.stream = self.file.add_stream("libx264", rate=self.rate, options=QUALITY)
            self.stream.pix_fmt = "yuv420p"  # others do not play everywhere; it wants even sides
            self.stream.height, self.stream.width = even.shape[:2]
        self.file.mux(self.stream.encode(library().VideoFrame.from_ndarray(even, format="rgb24")))

    def close(self) -> None:
        self.file.mux(self.stream.encode())
        self.file.close()
        self.neighbour.replace(self.path)

    def discard(self) -> None:
        with suppress(Exception):
            self.file.close()
        self.neighbour.unlink(missing_ok=True)


class Films:
    """Those of a call, one after the other, of the frames whose entries name one. One that is interrupted leaves
    nothing."""

    def __init__(self, out: Path):
        self.out, self.failed = out, []
        self.name, self.film, self.mask = "", None, None

    def __enter__(self) -> "Films":
        return self

    def __exit__(self, *_error: object) -> None:
        if self.film:
            self.film.discard()

    def show(self, entry: Entry, frame: np.ndarray | None, found: Any = None) -> None:
        """The next frame, with what was found in it or, if it was not looked at, before it."""
        if "film" not in entry or frame is None:
            return
        name = entry["input"].partition("#frame=")[0]
        if name != self.name:
            self.finish()
            self.name, self.mask = name, None
            self.film = Film(self.out / entry["film"], videos.rate(Path(entry["file"])))
        self.mask = found.mask if found else self.mask
        if self.film:
            drawn = frame if self.mask is None else fusion.overlay(frame, self.mask)
            self._try(lambda: self.film.add(drawn))

    def finish(self) -> list[Entry]:
        """The last film is written; returns what could not be, as entries."""
        if self.film:
            self._try(self.film.close)
        self.film = None
        return self.failed

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as problem:  # one film must not cost the other results
            self.failed.append({"input": self.name, "error": f"its video cannot be written: {problem!r}"})
            self.film.discard()
            self.film = None
