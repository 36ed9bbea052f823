"""The images behind the inputs, one after the other: image files, and frames of stacks and videos."""

import time
from collections import deque
from collections.abc import Container, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lesionkit import datasets
from lesionkit.detect import stacks, videos

AHEAD = 3  # images that are read before the model asks for them
Entry = dict[str, Any]  # of detections.json
Read = tuple[Entry, np.ndarray | None]  # what is known before the model sees it, and pixels: uint8 H×W×3 RGB


@dataclass(frozen=True)
class Source:
    """One file to read, under its name in detections.json; or why an argument gives none, and then `path` is None."""

    input: str
    file: str  # the same from wherever a call is made
    path: Path | None = None
    stem: str = ""  # what its outputs are called
    error: str = ""
    kind: str = "image"  # or of several frames: "stack", "video"

    def entry(self, number: int | None) -> Entry:
        """The entry of the image, or of a frame, as far as it is known."""
        frame, ending = ("", "") if number is None else (f"#frame={number}", f"_{number:06d}")
        return {"input": f"{self.input}{frame}", "file": self.file, "stem": f"{self.stem}{ending}"}


def read_all(
    found: Iterable[Source], every: int, finished: Container[str] = (), between: bool = False
) -> Iterator[Read]:
    """Every image, every frame of image files that hold several and every `every`-th of the videos, one at a time, but
    for the stems that are `finished`. between: of videos all others, too; their entries say that they are `between`."""
    for source in found:
        try:
            is_video = source.kind == "video"
            yield from _read(source, every if is_video else 1, finished, between and is_video)
        except Exception as problem:  # nothing that a file holds may end the others
            told = str(problem) if isinstance(problem, datasets.DatasetError) else f"cannot be read: {problem!r}"
            yield {"input": source.input, "error": " ".join(told.split())}, None


def _read(source: Source, step: int, finished: Container[str], between: bool) -> Iterator[Read]:
    def is_asked(number: int | None) -> bool:
        return (number or 0) % step == 0

    def wanted(number: int | None) -> bool:
        stem = source.entry((number or 0) // step * step if between else number)["stem"]
        return (between or is_asked(number)) and stem not in finished

    start = time.perf_counter()
    if source.path is None:
        raise datasets.MissingData(source.error)
    rate = videos.rate(source.path) if source.kind == "video" else 0.0
    if source.kind == "image":
        frames = [(None, datasets.read_image(source.path), "")] if wanted(None) else []
    else:
        frames = (videos if source.kind == "video" else stacks).frames(source.path, wanted)
    for number, image, note in frames:
        entry = source.entry(number) | ({"note": note} if note else {}) | {"seconds": time.perf_counter() - start}
        if source.kind == "video":
            entry |= {"time_s": round(number / rate, 3)} | ({} if is_asked(number) else {"between": True})
        if image is None:
            entry = {"input": entry["input"], "error": "this frame cannot be decoded"}
        yield entry, image
        start = time.perf_counter()


def read_ahead(items: Iterator[Read], depth: int = AHEAD) -> Iterator[Read]:
    """The same items in the same order, up to `depth` of them read while the model is busy."""
    pool = ThreadPoolExecutor(1)  # one thread, so that the iterator advances in order
    try:
        waiting = deque(pool.submit(next, items, None) for _ in range(depth))
        while (item := waiting.popleft().result()) is not None:
            waiting.append(pool.submit(next, items, None))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)  # at an interruption, nothing more is read
