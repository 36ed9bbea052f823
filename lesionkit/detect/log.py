"""detections.json while a call adds to it: alone in its folder, and on disk however the call ends."""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from lesionkit import files
from lesionkit.detect.outputs import ENDINGS, RESULTS
from lesionkit.detect.results import CLAIMS, Entry, Held, Source, UsageError

LOCK = ".detections.lock"
WRITE_S = 1.0  # seconds between two writings, more where one takes long


class Log:
    """The entries that a folder keeps until this call replaces them, and those that it adds.

    `finished` are the pictures that a call which goes on need not make again.
    """

    def __init__(self, held: Held, found: Sequence[Source], resume: bool):
        self.held, self.path = held, held.out / RESULTS
        self.asked = {source.file: source.stem for source in found if source.path}
        again = {key for key in held.entries if held.files[key] in self.asked}
        self.finished = {key for key in held.finished if resume and (held.out / f"{key}{ENDINGS[0]}").is_file()}
        self.replaced = {key for key in held.finished if not resume and key in again}
        stay = [key for key in held.entries if not key.startswith("/") or (resume and key not in again)]
        self.texts = {key: _text(held.entries[key]) for key in stay}
        self.changed, self.turn, self.pause_s = True, threading.Lock(), WRITE_S

    def add(self, stem: str, entry: Entry) -> None:
        """An entry, and what its pictures are called."""
        key = f"/{entry['input']}" if "error" in entry else stem
        with self.turn:
            self.texts.pop(key, None)  # it goes to the end
            self.texts[key], self.changed = _text(entry), True
            self.replaced.discard(key)

    def write(self) -> None:
        with self.turn:
            text, changed, self.changed = ",\n".join(self.texts.values()), self.changed, False
        if changed:
            start, content = time.perf_counter(), f"[\n{text}\n]\n" if text else "[]\n"
            # a file name that is no UTF-8 becomes JSON's own escape
            self.path = files.write_bytes(self.held.out / RESULTS, content.encode(errors="backslashreplace"))
            self.pause_s = max(WRITE_S, 20 * (time.perf_counter() - start))

    def keep(self, ended: threading.Event) -> None:
        """Write every now and then."""
        while not ended.wait(self.pause_s):
            try:
                self.write()
            except OSError:  # a disk that is full for now; the last writing will say so
                self.changed = True

    def drop_replaced(self) -> None:
        """What an earlier call made of the same files, and this one did not make again."""
        for key in self.replaced:
            del self.texts[key]
            for ending in ENDINGS:
                (self.held.out / f"{key}{ending}").unlink(missing_ok=True)
        self.changed |= bool(self.replaced)


def _text(entry: Entry) -> str:
    return json.dumps(entry, ensure_ascii=False, allow_nan=False)


@contextmanager
def opened(out: Path, found: Sequence[Source], resume: bool) -> Iterator[Log]:
    """The log of a call: an entry is on disk a second or two after it was added, and all are in the end, however the
    call ends. Raises UsageError when another call writes there, or has since the inputs were found."""
    with _alone(out):
        held = Held(out)
        held.check(found, resume)
        log = Log(held, found, resume)
        files.write_json(out / CLAIMS, held.claims | log.asked)
        log.write()
        ended = threading.Event()
        keeper = threading.Thread(target=log.keep, args=(ended,), daemon=True)
        keeper.start()
        try:
            yield log
            log.drop_replaced()
        finally:
            ended.set()
            keeper.join()
            log.write()
            others = {file: stem for file, stem in held.claims.items() if file not in log.asked}
            if log.path.name == RESULTS:  # else nothing but the claims tells whose the pictures are
                files.write_json(out / CLAIMS, others) if others else (out / CLAIMS).unlink()


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    out.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(out / LOCK, blocking=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise UsageError(f"another call writes into {out}: wait for it, or give another --out") from None
    try:
        yield
    finally:
        with suppress(OSError):  # Windows keeps what is open
            (out / LOCK).unlink()
        lock.release()
