"""Does depth help? The six arms of notebook 05, trained at the length of notebook 03 and anew under several seeds.

    python benchmarks/arms.py --seeds 5

A seed draws the training and validation scenes, the initial weights, the order and the augmentation, all of them
shared by its six arms, which differ in the guidance alone. The test scenes are the same for all seeds. Depth is
estimated by one network, trained first as in notebook 02 on scenes of its own. Thresholds and operating points come
from each seed's validation part (`metrics.claims`). What counts is the mean over the frames of *depth minus control*,
one number per seed; its interval is Student's t over the seeds, so it covers the luck of the segmenters' training and
of their scenes, which an interval over frames does not. It does not cover the one depth network and the choice of test
scenes, which all seeds share; and none of the intervals is corrected for their number. Writes figures/arms_by_seed.csv
(a row per seed and arm, after every seed), figures/arms_differences.csv and results/arms.json.
"""

import sys
import time
from functools import partial
from pathlib import Path

import click
import numpy as np
import pandas as pd
import report
import torch
from scipy import stats

from lesionkit import frames, losses, metrics, training
from lesionkit.devices import resolve, seed_everything
from lesionkit.frames import Frames
from lesionkit.metrics import claims
from lesionkit.runs import PROFILES, Profile
from lesionkit.segmentation import GUIDANCE

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "recipes" / "reference"))

from scene_cache import cached_scenes

kept_frames = partial(frames.rendered_frames, stream=cached_scenes)  # trainings that begin again render nothing anew

FIGURES = Path(__file__).resolve().parent.parent / "figures"
DEPTH_SEED, TEST_SEED = 900, 901  # of scenes that no arm is trained on
MEASURES = ("dice", *claims.CLAIMS)


def silent(line: str) -> None:
    """In place of a training's lines."""


def depth_network(profile: Profile, device: torch.device) -> torch.nn.Module:
    scenes = kept_frames("train", profile.train_scenes, profile.size_px, DEPTH_SEED)
    config = training.TrainConfig(profile.depth_epochs, profile.batch_size, learning_rate=2e-3, seed=DEPTH_SEED)
    return training.train_depth(scenes, config, device, log=silent)[0]


def one_seed(seed: int, profile: Profile, net: torch.nn.Module, test: Frames, device: torch.device) -> pd.DataFrame:
    """One row per arm: its means over the test frames, and its thresholds."""
    counts = {"train": profile.train_scenes, "validation": profile.validation_scenes}
    data = {part: kept_frames(part, n, profile.size_px, seed) for part, n in counts.items()}
    data["test"] = test
    estimated = {part: training.estimate_depth(net, f.image, device) for part, f in data.items()}
    config = training.TrainConfig(profile.segmentation_epochs, profile.batch_size, seed=seed)
    loss = losses.weighted("dice", "bce", 0.5)
    found: dict[str, dict[str, torch.Tensor]] = {"validation": {}, "test": {}}
    for arm in GUIDANCE:
        maps = {part: f.depth if arm == "oracle" else estimated[part] for part, f in data.items()}
        model, _ = training.train_segmenter(data["train"], maps["train"], loss, config, device, arm, log=silent)
        for part, kept in found.items():
            kept[arm] = training.segment(model, data[part].image, maps[part], device)
    truth = data["validation"].mask
    own = {arm: metrics.best_threshold(p, truth) for arm, p in found["validation"].items()}
    points = claims.operating_points(found["validation"], truth)
    rows = {}
    for arm, probability in found["test"].items():
        values = claims.values(probability, points[arm], test.mask, test.names)
        dice = metrics.evaluate_masks(probability > own[arm], test.mask)["dice"].mean()
        rows[arm] = {"seed": seed, "dice": dice, **values.mean(), "threshold": own[arm], **points[arm]}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("arm")


def differences(table: pd.DataFrame) -> pd.DataFrame:
    """Depth minus each other arm: the mean over the seeds and its 95 % interval by Student's t."""
    by_arm = {arm: rows.set_index("seed")[list(MEASURES)] for arm, rows in table.groupby(level="arm")}
    rows = {}
    for arm in (arm for arm in by_arm if arm != "depth"):
        for measure in MEASURES:
            one = (by_arm["depth"][measure] - by_arm[arm][measure]).to_numpy()
            reach = stats.t.ppf(0.975, len(one) - 1) * stats.sem(one) if len(one) > 1 else np.nan
            span = {"low": one.mean() - reach, "high": one.mean() + reach}
            rows[arm, measure] = {"mean": one.mean(), **span, "seeds": len(one)}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["control", "measure"])


@click.command()
@click.option("--seeds", default=5, help="how many trainings of each arm")
@click.option("--test-scenes", default=256)
@click.option("--profile", type=click.Choice(list(PROFILES)), default="quick", help="how long they are")
@click.option("--device", default="auto")
def main(seeds: int, test_scenes: int, profile: str, device: str) -> None:
    device, settings, start = resolve(device), PROFILES[profile](), time.monotonic()
    seed_everything(DEPTH_SEED)
    net = depth_network(settings, device)
    test = kept_frames("test", test_scenes, settings.size_px, TEST_SEED)
    tables = []
    for seed in range(seeds):
        tables.append(one_seed(seed, settings, net, test, device))
        table = pd.concat(tables)
        table.to_csv(FIGURES / "arms_by_seed.csv", float_format="%.5f")
        differences(table).to_csv(FIGURES / "arms_differences.csv", float_format="%.5f")
        click.echo(f"seed {seed} done after {(time.monotonic() - start) / 60:.0f} minutes")
    click.echo(table.groupby(level="arm", sort=False)[list(MEASURES)].mean().round(3).to_string())
    click.echo(differences(table).round(3).to_string())
    how = {"seeds": seeds, "test_scenes": test_scenes, "profile": profile}
    report.write("arms", report.machine(device), how, {"minutes": (time.monotonic() - start) / 60})


if __name__ == "__main__":
    main()
