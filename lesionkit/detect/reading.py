"""The images behind the inputs, one after the other: image files, and every N-th frame of videos."""

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

from lesionkit import datasets
from lesionkit.detect.inputs import Source, is_video

AHEAD = 3  # images that are read before the model asks for them


@dataclass(frozen=True)
class Item:
    """One image that was read, or the reason why it was not."""

    input: str
    stem: str = ""
    image: np.ndarray | None = None  # uint8 H×W×3 RGB
    error: str = ""
    seconds: float = 0.0


def read_all(found: Iterable[Source], every: int) -> Iterator[Item]:
    """Every image and every `every`-th frame of the videos, one at a time."""
    for source in found:
        if source.path is None:
            yield Item(source.input, error=source.error)
        elif is_video(source.path):
            yield from _read_video(source, every)
        else:
            start, image, error = time.perf_counter(), None, ""
            try:
                image = datasets.read_image(source.path)
            except datasets.DatasetError as problem:
                error = str(problem)
            yield Item(source.input, source.stem, image, error, time.perf_counter() - start)


def _read_video(source: Source, every: int) -> Iterator[Item]:
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # our own sentence says what FFmpeg would print
    capture = cv2.VideoCapture(str(source.path))  # closed when nobody holds it any more
    promised, count, start = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0, time.perf_counter()
    while capture.grab():
        if count % every == 0:
            good, frame = capture.retrieve()
            image = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) if good else None
            error = "" if good else "this frame cannot be decoded"
            seconds = time.perf_counter() - start
            yield Item(f"{source.input}#frame={count}", f"{source.stem}_{count:06d}", image, error, seconds)
            start = time.perf_counter()
        count += 1
    if count == 0:
        yield Item(source.input, error="is not a video that OpenCV can decode; it may be damaged")
    elif count < 0.98 * promised - 2:  # the number in the header of a sound video is sometimes off by a few
        error = f"ends after {count} of {promised} frames; what could be read was detected; copy the file again"
        yield Item(source.input, error=error)


def read_ahead(items: Iterator[Item], depth: int = AHEAD) -> Iterator[Item]:
    """The same items in the same order, up to `depth` of them read while the model is busy."""
    with ThreadPoolExecutor(1) as pool:  # one thread, so that the iterator advances in order
        waiting = deque(pool.submit(next, items, None) for _ in range(depth))
        while (item := waiting.popleft().result()) is not None:
            waiting.append(pool.submit(next, items, None))
            yield item
