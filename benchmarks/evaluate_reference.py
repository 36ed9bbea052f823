"""Measures the shipped weights on the two test parts of the PraNet split and on frames without a lesion.

    LESIONKIT_DATA=... python benchmarks/evaluate_reference.py

Per-image figures at the original's resolution, then the mean, with 95 % bootstrap intervals; the threshold is the one
in the weight file, fixed on the validation part. Lesion-free are rendered scenes of a seed of their own and crops of
the test images in which no lesion is seen. Writes figures/reference.csv (one row per set) and
figures/reference_by_size.csv (one row per set and size of lesion).
"""

from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pandas as pd
import report

from lesionkit import datasets, fusion, metrics
from lesionkit.detector import Detector
from lesionkit.frames import lesion_free_crops, real_frames
from lesionkit.scenes import SceneConfig, stream_scenes

FIGURES = Path(__file__).resolve().parent.parent / "figures"
SETS = {"kvasir-seg": "Kvasir-100", "cvc-clinicdb": "ClinicDB-62"}
SCENES = 100


def real_masks(detector: Detector, name: str) -> tuple[list, list, list[str]]:
    samples = datasets.open_dataset(name).part("test")
    pairs = [(detector(image).mask, mask) for image, mask in map(datasets.read_sample, samples)]
    return [p for p, _ in pairs], [m for _, m in pairs], [sample.name for sample in samples]


def lesion_free_images() -> dict[str, list[np.ndarray]]:
    """Images without a lesion, h×w×3 uint8, by kind."""
    kinds = {}
    for config in (SceneConfig.standard(), SceneConfig.hard()):
        bare = replace(config, lesion_free=1.0)
        chunks = list(stream_scenes(SCENES, 256, seed=9_000_011, config=bare))
        kinds[f"lesion-free scenes, {config.name}"] = [image for scenes in chunks for image in scenes.image]
    tests = [sample for name in SETS for sample in datasets.open_dataset(name).part("test")]
    kinds["lesion-free crops"] = list(lesion_free_crops(real_frames(tests, 256), count=SCENES).raw)
    return {name: [fusion.to_array(image) for image in images] for name, images in kinds.items()}


def row(images: pd.DataFrame, lesions: pd.DataFrame) -> dict[str, object]:
    columns = ("dice", "iou", "sensitivity", "precision", "boundary_f1")
    found = metrics.bootstrap_mean(lesions["detected"].astype(float))
    counts = {"lesions": len(lesions), "lesion_sensitivity": found.mean}
    return {"images": len(images)} | report.means(images, columns) | counts


@click.command()
@click.option("--weights", default="reference")
@click.option("--device", default="auto")
def main(weights: str, device: str) -> None:
    detector = Detector.from_pretrained(weights, device).freeze()
    rows, sizes = {}, {}
    for name, label in SETS.items():
        masks, truths, names = real_masks(detector, name)
        images, lesions = metrics.evaluate_masks(masks, truths, names), metrics.evaluate_lesions(masks, truths, names)
        rows[label], sizes[label] = row(images, lesions), metrics.by_size(images, lesions)
    for kind, frames in lesion_free_images().items():
        one = metrics.bootstrap_mean(np.array([metrics.false_alarm(detector(f).mask) for f in frames], dtype=float))
        rows[kind] = {
            "images": len(frames), "false_alarm_rate": one.mean, "false_alarm_low": one.low,
            "false_alarm_high": one.high,
        }  # fmt: skip
    table = pd.DataFrame(rows).T.rename_axis("set").assign(threshold=detector.threshold)
    by_size = pd.concat(sizes, names=["set"])
    FIGURES.mkdir(exist_ok=True)
    table.to_csv(FIGURES / "reference.csv", float_format="%.4f")
    by_size.to_csv(FIGURES / "reference_by_size.csv", float_format="%.4f")
    click.echo(table.T.to_string(float_format="%.3f"))
    click.echo(by_size.to_string(float_format="%.3f"))


if __name__ == "__main__":
    main()
