"""Detection over many inputs: read, detect, write masks and overlays, and one detections.json.

An image STEM.jpg becomes STEM_mask.png and STEM_overlay.jpg. Of a video every N-th frame is detected,
counted from 0: frame 25 of VIDEO.mp4 becomes VIDEO_000025_mask.png and so on,
and its entry names "VIDEO.mp4#frame=25".
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np

from lesionkit.datasets import samples as datasets
from lesionkit.detect.inputs import OUTPUTS, RESULTS, VIDEOS, Failure, InputFile
from lesionkit.runs import records as runs

AHEAD = 3  # images read before the model asks for them, and results that wait to be written
PROGRESS_S = 5.0  # seconds between two progress lines


# --- reading -------------------------------------------------------------------------------------------


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
        error = (
            f"ends after {count} of {promised} frames; what could be read was detected; copy the file again"
        )
        yield Item(source.input, "", None, error, 0.0)


def _frames(source: InputFile, capture: cv2.VideoCapture, every: int) -> Iterator[Item]:
    """Yield the chosen frames; return how many frames the video has."""
    number = 0
    start = time.perf_counter()
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


# --- detecting and writing -----------------------------------------------------------------------------


@dataclass
class Job:
    """One call: a detector and an output folder. After an interruption `entries` holds what is finished."""

    detector: Callable[[np.ndarray], Any]
    out: Path
    echo: Callable[[str], None] = click.echo
    entries: list[dict[str, Any]] = field(default_factory=list)
    _writing: deque[tuple[Future, dict]] = field(default_factory=deque)

    def run(self, found: Sequence[InputFile | Failure], every: int = 25) -> list[dict[str, Any]]:
        """Detect in everything found and write detections.json, even when interrupted (raised again)."""
        start = last = time.perf_counter()
        items = read_ahead(read_all(found, every))
        if not (self.out / RESULTS).exists():  # a call that is killed leaves pictures that the next one knows as ours
            runs.write_json(self.out / RESULTS, [])
        with ThreadPoolExecutor(1) as writer:
            try:
                for item in items:
                    self._detect(item, writer)
                    if time.perf_counter() - last > PROGRESS_S:
                        last = time.perf_counter()
                        self._progress(item, last - start, len(found))
            finally:
                items.close()
                self._drain(0)
                runs.write_json(self.out / RESULTS, self.entries)
        return self.entries

    def _progress(self, item: Item, seconds: float, total: int) -> None:
        done = len(self.entries) + len(self._writing)
        self.echo(f"{done} done, {done / seconds:.1f} a second, now {item.input} ({total} inputs)")

    def _detect(self, item: Item, writer: ThreadPoolExecutor) -> None:
        start = time.perf_counter()
        if item.image is None:
            self._writing.append((writer.submit(dict), {"input": item.input, "error": item.error}))
            return
        try:
            result = self.detector(item.image)
            entry = _entry(item, result)
        except Exception as error:  # one image must not cost the others; the reason is reported, not hidden
            failure = {"input": item.input, "error": f"the detector failed: {_one_line(error)}"}
            self._writing.append((writer.submit(dict), failure))
            return
        entry["seconds"] = item.seconds + time.perf_counter() - start
        self._writing.append((writer.submit(write_pictures, self.out, item.stem, result), entry))
        self._drain(AHEAD)

    def _drain(self, leave: int) -> None:
        """Wait for the oldest results to be written until at most `leave` are waiting."""
        while len(self._writing) > leave:
            written, entry = self._writing.popleft()
            try:
                seconds = written.result()
                if "seconds" in entry:
                    entry["seconds"] = round(entry["seconds"] + seconds, 4)
            except Exception as error:  # a full disk, or pixels that cannot be encoded
                entry = {"input": entry["input"], "error": f"cannot be written: {_one_line(error)}"}
            self.entries.append(entry)


def _entry(item: Item, result: Any) -> dict[str, Any]:
    """The entry of detections.json; its pixels count in the input, upright, from the top left corner."""
    height, width = item.image.shape[:2]
    lesions = [
        {
            "bbox_px": [int(edge) for edge in lesion.bbox_px],
            "area_px": int(lesion.area_px),
            "area_fraction": runs.plain(float(lesion.area_fraction)),
            "score": runs.plain(float(lesion.score)),
        }
        for lesion in result.lesions
    ]
    return {"input": item.input, "width": width, "height": height, "lesions": lesions, "seconds": 0.0}


def write_pictures(out: Path, stem: str, result: Any) -> float:
    """Write STEM_mask.png ({0, 255}, one channel) and STEM_overlay.jpg, both or none; return the seconds.

    Raises OSError when the folder cannot be written to.
    """
    start = time.perf_counter()
    mask = np.asarray(result.mask).astype(np.uint8) * 255
    overlay = cv2.cvtColor(result.overlay(), cv2.COLOR_RGB2BGR)
    files = {
        out / f"{stem}{OUTPUTS[0]}": _encode(".png", mask, [cv2.IMWRITE_PNG_COMPRESSION, 1]),
        out / f"{stem}{OUTPUTS[1]}": _encode(".jpg", overlay, [cv2.IMWRITE_JPEG_QUALITY, 90]),
    }
    try:
        for path, content in files.items():
            runs.write_bytes(path, content)
    except OSError:
        for path in files:
            path.unlink(missing_ok=True)
        raise
    return time.perf_counter() - start


def _encode(ending: str, pixels: np.ndarray, options: list[int]) -> bytes:
    good, content = cv2.imencode(ending, pixels, options)
    if not good:
        raise OSError(f"OpenCV cannot write {ending} of {pixels.shape}")
    return content.tobytes()


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
