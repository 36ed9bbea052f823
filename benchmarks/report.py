"""What the benchmarks share: seconds on any device, the machine in words, a table, and the JSON in results/."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import pandas as pd
import torch

from lesionkit import files, metrics, runs

RESULTS = Path(__file__).resolve().parent / "results"


def machine(device: torch.device) -> dict[str, Any]:
    """What numbers depend on; no host name and no path."""
    facts = {"cpu": _cpu_model(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
    # the load tells the reader whether the machine was quiet; one minute's mean, before the measurement's own
    return {**facts, "device": str(device), "load": round(os.getloadavg()[0], 2), "versions": runs.versions()}


def _cpu_model() -> str:
    """The processor's name; Linux says it in /proc/cpuinfo, the others through `platform`."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    """How long one call takes, the device's queue included."""
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    """Wait for what was queued on the device: CUDA and MPS return from a call before its work is done."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest: with a handful of repeats these say more than a deviation."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "repeats": len(values)}


def means(frame: pd.DataFrame, columns: Sequence[str], groups: Sequence[str] | None = None) -> dict[str, float]:
    """Mean, and 95 % bootstrap interval as NAME_low and NAME_high, of each column: one row of a table. groups: the
    video of each row, of which whole ones are drawn."""
    line = {}
    for column in columns:
        one = metrics.bootstrap_mean(frame[column], groups=groups)
        line |= {column: one.mean, f"{column}_low": one.low, f"{column}_high": one.high}
    return line


def table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        click.echo("  ".join([row[0].ljust(widths[0]), *cells]))


def write(name: str, facts: dict[str, Any], settings: dict[str, Any], results: dict[str, Any]) -> None:
    """Write results/NAME.json, or NAME_cuda.json for what a GPU did."""
    content = {"benchmark": name, "machine": facts, "settings": settings, "results": results}
    kind = torch.device(facts["device"]).type
    path = files.write_json(RESULTS / f"{name if kind == 'cpu' else f'{name}_{kind}'}.json", files.plain(content))
    click.echo(f"{facts['cpu']}, {facts['cores']} cores, device {facts['device']}, load {facts['load']}")
    click.echo(f"written: {path.relative_to(RESULTS.parent.parent)}")
