"""The drawing of scenes by other processes, ahead of a renderer that would wait for it: a GPU's."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from itertools import islice
from multiprocessing import get_context

from lesionkit.scenes.config import SceneConfig
from lesionkit.scenes.sampling import SceneParameters, draw

AHEAD = 2  # chunks that each process may be ahead of the renderer


class WorkerError(RuntimeError):
    """The processes that draw have ended; one sentence."""


def draw_ahead(
    seed: int, chunks: Iterable[Sequence[int]], config: SceneConfig, workers: int = 0
) -> Iterator[SceneParameters]:
    """`draw` for one chunk of numbers after the other; by as many processes as `workers` says, ahead of who asks.
    Raises WorkerError when one of them dies; the next stream begins with new ones."""
    if not workers:
        yield from (draw(seed, numbers, config) for numbers in chunks)
        return
    pool = _pool(workers)
    submitted = (pool.submit(draw, seed, numbers, config) for numbers in chunks)
    waiting = deque()
    try:
        waiting.extend(islice(submitted, AHEAD * workers))
        while waiting:
            drawn = waiting.popleft().result()
            waiting.extend(islice(submitted, 1))
            yield drawn
    except BrokenProcessPool:
        _pool.cache_clear()
        message = 'a process that draws scenes has ended: a script needs `if __name__ == "__main__"`, or use workers=0'
        raise WorkerError(message) from None
    finally:  # where nobody asks for the rest
        for future in waiting:
            future.cancel()


@lru_cache(maxsize=1)
def _pool(workers: int) -> ProcessPoolExecutor:
    """Kept for the next stream; ends with this process. A fork would copy a process that runs a GPU."""
    return ProcessPoolExecutor(workers, get_context("spawn"))
