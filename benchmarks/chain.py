"""How long the chain of notebooks takes and how much memory it needs.

    python benchmarks/chain.py

Runs `lesionkit run --profile quick` into a temporary folder, in a process of its own. The minutes of each notebook come
from its record (from its first cell to its record, so without the kernel's start); the total is the whole command.
Memory is the sum of the resident memory of the command and its kernels, looked at five times a second with psutil
(which accelerate brings along). Pages that two processes share count twice, so it is an upper bound.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import psutil
import report

from lesionkit.devices import resolve

EVERY_S = 0.2
COMMAND = (sys.executable, "-c", "from lesionkit.cli import main; main()", "run")


def resident(process: psutil.Process) -> int:
    """Bytes that the process and all below it hold now; one that has just ended counts nothing."""
    total = 0
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for member in family:
        try:
            total += member.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def run_and_watch(arguments: list[str]) -> tuple[float, int]:
    """Seconds and the most bytes held. Raises CalledProcessError when the chain fails."""
    start = time.perf_counter()
    command = subprocess.Popen([*COMMAND, *arguments])
    watched, peak = psutil.Process(command.pid), 0
    try:
        while command.poll() is None:
            peak = max(peak, resident(watched))
            time.sleep(EVERY_S)
    finally:
        if command.poll() is None:  # interrupted: the chain must not go on without anybody watching
            command.terminate()
            command.wait()
    if command.returncode:
        raise subprocess.CalledProcessError(command.returncode, "lesionkit run")
    return time.perf_counter() - start, peak


def notebook_times(records: Path) -> dict[str, dict[str, float]]:
    """Minutes and peak memory of each notebook's kernel, from the records."""
    found = {}
    for path in sorted(records.glob("*.json")):
        environment = json.loads(path.read_text(encoding="utf-8"))["environment"]
        found[path.stem] = {"minutes": environment["duration_s"] / 60, "peak_mb": environment["peak_memory_mb"]}
    return found


def measure(options: dict[str, Any]) -> dict[str, Any]:
    arguments = [f"--{name}={value}" for name, value in options.items() if value is not None]
    with tempfile.TemporaryDirectory() as place:
        seconds, peak = run_and_watch([*arguments, f"--out={place}/run"])
        notebooks = notebook_times(Path(place, "run", "records"))
    return {"notebooks": notebooks, "total_minutes": seconds / 60, "peak_mb": peak / 1e6}


@click.command()
@click.option("--profile", default="quick", show_default=True)
@click.option("--dataset", default="scenes", show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--only", default=None, help="Some notebooks, by number: 02,03.")
@click.option("--device", default="auto", show_default=True)
def main(profile: str, dataset: str, seed: int, only: str | None, device: str) -> None:
    """Measure the chain; see the head of this file."""
    facts = report.machine(resolve(device))
    options = {"profile": profile, "dataset": dataset, "seed": seed, "only": only, "device": device}
    try:
        results = measure(options)
    except subprocess.CalledProcessError as error:
        raise click.ClickException(f"lesionkit run ended with exit code {error.returncode}") from None
    report.table([
        ("notebook", "minutes", "peak MB"),
        *((name, f"{n['minutes']:.2f}", f"{n['peak_mb'] or 0:.0f}") for name, n in results["notebooks"].items()),
        ("the whole command", f"{results['total_minutes']:.2f}", f"{results['peak_mb']:.0f}"),
    ])  # fmt: skip
    shown = dataset.partition(":")[0]  # a folder:PATH is a matter of the machine
    report.write(f"chain_{profile}_{shown}", facts, {**options, "dataset": shown}, results)


if __name__ == "__main__":
    main()
