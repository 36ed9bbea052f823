"""Detection over many inputs: read, detect, write pictures, and one detections.json.

Frames of videos count from 0: number 25 becomes VIDEO_000025_mask.png and so on; its entry names "VIDEO.mp4#frame=25".
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np

from lesionkit.detect import outputs
from lesionkit.detect.reading import Item, read_ahead, read_all
from lesionkit.detect.results import Log, Source, opened

WAITING = 3  # results that wait to be written
PROGRESS_S = 5.0  # seconds between two progress lines


@dataclass
class Job:
    """One call: a detector and an output folder. After an interruption `entries` holds what it finished; a call that
    is to `resume` leaves what the folder holds, and does not do it again."""

    detector: Callable[[np.ndarray], outputs.Found]
    out: Path
    echo: Callable[[str], None] = click.echo
    resume: bool = False
    entries: list[dict[str, Any]] = field(default_factory=list)
    kept: int = 0

    def run(self, found: Sequence[Source], every: int = 25) -> list[dict[str, Any]]:
        """Detect in everything found and write detections.json, even when interrupted (raised again). Raises UsageError
        when the folder is another call's."""
        start = last = time.perf_counter()
        writing: deque[Future] = deque()
        with opened(self.out, found, self.resume) as log, ThreadPoolExecutor(1) as writer:
            self.kept, items = len(log.finished), read_ahead(read_all(found, every, log.finished))
            try:
                for item in items:
                    writing.append(self._detect(item, writer, log))
                    while len(writing) > WAITING:
                        writing.popleft().result()
                    if time.perf_counter() - last > PROGRESS_S:
                        last, done = time.perf_counter(), len(self.entries) + len(writing)
                        speed = f"{done / (last - start):.1f} a second"
                        self.echo(f"{done} done, {speed}, now {item.input} ({len(found)} inputs)")
            finally:
                items.close()
        return self.entries

    def _detect(self, item: Item, writer: ThreadPoolExecutor, log: Log) -> Future:
        """The work of writing an image's pictures and its entry, in turn."""
        start, error = time.perf_counter(), item.error
        if item.image is not None:
            try:
                found = self.detector(item.image)
                entry = outputs.entry(item.input, found) | item.more
                entry["seconds"] = item.seconds + time.perf_counter() - start
                return writer.submit(self._write, item.stem, found, entry, log)
            except Exception as problem:  # one image must not cost the others; the reason is reported, not hidden
                error = f"the detector failed: {_one_line(problem)}"
        return writer.submit(self._add, item.stem, {"input": item.input, "error": error}, log)

    def _write(self, stem: str, found: outputs.Found, entry: dict[str, Any], log: Log) -> None:
        start = time.perf_counter()
        try:
            outputs.write(self.out, stem, found)
            entry["seconds"] = round(entry["seconds"] + time.perf_counter() - start, 4)
        except Exception as error:  # a full disk, or pixels that cannot be encoded
            entry = {"input": entry["input"], "error": f"cannot be written: {_one_line(error)}"}
        self._add(stem, entry, log)

    def _add(self, stem: str, entry: dict[str, Any], log: Log) -> None:
        self.entries.append(entry)
        log.add(stem, entry)


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
