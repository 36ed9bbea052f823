"""What torch's threads lose on a busy machine by the way they wait for each other, and what that costs on a quiet one.

    python benchmarks/busy.py                    # the kit's own setting against libgomp's and a few others
    python benchmarks/busy.py --spins 3000,30000 # other numbers, to choose `lesionkit.SPINS`

Rendering, training and detecting, each setting in a process of its own (libgomp reads it once), in turn, without and
with a process beside it that holds one core. The ratio is speed to that of libgomp's own setting on the quiet machine,
round by round. Everything is kept on `--cores` cores where the system can do that. Wants a machine with nothing else to
do: the load at the start stands in the JSON file.
"""

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
import report

import lesionkit
from lesionkit import frames, fusion, losses, scenes, training
from lesionkit.detector import Detector
from lesionkit.devices import resolve
from lesionkit.fitting import TrainConfig

OWN = "libgomp's own, 300000"
SETTINGS = {
    OWN: {"GOMP_SPINCOUNT": "300000"},
    f"lesionkit.SPINS, {lesionkit.SPINS}": {"GOMP_SPINCOUNT": str(lesionkit.SPINS)},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
DECIDED = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")


def works() -> dict[str, Callable[[], object]]:
    """What is timed, by name; each call is one unit of it."""
    seen = frames.rendered_frames("train", 16, 128)
    image = fusion.to_array(seen.raw[0])
    detector, config = Detector.from_pretrained("reference", device="cpu").fuse(), TrainConfig(1, batch_size=8)
    return {
        "scenes": lambda: scenes.render_scenes(1, 128, 0, "cpu"),
        "epochs of 16 frames": lambda: training.train_segmenter(
            seen, seen.depth, losses.binary_cross_entropy, config, log=lambda _: None
        ),
        "detections": lambda: detector(image),
    }


def measure(seconds: float) -> dict[str, float]:
    """Units a second of each work, in this process; the first call does not count."""
    rates = {}
    for name, work in works().items():
        work()
        start, count = time.perf_counter(), 0
        while (passed := time.perf_counter() - start) < seconds:
            work()
            count += 1
        rates[name] = count / passed
    return rates


def measured(setting: dict[str, str], seconds: float) -> dict[str, float]:
    """`measure` in a process that libgomp finds so set."""
    environment = {name: value for name, value in os.environ.items() if name not in DECIDED} | setting
    command = [sys.executable, __file__, "--measure", "--seconds", str(seconds)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


@contextmanager
def neighbour(busy: bool) -> Iterator[None]:
    """Beside it a process holds one core, if the machine is to be busy."""
    if not busy:
        yield
        return
    holding = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        holding.kill()
        holding.wait()


def compare(settings: dict[str, dict[str, str]], repeats: int, seconds: float) -> dict[str, dict]:
    """Speeds, and their ratios to OWN on the quiet machine, by setting and work, quiet and busy."""
    rates = defaultdict(list)
    for _ in range(repeats):
        for busy in (False, True):
            for name, setting in settings.items():
                with neighbour(busy):
                    for work, rate in measured(setting, seconds).items():
                        rates[name, "busy" if busy else "quiet", work].append(rate)
    results: dict[str, dict] = defaultdict(lambda: defaultdict(dict))
    for (name, how, work), values in rates.items():
        ratios = [rate / own for rate, own in zip(values, rates[OWN, "quiet", work], strict=True)]
        results[name][work][how] = {"per_second": report.spread(values), "ratio": report.spread(ratios)}
    return results


@click.command()
@click.option("--spins", default="", help="More values of GOMP_SPINCOUNT to try, with commas between.")
@click.option("--repeats", default=3, show_default=True)
@click.option("--seconds", default=4.0, show_default=True, help="Of each work in each process.")
@click.option("--cores", default=2, show_default=True, help="Cores to keep to.")
@click.option("--measure", "is_child", is_flag=True, hidden=True)
def main(spins: str, repeats: int, seconds: float, cores: int, is_child: bool) -> None:
    """Measure a busy machine; see the head of this file."""
    if is_child:
        click.echo(json.dumps(measure(seconds)))
        return
    if hasattr(os, "sched_setaffinity"):  # children inherit it
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    facts = report.machine(resolve("cpu")) | {"threads": cores}
    more = {f"GOMP_SPINCOUNT={value}": {"GOMP_SPINCOUNT": value} for value in spins.split(",") if value}
    results = compare(SETTINGS | more, repeats, seconds)
    works_ = list(results[OWN])
    columns = [(work, how) for work in works_ for how in ("quiet", "busy")]
    rows = [("speed, 1 = libgomp's own on a quiet machine", *(f"{work}, {how}" for work, how in columns))]
    rows += [
        (name, *(f"{found[work][how]['ratio']['median']:.2f}" for work, how in columns))
        for name, found in results.items()
    ]
    report.table(rows)
    report.write("busy", facts, {"repeats": repeats, "seconds": seconds, "cores": cores, "spins": spins}, results)


if __name__ == "__main__":
    main()
