"""Detection over many inputs: read, detect, write pictures, and one detections.json.

Frames of videos count from 0: number 25 becomes VIDEO_000025_mask.png and so on; its entry names "VIDEO.mp4#frame=25".
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np

from lesionkit import files
from lesionkit.detect import outputs
from lesionkit.detect.film import Films
from lesionkit.detect.reading import Entry, Source, read_ahead, read_all
from lesionkit.detect.results import Results, film_of, opened
from lesionkit.detect.tracks import Tracks

WAITING = 3  # results that wait to be written
PROGRESS_S = 5.0  # seconds between two progress lines


@dataclass
class Job:
    """One call: a detector and an output folder. After an interruption `entries` holds what it finished; a call that
    is to `resume` leaves what the folder holds, and does not do it again. save: some of `outputs.KINDS`; smooth and
    min_frames: as in `tracks.Tracks`."""

    detector: Callable[[np.ndarray], outputs.Found]
    out: Path
    echo: Callable[[str], None] = click.echo
    resume: bool = False
    save: Sequence[str] = outputs.USUAL
    smooth: bool = False
    min_frames: int = 1
    entries: list[Entry] = field(default_factory=list)
    kept: int = 0

    def run(self, found: Sequence[Source], every: int = 25) -> list[Entry]:
        """Detect in everything found and write detections.json, even when interrupted (raised again). Raises UsageError
        when the folder is another call's."""
        start = last = time.perf_counter()
        writing: deque[Future] = deque()
        tracks, is_filmed = Tracks(self.smooth, self.min_frames), "video" in self.save
        with (
            opened(self.out, found, self.resume, self.save) as results,
            Films(self.out) as films,
            ThreadPoolExecutor(1) as writer,
        ):
            frames = read_all(found, every, results.finished, between=is_filmed)
            self.kept, items = len(results.finished), read_ahead(frames)
            try:
                for entry, image in items:
                    answer = None
                    if is_filmed and "time_s" in entry:
                        entry["film"] = film_of(entry["stem"])
                    if "between" not in entry:
                        told, answer = self._detect(entry, image, tracks)
                        writing.append(writer.submit(self._write, results, told, answer))
                    writing.append(writer.submit(films.show, entry, image, answer))
                    while len(writing) > WAITING:
                        writing.popleft().result()
                    if time.perf_counter() - last > PROGRESS_S:
                        last, done = time.perf_counter(), len(self.entries) + len(writing)
                        speed = f"{done / (last - start):.1f} a second"
                        self.echo(f"{done} done, {speed}, now {entry['input']} ({len(found)} inputs)")
                for entry in writer.submit(films.finish).result():
                    results.add(entry)
                    self.entries.append(entry)
            finally:
                items.close()
        return self.entries

    def _detect(self, entry: Entry, image: np.ndarray | None, tracks: Tracks) -> tuple[Entry, outputs.Found | None]:
        if image is None:
            return entry, None
        start = time.perf_counter()
        try:
            found, numbers = tracks.follow(entry, self.detector(image))
            told = entry | outputs.facts(found, self.save)
            for lesion, number in zip(told["lesions"], numbers, strict=False):
                lesion["track"] = number
            return told | {"seconds": entry["seconds"] + time.perf_counter() - start}, found
        except Exception as problem:  # one image must not cost the others; the reason is reported, not hidden
            return {"input": entry["input"], "error": f"the detector failed: {_one_line(problem)}"}, None

    def _write(self, results: Results, entry: Entry, found: outputs.Found | None) -> None:
        start, contents = time.perf_counter(), {}
        try:
            if found is not None:
                pictures = outputs.pictures_of(self.save).items()
                contents = {f"{entry['stem']}{ending}": encode(found) for ending, encode in pictures}
                entry["seconds"] = round(entry["seconds"] + time.perf_counter() - start, 4)
            results.add(entry)  # first: no picture is without an entry
            for name, content in contents.items():
                files.write_bytes(self.out / name, content)
            if contents:  # an earlier call may have been asked for other kinds
                results.clear(entry["stem"], outputs.ENDINGS - outputs.pictures_of(self.save).keys())
        except Exception as error:  # a full disk, or pixels that cannot be encoded
            results.remove(entry["stem"])
            entry = {"input": entry["input"], "error": f"cannot be written: {_one_line(error)}"}
            results.add(entry)
        self.entries.append(entry)


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
