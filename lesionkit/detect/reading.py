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
from lesionkit.detect.inputs import VIDEOS, Failure, InputFile

AHEAD = 3  # images that are read before the model asks for them


@dataclass(frozen=True)
class Item:
    """One image that was read, or the reason why it was not."""

    input: str
    stem: str
    image: np.ndarray | None  # uint8 H×W×3 RGB
    error: str
    seconds: float


def read_all(found: Iterable[InputFile | Failure], every: int) -> Iterator[Item]:
    """Every image and every `every`-th frame of the videos, one at a time."""
    for source in found:
        if isinstance(source, Failure):
            yield Item(source.input, "", None, source.error, 0.0)
        elif source.path.suffix.lower() in VIDEOS:
            yield from _read_video(source, every)
        else:
            yield _read_image(source)


def _read_image(source: InputFile) -> Item:
    start = time.perf_counter()
    try:
        image, error = datasets.read_image(source.path), ""
    except datasets.DatasetError as problem:
        image, error = None, str(problem)
    return Item(source.input, source.stem, image, error, time.perf_counter() - start)


def _read_video(source: InputFile, every: int) -> Iterator[Item]:
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # our own sentence says what FFmpeg would print
    capture = cv2.VideoCapture(str(source.path))
    try:
        promised = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        count = yield from _frames(source, capture, every)
    finally:
        capture.release()
    if count == 0:
        yield Item(source.input, "", None, "is not a video that OpenCV can decode; it may be damaged", 0.0)
    elif count < 0.98 * promised - 2:  # the number in the header of a sound video is sometimes off by a few
        error = f"ends after {count} of {promised} frames; what could be read was detected; copy the file again"
        yield Item(source.input, "", None, error, 0.0)


def _frames(source: InputFile, capture: cv2.VideoCapture, every: int) -> Iterator[Item]:
    """Yield the chosen frames; return how many frames the video has."""
    number, start = 0, time.perf_counter()
    while capture.grab():
        if number % every == 0:
            good, frame = capture.retrieve()
            image = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) if good else None
            error = "" if good else "this frame cannot be decoded"
            seconds = time.perf_counter() - start
            yield Item(f"{source.input}#frame={number}", f"{source.stem}_{number:06d}", image, error, seconds)
            start = time.perf_counter()
        number += 1
    return number


def read_ahead(items: Iterator[Item], depth: int = AHEAD) -> Iterator[Item]:
    """The same items in the same order, up to `depth` of them read while the model is busy."""
    with ThreadPoolExecutor(1) as pool:  # one thread, so that the iterator advances in order
        waiting = deque(pool.submit(next, items, None) for _ in range(depth))
        while (item := waiting.popleft().result()) is not None:
            waiting.append(pool.submit(next, items, None))
            yield item
