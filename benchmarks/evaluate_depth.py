"""Measures the depth of a weight file, unseen, on colonoscopy frames from elsewhere, beside the trivial baselines.

    LESIONKIT_DATA=... python benchmarks/evaluate_depth.py

Sets: those of DEPTH_SETS that lie under LESIONKIT_DATA. Mean over the frames with a 95 % bootstrap interval; the frames
of a set come from one or three trajectories, so the intervals are narrower than those over patients would be. Pixels:
depth known and largest colour channel above 12/255. Depth through `Detector(...).depth`, at the frame's own size. Depth
is min–max normalised over these pixels for the affine RMSE; AbsRel after median scaling, where depth is in mm. Nothing
was trained on these frames; docs/weights_history.md says which looks at them led to changes. To be measured once per
version of the weights. Writes figures/depth_transfer.csv, one row per set and estimator, and
figures/depth_transfer_frames.csv, the network's row per frame.
"""

from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pandas as pd
import report
import torch

from lesionkit import datasets, metrics
from lesionkit.depth import constant_depth, luminance_depth, radial_depth
from lesionkit.detector import Detector

FIGURES = Path(__file__).resolve().parent.parent / "figures"
DEPTH_SETS = ("uts-simcolon-subset40", "simcol3d-sample10", "simcol3d", "c3vd")
DARK = 12  # of 255: nothing can be said of what is not seen
COLUMNS = ("spearman", "affine_rmse", "abs_rel", "sq_rel", "rmse", "rmse_log", "delta1", "delta2", "delta3", "edge_f1")

Estimator = Callable[[np.ndarray], np.ndarray]


def baseline(function: Callable[[torch.Tensor], torch.Tensor]) -> Estimator:
    """From a function of b×3×h×w tensors to one of h×w×3 uint8 arrays."""
    return lambda image: function(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)[0, 0].numpy()


def figures_of(predicted: np.ndarray, depth: np.ndarray, valid: np.ndarray, metric: bool) -> dict[str, float]:
    """The figures of one frame; those that need a scale only where depth has one."""
    if not metric:  # relative depth begins at 0, and these figures do not mind a shift
        depth = depth + 1.0
    row = {
        "spearman": metrics.spearman(predicted, depth, valid),
        "affine_rmse": metrics.affine_rmse(predicted, depth, valid),
    }
    if metric:
        row |= metrics.depth_metrics(predicted, depth, valid)
        row["edge_f1"] = metrics.depth_edge_f1(predicted, depth, valid)
    return row


def measure(name: str, estimators: dict[str, Estimator]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A row per estimator: the number of frames, and mean, low and high of every figure; and the network's row for each
    frame."""
    rows: dict[str, list] = {label: [] for label in estimators}
    metric = datasets.REGISTRY[name].depth.unit == "mm"
    samples = datasets.open_depth(name)
    for sample in samples:
        image, depth, known = datasets.read_depth_sample(sample)
        valid = known & (image.max(axis=2) > DARK)
        for label, estimator in estimators.items():
            rows[label].append(figures_of(estimator(image), depth, valid, metric))
    means = pd.DataFrame({label: summary(pd.DataFrame(frames)) for label, frames in rows.items()}).T
    return means, pd.DataFrame(rows["network"], index=[sample.name for sample in samples])


def summary(frames: pd.DataFrame) -> dict[str, float]:
    return {"frames": len(frames)} | report.means(frames, [column for column in COLUMNS if column in frames])


@click.command()
@click.option("--weights", default="reference")
@click.option("--device", default="auto")
@click.option("--write/--no-write", default=True, help="whether to write figures/depth_transfer.csv")
def main(weights: str, device: str, write: bool) -> None:
    detector = Detector.from_pretrained(weights, device).fuse()
    estimators = {
        "network": lambda image: detector(image).depth,
        "luminance": baseline(luminance_depth),
        "radial": baseline(radial_depth),
        "constant": baseline(constant_depth),
    }
    present = [name for name in DEPTH_SETS if datasets.folder_of(name).is_dir()]
    if not present:
        raise click.ClickException(f"none of {', '.join(DEPTH_SETS)} is there: set LESIONKIT_DATA to their folder")
    measured = {name: measure(name, estimators) for name in present}
    table = pd.concat({name: means for name, (means, _) in measured.items()}, names=["set", "estimator"])
    if write:
        FIGURES.mkdir(exist_ok=True)
        table.to_csv(FIGURES / "depth_transfer.csv", float_format="%.4f")
        frames = pd.concat({name: frames for name, (_, frames) in measured.items()}, names=["set", "frame"])
        frames.to_csv(FIGURES / "depth_transfer_frames.csv", float_format="%.4f")
    click.echo(table[[c for c in table if not c.endswith(("_low", "_high"))]].to_string(float_format="%.3f"))


if __name__ == "__main__":
    main()
