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

from lesionkit import files
from lesionkit.detect import outputs
from lesionkit.detect.inputs import Source
from lesionkit.detect.reading import Item, read_ahead, read_all

WAITING = 3  # results that wait to be written
PROGRESS_S = 5.0  # seconds between two progress lines


@dataclass
class Job:
    """One call: a detector and an output folder. After an interruption `entries` holds what is finished."""

    detector: Callable[[np.ndarray], outputs.Found]
    out: Path
    echo: Callable[[str], None] = click.echo
    entries: list[dict[str, Any]] = field(default_factory=list)
    _writing: deque[Future] = field(default_factory=deque)  # of entries, in order

    def run(self, found: Sequence[Source], every: int = 25) -> list[dict[str, Any]]:
        """Detect in everything found and write detections.json, even when interrupted (raised again)."""
        start = last = time.perf_counter()
        items, results = read_ahead(read_all(found, every)), self.out / outputs.RESULTS
        if not results.exists():  # a call that is killed leaves pictures that the next one knows as ours
            files.write_json(results, [])
        with ThreadPoolExecutor(1) as writer:
            try:
                for item in items:
                    self._writing.append(self._detect(item, writer))
                    self._drain(WAITING)
                    if time.perf_counter() - last > PROGRESS_S:
                        last, done = time.perf_counter(), len(self.entries) + len(self._writing)
                        speed = f"{done / (last - start):.1f} a second"
                        self.echo(f"{done} done, {speed}, now {item.input} ({len(found)} inputs)")
            finally:
                items.close()
                self._drain(0)
                files.write_json(results, self.entries)
        return self.entries

    def _detect(self, item: Item, writer: ThreadPoolExecutor) -> Future:
        """The entry of one image, to be had when its pictures are written."""
        start, error = time.perf_counter(), item.error
        if item.image is not None:
            try:
                found = self.detector(item.image)
                entry = outputs.entry(item.input, found)
                entry["seconds"] = item.seconds + time.perf_counter() - start
                return writer.submit(self._write, item.stem, found, entry)
            except Exception as problem:  # one image must not cost the others; the reason is reported, not hidden
                error = f"the detector failed: {_one_line(problem)}"
        return writer.submit(dict, input=item.input, error=error)

    def _write(self, stem: str, found: outputs.Found, entry: dict[str, Any]) -> dict[str, Any]:
        start = time.perf_counter()
        try:
            outputs.write(self.out, stem, found)
        except Exception as error:  # a full disk, or pixels that cannot be encoded
            return {"input": entry["input"], "error": f"cannot be written: {_one_line(error)}"}
        return entry | {"seconds": round(entry["seconds"] + time.perf_counter() - start, 4)}

    def _drain(self, leave: int) -> None:
        """Wait for the oldest results to be written until at most `leave` are waiting."""
        while len(self._writing) > leave:
            self.entries.append(self._writing.popleft().result())


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
