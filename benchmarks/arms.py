"""Does depth help? Networks that differ in what feeds their attention and in nothing else, trained under several seeds.

    python benchmarks/arms.py --arms plain,depth,learned,luminance,shuffled,oracle --config standard,shift

Arms: the six kinds of `segmentation.GUIDANCE`; two ceilings outside the method, both with exact depth: `alone` sees its
change and no image, `concatenated` gets the depth features beside the image's instead of weights made of them; and
`from_depth`, which is `plain` begun from the depth network's encoder, since that has seen more scenes. All train on
`standard()` scenes for as long as notebook 03 does. A seed draws training and validation scenes, first weights, order
and augmentation, shared by its arms; the test scenes are the same for all seeds. Depth is estimated by the shipped
network, which sees the segmenter's own frames, enlarged.

Each configuration is a set of test scenes: a name of `SceneConfig` (`shift` is a colour shift, nothing is trained on
it), or `map`, the same scenes, a quarter as many, rendered anew under every contrast, relief and light of MAP.

Dice, average precision (of pixels), boundary F1, lesions found and false regions a frame are taken at 0.5; the claims
at the operating points of `metrics.claims`, fixed on each seed's validation part. Named beforehand: the primary
comparison is depth − plain in Dice; a difference below 0.01 does not matter. Intervals are Student's t over seeds; the
p-values of all other comparisons of a configuration are corrected together (Holm).

The runs are kept after every arm, in results/arms.json or in --json FILE, and not made again. Without --json also
written: figures/arms_by_seed.csv, figures/arms_differences.csv, a picture of both (arms_by_seed.png) and, with `map`,
figures/arms_map.csv.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import report
import torch
from matplotlib.figure import Figure
from scipy import stats
from torch import Tensor, nn

from lesionkit import figures, files, frames, losses, metrics, training
from lesionkit.detector import Detector
from lesionkit.devices import resolve
from lesionkit.frames import Frames
from lesionkit.metrics import claims
from lesionkit.runs import PROFILES
from lesionkit.scenes import SceneConfig
from lesionkit.segmentation import Decoder, DepthGuidedSegmenter, Segmentation, depth_change, picture_mix

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "recipes" / "reference"))

from scene_cache import cached_scenes

kept_frames = partial(frames.rendered_frames, stream=cached_scenes)  # trainings that begin again render nothing anew

FIGURES = Path(__file__).resolve().parent.parent / "figures"
SIX = ("plain", "depth", "learned", "luminance", "shuffled", "oracle")
ARMS = (*SIX, "alone", "concatenated", "from_depth")
EXACT = ("oracle", "alone", "concatenated")  # these are given exact depth, the others the estimate
TEST_SEED = 911  # of scenes that no arm is trained on, and that were not looked at while the branch was built
CONFIGS = ("standard", "shift", "hard", "map")
MAP = {"contrast": (0.0, 0.1, 0.3, 0.6), "relief": (0.0, 0.5, 1.0), "light": (1.0, 0.6)}
MEASURES = ("dice", "average_precision", "boundary_f1", "found", "false_regions", *claims.CLAIMS)
PAIRS = (
    ("depth", "plain"), ("depth", "learned"), ("depth", "luminance"), ("depth", "shuffled"), ("depth", "from_depth"),
    ("oracle", "plain"), ("oracle", "depth"), ("alone", "plain"), ("concatenated", "plain"), ("from_depth", "plain"),
)  # fmt: skip
Settings = dict[str, int]


class Alone(DepthGuidedSegmenter):
    """Sees the change of depth as a picture, and not the image."""

    def __init__(self):
        super().__init__("plain")
        self.mix = picture_mix()

    def forward(self, image: Tensor, depth: Tensor, _donors: Tensor | None = None) -> Segmentation:
        return Segmentation(self.decode(self.encode(self.mix(depth_change(depth)))), ())


class Concatenated(DepthGuidedSegmenter):
    """Hands the depth features to the decoder beside the image's."""

    def __init__(self):
        super().__init__("oracle")
        pairs = zip(self.encoder.channels, self.depth_features.channels, strict=True)
        self.decoder, self.attention = Decoder(tuple(map(sum, pairs))), nn.ModuleList()

    def forward(self, image: Tensor, depth: Tensor, _donors: Tensor | None = None) -> Segmentation:
        both = zip(self.encode(image), self.depth_features(depth_change(depth)), strict=True)
        return Segmentation(self.decode([torch.cat(pair, dim=1) for pair in both]), ())


def untrained(arm: str, depth_net: nn.Module) -> DepthGuidedSegmenter:
    if arm == "alone":
        return Alone()
    if arm == "concatenated":
        return Concatenated()
    segmenter = DepthGuidedSegmenter("plain" if arm == "from_depth" else arm)
    if arm == "from_depth":  # which has all but the last blocks of the same encoder
        segmenter.encoder.load_state_dict(depth_net.global_net.encoder.state_dict(), strict=False)
    return segmenter


class Data:
    """Scenes with their estimated depth, made when they are first asked for; those of the last seed are kept."""

    def __init__(self, settings: Settings, depth_net: nn.Module, device: torch.device):
        self.settings, self.depth_net, self.device = settings, depth_net, device
        self.of_seed = lru_cache(maxsize=2)(self._of_seed)
        self.test = lru_cache(maxsize=None)(self._test)

    def _of_seed(self, part: str, seed: int) -> tuple[Frames, Tensor]:
        count = self.settings["scenes"] if part == "train" else self.settings["validation_scenes"]
        return self._with_depth(kept_frames(part, count, self.settings["size"], seed))

    def _test(self, config: SceneConfig) -> tuple[Frames, Tensor]:
        n, size_px = self.settings["test_scenes"], self.settings["size"]
        n = max(n // 4, 1) if is_cell(config.name) else n
        return self._with_depth(kept_frames("test", n, size_px, TEST_SEED, config))

    def _with_depth(self, data: Frames) -> tuple[Frames, Tensor]:
        return data, training.estimate_depth(self.depth_net, data.image, self.device, batch_size=8)


def is_cell(name: str) -> bool:
    """Of the map; other configurations are called by one word."""
    return "," in name


def test_configs(names: list[str]) -> dict[str, SceneConfig]:
    """By name; `map` stands for one of each cell: one lesion a scene, so that every scene says something."""
    found = {name: getattr(SceneConfig, name)() for name in names if name != "map"}
    for values in product(*MAP.values()) if "map" in names else ():
        contrast, relief, light = values
        name = ", ".join(f"{name} {value:g}" for name, value in zip(MAP, values, strict=True))
        cell = replace(SceneConfig.standard(), contrast=(contrast, contrast), relief=relief, light=light)
        found[name] = replace(cell, name=name, lesions=(1, 1), lesion_free=0.0)
    return found


def one_run(arm: str, seed: int, data: Data, tests: dict[str, Any]) -> list[dict]:
    """A training of one arm, and a row for each of `tests`: name -> what `data.test` makes frames of."""
    start, settings, device = time.monotonic(), data.settings, data.device
    (train, estimated), (validation, _) = (data.of_seed(part, seed) for part in ("train", "validation"))
    config = training.TrainConfig(settings["epochs"], settings["batch_size"], seed=seed)
    torch.manual_seed(seed)
    segmenter, depth = untrained(arm, data.depth_net), train.depth if arm in EXACT else estimated
    how = {"guidance": segmenter.guidance, "segmenter": segmenter, "log": lambda line: None}
    loss = losses.weighted("dice", "bce", 0.5)
    segmenter, history = training.train_segmenter(train, depth, loss, config, device, **how)

    def probability(frames: Frames, depth: Tensor) -> Tensor:
        return training.segment(segmenter, frames.image, frames.depth if arm in EXACT else depth, device)

    point = claims.operating_point(probability(*data.of_seed("validation", seed)), validation.mask)
    told = {"arm": arm, "seed": seed, "loss": history.loss[-1], "seconds": round(time.monotonic() - start)}
    rows = []
    for name, wanted in tests.items():
        test, depth = data.test(wanted)
        rows.append({**told, "config": name, **measured(probability(test, depth), point, test)})
    return rows


def measured(probability: Tensor, point: pd.Series, test: Frames) -> dict[str, float]:
    table = metrics.summarise(metrics.evaluate_masks(probability > claims.MIDDLE, test.mask))
    values = claims.values(probability, point, test.mask, test.names).mean()
    return {
        "dice": table["dice"],
        "average_precision": average_precision(probability, test.mask),
        "boundary_f1": table["boundary_f1"],
        "found": table["lesion_sensitivity"],
        "false_regions": table["false_components_per_image"],
        **values,
        **{f"threshold, {name}": value for name, value in point.items()},
    }


def average_precision(probability: Tensor, mask: Tensor) -> float:
    """The mean, over all lesion pixels of all frames, of the precision at the pixel's own probability."""
    order = probability.flatten().argsort(descending=True, stable=True)
    hit = mask.flatten()[order].double()
    precision = hit.cumsum(0) / torch.arange(1, len(hit) + 1)
    return float((precision * hit).sum() / hit.sum())


def differences(runs: pd.DataFrame) -> pd.DataFrame:
    """A row for each configuration, pair of arms and measure: mean over the seeds that both have, 95 % interval by
    Student's t, p-value, and the same after Holm's correction among all but the primary one."""
    rows = []
    for config, of_config in runs.groupby("config", sort=False):
        by_arm = {arm: one.set_index("seed")[list(MEASURES)] for arm, one in of_config.groupby("arm")}
        for pair in (p for p in PAIRS if set(p) <= by_arm.keys()):
            one = (by_arm[pair[0]] - by_arm[pair[1]]).dropna(how="all")
            for measure in MEASURES:
                told = {"config": config, "difference": " - ".join(pair), "measure": measure}
                rows.append(told | over_seeds(one[measure]))
    table = pd.DataFrame(rows, columns=["config", "difference", "measure", "mean", "low", "high", "p", "seeds"])
    rest = table[(table["difference"] != "depth - plain") | (table["measure"] != "dice")]
    return table.assign(p_holm=rest.groupby("config")["p"].transform(holm))


def over_seeds(values: pd.Series) -> dict[str, float]:
    n, mean = len(values), values.mean()
    if n < 2:
        return {"mean": mean, "low": np.nan, "high": np.nan, "p": np.nan, "seeds": n}
    reach, p = stats.t.ppf(0.975, n - 1) * stats.sem(values), stats.ttest_1samp(values, 0).pvalue
    return {"mean": mean, "low": mean - reach, "high": mean + reach, "p": p, "seeds": n}


def holm(p: pd.Series) -> pd.Series:
    """Holm's correction (1979): the smallest times n, the next times n − 1, …, never falling. NaN stays NaN."""
    known = p.dropna().sort_values()
    corrected = (known * np.arange(len(known), 0, -1)).cummax().clip(upper=1)
    return corrected.reindex(p.index)


def listed(allowed: tuple[str, ...]) -> Callable:
    def check(_context: click.Context, _option: click.Option, text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in allowed]:
            raise click.BadParameter(f"{unknown[0]!r} does not exist: use {', '.join(allowed)}, or several with commas")
        return names

    return check


def seeds_of(_context: click.Context, _option: click.Option, text: str) -> list[int]:
    if not all(word.isdecimal() for word in text.split(",")):
        raise click.BadParameter(f"{text!r} is no list of whole numbers: give 1,2,3")
    return [int(word) for word in text.split(",")]


def runs_in(path: Path, settings: Settings) -> list[dict]:
    """What a run before this one left. Raises click.ClickException for a file of something else."""
    if not path.exists():
        return []
    try:
        content = json.loads(path.read_text("utf-8"))
        theirs, runs = content["settings"], content["runs"]
    except (KeyError, TypeError, ValueError):
        raise click.ClickException(f"{path} holds no runs of this script: name another file or delete it") from None
    if theirs != settings:
        raise click.ClickException(f"{path} holds runs of other settings ({theirs}): name another file or delete it")
    return runs


@click.command()
@click.option("--arms", default=",".join(SIX), callback=listed(ARMS), show_default=True)
@click.option("--seeds", default="1,2,3,4,5,6,7,8", callback=seeds_of, show_default=True)
@click.option("--size", default=128, show_default=True, help="Edge of the segmenter's frames in pixels.")
@click.option("--scenes", default=320, show_default=True, help="To train on.")
@click.option("--epochs", default=9, show_default=True)
@click.option("--test-scenes", default=256, show_default=True)
@click.option("--config", "configs", default="standard", callback=listed(CONFIGS), show_default=True, help="Tested on.")
@click.option("--weights", default="reference", show_default=True, help="Whose depth network estimates.")
@click.option("--device", default="auto", show_default=True)
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write this and nothing else.")
def main(
    arms: list[str], seeds: list[int], size: int, scenes: int, epochs: int, test_scenes: int, configs: list[str],
    weights: str, device: str, path: Path | None,
) -> None:  # fmt: skip
    """Train and measure the arms; see the head of this file."""
    settings = {"size": size, "scenes": scenes, "epochs": epochs, "test_scenes": test_scenes}
    settings |= {"validation_scenes": 64, "batch_size": 8}
    data = Data(settings, depth_network(weights, device), resolve(device))
    table = all_runs(data, arms, seeds, test_configs(configs), path or report.RESULTS / "arms.json")
    if path is None:
        write_figures(table)
    tell(table)


def depth_network(weights: str, device: str) -> nn.Module:
    net = Detector.from_pretrained(weights, device).depth_net
    net.sees_px = PROFILES["quick"]().depth_px
    return net


def all_runs(data: Data, arms: list[str], seeds: list[int], tests: dict[str, Any], target: Path) -> pd.DataFrame:
    """A row per run and test, all those in `target` included; those that are missing there are made."""
    runs = runs_in(target, data.settings)
    for seed, arm in product(seeds, arms):
        done = {run["config"] for run in runs if (run["arm"], run["seed"]) == (arm, seed)}
        if tests.keys() <= done:
            continue
        new = one_run(arm, seed, data, {name: one for name, one in tests.items() if name not in done})
        runs += new
        content = {"settings": data.settings, "runs": runs}
        content |= {"differences": differences(pd.DataFrame(runs)).to_dict("records")}
        files.write_json(target, files.plain(content | {"machine": report.machine(data.device)}))
        dice = ", ".join(f"{run['config']} {run['dice']:.3f}" for run in new[:3])
        click.echo(f"seed {seed}, {arm}: Dice {dice}; {new[0]['seconds']} s")
    return pd.DataFrame(runs)


def tell(table: pd.DataFrame) -> None:
    shown = table[~table["config"].map(is_cell)].groupby(["config", "arm"], sort=False)
    click.echo(shown[list(MEASURES)].mean().round(3).to_string())
    click.echo(differences(table).query("measure == 'dice'").round(4).to_string(index=False))


def write_figures(runs: pd.DataFrame) -> None:
    cells = runs["config"].map(is_cell)
    found = {"arms_by_seed": runs[~cells], "arms_differences": differences(runs[~cells])}
    if cells.any():
        found["arms_map"] = differences(runs[cells]).query("measure == 'dice'")
    for name, table in found.items():
        table.to_csv(FIGURES / f"{name}.csv", index=False, float_format="%.5f")
    picture(runs[~cells]).savefig(FIGURES / "arms_by_seed.png", dpi=2 * figures.DPI)


def picture(runs: pd.DataFrame) -> Figure:
    """Dice of every arm: a dot a seed, the mean over seeds and its 95 % interval; a panel a configuration."""
    names = [arm for arm in ARMS if arm in set(runs["arm"])]
    configs = list(runs["config"].unique())
    fig = Figure(figsize=(3.4 * len(configs) + 0.6, 0.3 * len(names) + 1), layout="constrained")
    for axis, config in zip(fig.subplots(1, len(configs), sharey=True, squeeze=False)[0], configs, strict=True):
        for y, arm in enumerate(names):
            dice = runs["dice"][(runs["config"] == config) & (runs["arm"] == arm)]
            colour, told = figures.SERIES[arm == "depth"], over_seeds(dice)
            axis.plot(dice, np.full(len(dice), y), "o", color=colour, markersize=3, alpha=0.4)
            axis.plot([told["low"], told["high"]], [y, y], color=colour, linewidth=2.2, solid_capstyle="butt")
            axis.plot(told["mean"], y, "D", color=colour, markersize=5)
        axis.set(title=f"{config}()", xlabel="Dice", yticks=range(len(names)), yticklabels=names, ylim=(len(names), -1))
        axis.grid(color=figures.GRID, linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    return fig


if __name__ == "__main__":
    main()
