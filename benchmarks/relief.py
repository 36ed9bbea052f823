"""What an estimated depth keeps of the relief of lesions, and how much it invents where there is none.

    python benchmarks/relief.py

Held-out rendered scenes at the detector's size. Relief is `lesionkit.depth.relief` at 1/16 and 1/64 of the width.
`correlation`: of estimated and exact relief over a lesion and its surroundings (1/16 of the width on all sides), the
mean over lesions, by Paris class and distance. `false relief`: of the tissue without relief (|r| below 0.02) the share
where the estimate shows some (above 0.1): everywhere, within 1/16 of the width of the view's rim, around highlights,
and around folds. Means over lesions or scenes with 95 % bootstrap intervals. Writes figures/relief.csv.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pandas as pd
import report
import torch
from torch import Tensor

from lesionkit import metrics
from lesionkit.depth import luminance_depth, relief
from lesionkit.detector import Detector
from lesionkit.frames import STREAMS
from lesionkit.metrics.depth import RAISED
from lesionkit.preprocess import crop_resize, preprocess
from lesionkit.scenes import SceneConfig
from lesionkit.training import around

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "recipes" / "reference"))

from scene_cache import cached_scenes

FIGURES = Path(__file__).resolve().parent.parent / "figures"
SEED = 900
SCALES = {"1/16": 1 / 16, "1/64": 1 / 64}
DISTANCES_MM = ((0, 20), (20, 40), (40, 1000))
SMALLEST_PX = 30  # of a lesion with its surroundings: of fewer no correlation can be taken
BRIGHT = 0.8  # of every colour: a highlight


def places(image: Tensor, view: Tensor, depth: Tensor) -> dict[str, Tensor]:
    """Where false relief is looked for: b×1×s×s masks."""
    rim, spots = around(1 - view), around((image.amin(1, keepdim=True) > BRIGHT).float())
    folds = around((relief(depth, 1 / 16).abs() > RAISED).float()) * (1 - rim)
    return {"all tissue": view, **{n: view * m for n, m in {"rim": rim, "highlights": spots, "folds": folds}.items()}}


def rows(detector: Detector, config: SceneConfig, count: int, size_px: int) -> Iterator[dict]:
    """A row for each lesion, and one for each scene and place, of both estimators."""
    for scenes in cached_scenes(count, size_px, SEED + STREAMS["test"], "cpu", config):
        seen = preprocess(scenes.image, size_px)
        depth, number = (crop_resize(x, seen.box, size_px, "nearest-exact") for x in (scenes.depth, scenes.instance))
        with torch.inference_mode():
            estimates = {"network": detector.depth_net(seen.image.to(detector.device)).target.cpu()}
        estimates["luminance"] = luminance_depth(seen.image)
        where = places(crop_resize(scenes.image, seen.box, size_px), seen.view, depth)
        for (estimator, found), (name, scale), i in product_of(estimates, len(scenes)):
            told, pair = {"estimator": estimator, "scale": name}, (found[i], depth[i])
            for lesion in scenes.lesions[i]:
                region = around((number[i : i + 1] == lesion.index).float())[0] * seen.view[i]
                if region.sum() >= SMALLEST_PX:
                    value = metrics.relief_correlation(*pair, region, scale)
                    yield told | {"measure": "correlation", "value": value} | groups(lesion)
            for place, mask in where.items():
                value = metrics.false_relief(*pair, mask[i], scale)
                yield told | {"measure": "false relief", "value": value, "place": place}


def product_of(estimates: dict[str, Tensor], n: int) -> Iterator[tuple]:
    return ((one, scale, i) for one in estimates.items() for scale in SCALES.items() for i in range(n))


def groups(lesion) -> dict[str, str]:
    low, high = next(pair for pair in DISTANCES_MM if pair[0] <= lesion.distance_mm < pair[1])
    return {"class": lesion.paris, "distance": f"{low} to {high} mm" if high < 1000 else f"over {low} mm"}


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean, interval and number for all lesions, by class, by distance, and by place."""
    by = ["estimator", "scale", "measure"]
    parts = [table[table["measure"] == "correlation"].assign(group="all lesions")]
    parts += [table.dropna(subset=[name]).assign(group=table[name]) for name in ("class", "distance", "place")]
    found = pd.concat(parts).groupby([*by, "group"], sort=False)["value"]
    return pd.DataFrame({key: report.means(one.to_frame(), ["value"]) | {"n": one.count()} for key, one in found}).T


@click.command()
@click.option("--weights", default="reference", show_default=True)
@click.option("--scenes", default=256, show_default=True)
@click.option(
    "--config", type=click.Choice(["standard", "shift", "subtle", "hard"]), default="standard", show_default=True
)
@click.option("--size", default=None, type=int, help="Edge in pixels [the detector's].")
@click.option("--device", default="auto", show_default=True)
@click.option("--write/--no-write", default=True, help="whether to write figures/relief.csv")
def main(weights: str, scenes: int, config: str, size: int | None, device: str, write: bool) -> None:
    """Measure the depth network of a weight file; see the head of this file."""
    detector = Detector.from_pretrained(weights, device)
    size_px = size or detector.config.size_px
    table = summary(pd.DataFrame(rows(detector, getattr(SceneConfig, config)(), scenes, size_px)))
    table.index.names = ["estimator", "scale", "measure", "group"]
    if write:
        table.to_csv(FIGURES / "relief.csv", float_format="%.4f")
    click.echo(table.round(3).to_string())


if __name__ == "__main__":
    main()
