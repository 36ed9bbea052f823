"""How long the two trainings of a profile take, as notebooks 02 and 03 make them.

    python benchmarks/profiles.py --profile full [--scenes 64 --epochs 3]

Renders the training scenes, trains the depth network, estimates their depth, trains the segmenter; in torch's
deterministic mode, as notebooks run. With fewer scenes or epochs than the profile has, the rest is calculated:
rendering and estimating grow with the number of scenes, a training with its steps. What comes first warms up and is not
counted: a batch of scenes, and a training's first epoch. Validation and test scenes and what is shown are not in it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import click
import report
import torch

from lesionkit import frames, losses, runs, training
from lesionkit.devices import resolve, seed_everything

Made = TypeVar("Made")


@dataclass
class Epochs:
    """A log of a training that notes when each epoch ended."""

    ends: list[float] = field(default_factory=list)

    def __call__(self, line: str) -> None:
        self.ends.append(time.perf_counter())
        click.echo(line)

    def each(self) -> float:
        """Seconds of an epoch."""
        return (self.ends[-1] - self.ends[0]) / (len(self.ends) - 1)


def timed(work: Callable[[], Made], device: torch.device) -> tuple[Made, float]:
    made = []
    spent = report.seconds(lambda: made.append(work()), device)
    return made[0], spent


def measure(profile: runs.Profile, scenes: int, epochs: int, device: torch.device) -> dict[str, float]:
    """Seconds of each step for all scenes and epochs of the profile."""
    seed_everything(0)
    warm = frames.rendered_frames("validation", profile.batch_size, profile.size_px, device=device)
    few, rendering = timed(lambda: frames.rendered_frames("train", scenes, profile.size_px, device=device), device)
    config, depth_log, log = training.TrainConfig(epochs, profile.batch_size), Epochs(), Epochs()
    net, _ = training.train_depth(few, config, device, log=depth_log)
    training.estimate_depth(net, warm.image, device)
    depth, estimating = timed(lambda: training.estimate_depth(net, few.image, device), device)
    training.train_segmenter(few, depth, losses.weighted("dice", "bce", 0.5), config, device, log=log)
    more = profile.train_scenes / scenes
    steps = (profile.train_scenes // profile.batch_size) / (scenes // profile.batch_size)  # only full batches count
    return {
        "rendering": rendering * more,
        "depth_training": depth_log.each() * steps * profile.depth_epochs,
        "estimating_depth": estimating * more,
        "segmenter_training": log.each() * steps * profile.segmentation_epochs,
    }


@click.command()
@click.option("--profile", type=click.Choice(list(runs.PROFILES)), default="quick", show_default=True)
@click.option("--scenes", type=click.IntRange(1), help="How many to train on.  [default: the profile's]")
@click.option("--epochs", type=click.IntRange(2), help="Of each training.  [default: as many as the segmenter's]")
@click.option("--device", default="auto", show_default=True)
def main(profile: str, scenes: int | None, epochs: int | None, device: str) -> None:
    chosen, device = runs.PROFILES[profile](), resolve(device)
    scenes, epochs = scenes or chosen.train_scenes, epochs or max(2, chosen.segmentation_epochs)
    if scenes < chosen.batch_size:
        raise click.BadParameter(f"must be at least a batch, {chosen.batch_size}", param_hint="--scenes")
    machine = report.machine(device)  # before the work, whose own load it must not count
    seconds = measure(chosen, scenes, epochs, device)
    minutes = {name: value / 60 for name, value in seconds.items()}
    report.table([["minutes", profile], *([name, f"{value:.1f}"] for name, value in minutes.items())])
    settings = {"profile": profile, "size_px": chosen.size_px, "scenes": scenes, "epochs": epochs}
    report.write(f"profile_{profile}", machine, settings, {"minutes": minutes, "total": sum(minutes.values())})


if __name__ == "__main__":
    main()
