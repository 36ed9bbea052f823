"""How fast `detect` is, from an image file to the written mask and overlay, and where the time goes.

    python benchmarks/detect.py

Renders scenes at the model's input size, writes them as PNG into a temporary folder and detects in them, in one
process, two ways:

- one after the other, with a clock around each phase (the phases are those of the real `Detector`, timed from outside);
- as `lesionkit detect` does it: the next image is read and the last result written while the model works.

Each is the median of several repeats over the whole folder, after one that does not count.
"""

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import click
import cv2
import report
import torch

import lesionkit.detector as detector_module
from lesionkit import datasets, files, fusion, scenes
from lesionkit.detect import Job, find_inputs, outputs
from lesionkit.detector import Detector
from lesionkit.devices import resolve

PHASES = ("read", "preprocess", "depth", "segmentation", "restore, overlay, write")


def write_scenes(folder: Path, count: int, size_px: int, device: str) -> list[Path]:
    """`count` rendered scenes as PNG files."""
    folder.mkdir()
    paths = []
    for number, image in enumerate(scenes.render_scenes(count, size_px, 0, device).image):
        paths.append(folder / f"scene_{number:03d}.png")
        cv2.imwrite(str(paths[-1]), cv2.cvtColor(fusion.to_array(image), cv2.COLOR_RGB2BGR))
    return paths


class Clock:
    """Sums up the seconds of each phase, the device's queue included."""

    def __init__(self, device: torch.device):
        self.device, self.seconds = device, defaultdict(float)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        report.synchronize(self.device)
        start = time.perf_counter()
        yield
        report.synchronize(self.device)
        self.seconds[name] += time.perf_counter() - start

    def timed(self, name: str, function: Callable) -> Callable:
        def call(*arguments: Any, **options: Any) -> Any:
            with self.phase(name):
                return function(*arguments, **options)

        return call


def one_by_one(detector: Detector, paths: list[Path], out: Path) -> dict[str, float]:
    """Seconds of each phase over all images; what none of the inner clocks counts is the last phase."""
    clock, (depth_net, segmenter) = Clock(detector.device), detector.running
    inner = (
        mock.patch.object(detector_module, "preprocess", clock.timed("preprocess", detector_module.preprocess)),
        mock.patch.object(depth_net, "forward", clock.timed("depth", depth_net.forward)),
        mock.patch.object(segmenter, "forward", clock.timed("segmentation", segmenter.forward)),
    )
    with inner[0], inner[1], inner[2], clock.phase("all"):
        for path in paths:
            with clock.phase("read"):
                image = datasets.read_image(path)
            found = detector(image)
            _ = found.lesions  # the table of detections.json
            for ending, encode in outputs.pictures_of(outputs.USUAL).items():
                files.write_bytes(out / f"{path.stem}{ending}", encode(found))
    rest = clock.seconds["all"] - sum(clock.seconds[name] for name in PHASES[:-1])
    return {**{name: clock.seconds[name] for name in PHASES[:-1]}, PHASES[-1]: rest}


def as_the_command(detector: Detector, folder: Path, out: Path) -> list[dict[str, Any]]:
    """What `lesionkit detect` does after it has loaded the weights."""
    return Job(detector, out, lambda text: None).run(find_inputs([str(folder)], out))


def measure(detector: Detector, count: int, repeats: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        folder, out = Path(place, "images"), Path(place, "out")
        paths = write_scenes(folder, count, detector.config.size_px, str(detector.device))
        out.mkdir()
        entries = as_the_command(detector, folder, out)  # warms up as well
        assert len(entries) == count
        assert not [entry for entry in entries if "error" in entry]
        alone, together = [], []
        for _ in range(repeats):
            alone.append(one_by_one(detector, paths, out))
            together.append(report.seconds(lambda: as_the_command(detector, folder, out), detector.device))
    totals = [sum(phases.values()) for phases in alone]
    middle = alone[totals.index(sorted(totals)[len(totals) // 2])]  # the phases of one run, so that they add up
    return {
        "one_by_one_per_second": report.spread([count / total for total in totals]),
        "command_per_second": report.spread([count / total for total in together]),
        "phase_ms": {name: 1000 * middle[name] / count for name in PHASES},
        "phase_share": {name: middle[name] / sum(middle.values()) for name in PHASES},
    }


@click.command()
@click.option("--count", default=64, show_default=True, help="Images.")
@click.option("--repeats", default=5, show_default=True)
@click.option("--weights", default="reference", show_default=True, help="`reference` or a .safetensors file.")
@click.option("--size-px", default=0, help="Input size of the networks; 0 is the weights' own.")
@click.option("--device", default="auto", show_default=True)
def main(count: int, repeats: int, weights: str, size_px: int, device: str) -> None:
    """Measure detection; see the head of this file."""
    facts = report.machine(resolve(device))
    detector = Detector.from_pretrained(weights, device=device).fuse()
    detector.config = replace(detector.config, size_px=size_px or detector.config.size_px)
    results = measure(detector, count, repeats)
    size = detector.config.size_px
    report.table([("phase", "ms an image", "share"), *(
        (name, f"{results['phase_ms'][name]:.1f}", f"{results['phase_share'][name]:.0%}") for name in PHASES
    )])  # fmt: skip
    for label, key in (("one by one", "one_by_one_per_second"), ("lesionkit detect", "command_per_second")):
        rate = results[key]
        click.echo(f"{label}: {rate['median']:.1f} images a second ({rate['min']:.1f} to {rate['max']:.1f}), {size} px")
    config = {"size_px": size, "guidance": detector.config.guidance, "encoder": detector.config.encoder}
    report.write(f"detect_{size}" if size_px else "detect", facts, {"count": count, **config}, results)


if __name__ == "__main__":
    main()
