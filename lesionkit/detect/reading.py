"""The images behind the inputs, one after the other: image files, and frames of stacks and videos."""

import time
from collections import deque
from collections.abc import Container, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from lesionkit import datasets
from lesionkit.detect import stacks, videos
from lesionkit.detect.results import Source

AHEAD = 3  # images that are read before the model asks for them


@dataclass(frozen=True)
class Item:
    """One image that was read, or the reason why it was not."""

    input: str
    stem: str = ""
    image: np.ndarray | None = None  # uint8 H×W×3 RGB
    error: str = ""
    seconds: float = 0.0
    more: dict[str, str] = field(default_factory=dict)  # what its entry says besides


def read_all(found: Iterable[Source], every: int, finished: Container[str] = ()) -> Iterator[Item]:
    """Every image, every frame of image files that hold several and every `every`-th of the videos, one at a time, but
    for the stems that are `finished`."""
    for source in found:
        try:
            if source.path is None:
                yield Item(source.input, error=source.error)
            elif source.kind == "image":
                yield from _read_image(source, finished)
            else:
                yield from _read_frames(source, every, finished)
        except Exception as problem:  # nothing that a file holds may end the others
            told = str(problem) if isinstance(problem, datasets.DatasetError) else f"cannot be read: {problem!r}"
            yield Item(source.input, error=" ".join(told.split()))


def _read_image(source: Source, finished: Container[str]) -> Iterator[Item]:
    if source.stem not in finished:
        start, image = time.perf_counter(), datasets.read_image(source.path)
        yield Item(source.input, source.stem, image, "", time.perf_counter() - start, source.marks)


def _read_frames(source: Source, every: int, finished: Container[str]) -> Iterator[Item]:
    skip, start = (lambda number: f"{source.stem}_{number:06d}" in finished), time.perf_counter()
    video = videos.Video(source.path) if source.kind == "video" else None
    for number, image, note in video.frames(every, skip) if video else stacks.frames(source.path, skip):
        name, stem = f"{source.input}#frame={number}", f"{source.stem}_{number:06d}"
        error = "" if image is not None else "this frame cannot be decoded"
        more = source.marks | ({"note": note} if note else {})
        yield Item(name, stem, image, error, time.perf_counter() - start, more)
        start = time.perf_counter()
    if video and (fault := video.fault()):
        yield Item(source.input, error=fault)


def read_ahead(items: Iterator[Item], depth: int = AHEAD) -> Iterator[Item]:
    """The same items in the same order, up to `depth` of them read while the model is busy."""
    pool = ThreadPoolExecutor(1)  # one thread, so that the iterator advances in order
    try:
        waiting = deque(pool.submit(next, items, None) for _ in range(depth))
        while (item := waiting.popleft().result()) is not None:
            waiting.append(pool.submit(next, items, None))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)  # at an interruption, nothing more is read
