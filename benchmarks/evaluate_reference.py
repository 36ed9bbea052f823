"""Measures the shipped weights on the test parts of a published split and on frames without a lesion.

    LESIONKIT_DATA=... python benchmarks/evaluate_reference.py [--against EARLIER/reference_images.csv]

Per-image figures at the original's resolution, then the mean, with 95 % bootstrap intervals over images, or over videos
where they are known; the threshold is the one in the weight file, fixed on the validation part. Lesion-free are
rendered scenes of a seed of their own, and crops and mirrored halves of the test images in which no lesion is seen, all
of 256 px (rates with exact binomial intervals); the counterpart of the latter, halves with their lesions mirrored,
shows that mirrors are not simply recognised. Writes, into figures/, reference.csv (one row per set),
reference_by_size.csv (one row per set and size of lesion) and reference_images.csv (one row per test image, so that
another method can be compared image by image; `--against` does that with such a file). `--part validation` measures
the same on the part that choices are made with, for weights that have not learned from it. `--split elsewhere` measures
on the images of other hospitals that are below LESIONKIT_DATA (ETIS-LaribPolypDB, CVC-ColonDB, four centres of
PolypGen): nothing was trained on them, and what shows one polyp is not known, so that intervals are too narrow.

Where real lesion-free sequences are at hand, also written: reference_lesion_free.csv, for the sequences that nothing
was trained or chosen on: the share of frames with any pixel marked, with over 0.1 % and over 1 % of them, and how often
at least three and five frames in a row have over 0.1 % marked. With PolypGen's centres beside them, also
reference_operating.csv: at five thresholds the lesions found at the centres and the frames marked over 0.1 % in the
sequences, means of centres and of sequences.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import click
import numpy as np
import pandas as pd
import report
from scipy.stats import binomtest

from lesionkit import datasets, fusion, metrics
from lesionkit.detector import Detector
from lesionkit.frames import Frames, join, lesion_free_crops, real_frames
from lesionkit.metrics import claims
from lesionkit.scenes import SceneConfig, stream_scenes

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "recipes" / "reference"))

from mirrors import lesion_free_mirrors, lesion_mirrors
from splits import CENTRES, MEASURED, free_sequences, samples_of, videos_of

FIGURES = Path(__file__).resolve().parent.parent / "figures"
SCENES = 100
SCENE_SEEDS = {"test": 9_000_011, "validation": 9_000_012}  # by the part whose images stand beside the scenes
KEPT = ("dice", "iou", "sensitivity", "precision", "boundary_f1", "lesions", "lesions_found", "false_components",
        "truth_fraction")  # fmt: skip
OPERATING = (0.1, 0.3, 0.5, 0.7, 0.9)  # thresholds


def real_sets(detector: Detector, sets: dict[str, tuple]) -> tuple[dict, pd.DataFrame, pd.DataFrame]:
    """A row per set, its figures by size of the lesion, and a row per image."""
    rows, sizes, tables = {}, {}, {}
    for label, samples in sets.items():
        pairs = [(detector(image).mask, mask) for image, mask in map(datasets.read_sample, samples)]
        found = [p for p, _ in pairs], [m for _, m in pairs], [sample.name for sample in samples]
        images, lesions = metrics.evaluate_masks(*found), metrics.evaluate_lesions(*found)
        rows[label] = row(images, lesions, videos_of(label, images.index))
        sizes[label], tables[label] = metrics.by_size(images, lesions), images
    return rows, pd.concat(sizes, names=["set"]), pd.concat(tables, names=["set"])[list(KEPT)]


def lesion_free_images(frames: Frames, seed: int) -> dict[str, list[np.ndarray]]:
    """Images without a lesion, h×w×3 uint8, by kind; `frames` are the part's images, `seed` that of the scenes."""
    kinds = {}
    for config in (SceneConfig.standard(), SceneConfig.hard()):
        bare = replace(config, lesion_free=1.0)
        chunks = list(stream_scenes(SCENES, 256, seed, config=bare))
        kinds[f"lesion-free scenes, {config.name}"] = [image for scenes in chunks for image in scenes.image]
    kinds["lesion-free crops"] = list(lesion_free_crops(frames, count=SCENES).raw)
    kinds["lesion-free mirrors"] = list(lesion_free_mirrors(frames, count=SCENES).raw)
    return {name: [fusion.to_array(image) for image in images] for name, images in kinds.items()}


def row(images: pd.DataFrame, lesions: pd.DataFrame, videos: list[str] | None = None) -> dict[str, object]:
    found = lesions["detected"].astype(float)
    small = found[lesions["area_fraction"] < claims.SMALL]
    counts = {"lesions": len(lesions), "lesion_sensitivity": found.mean(), "lesions_under_5_percent": len(small),
              "sensitivity_under_5_percent": small.mean()}  # fmt: skip
    columns = ("dice", "iou", "sensitivity", "precision", "boundary_f1")
    return {"images": len(images)} | report.means(images, columns, videos) | counts


def alarms(detector: Detector, frames: list[np.ndarray]) -> dict[str, float]:
    raised = sum(metrics.false_alarm(detector(frame).mask) for frame in frames)
    span = binomtest(raised, len(frames)).proportion_ci()  # a bootstrap of no alarm at all would say "never"
    ends = {"false_alarm_rate_low": span.low, "false_alarm_rate_high": span.high}
    return {"images": len(frames), "false_alarm_rate": raised / len(frames)} | ends


def by_sequence(sequences: dict[str, list[np.ndarray]], threshold: float) -> pd.DataFrame:
    """A row per lesion-free sequence, of which the probabilities are given, and their mean."""
    rows, over = {}, {"any": 0, "over_0.1_percent": 0.001, "over_1_percent": 0.01}
    for name, probabilities in sequences.items():
        masks = [p > threshold for p in probabilities]
        alarms = {column: [metrics.false_alarm(mask, least) for mask in masks] for column, least in over.items()}
        rows[name] = {"frames": len(masks)} | {column: np.mean(raised) for column, raised in alarms.items()}
        rows[name] |= {f"runs_of_{n}": runs_in_a_row(alarms["over_0.1_percent"], n) for n in (3, 5)}
    table = pd.DataFrame(rows).T.rename_axis("sequence")
    return pd.concat([table, table.mean().to_frame("mean of sequences").T.rename_axis("sequence")])


def runs_in_a_row(alarms: Sequence[bool], least: int) -> int:
    """How often at least `least` frames in a row raise an alarm."""
    return sum(alarm and len(list(frames)) >= least for alarm, frames in groupby(map(bool, alarms)))


def operating(detector: Detector, centres: dict[str, tuple], sequences: dict[str, list[np.ndarray]]) -> pd.DataFrame:
    """A row per threshold: what finding more lesions costs in alarms on frames without one."""
    found, alarms = {}, {}
    for label, samples in centres.items():
        for image, mask in map(datasets.read_sample, samples):
            if mask.any():
                probability = detector(image).probability
                matches = [metrics.lesion_matches(probability > t, mask).detected for t in OPERATING]
                found.setdefault(label, []).extend(zip(*matches, strict=True))
    for name, probabilities in sequences.items():
        alarms[name] = [[metrics.false_alarm(p > t) for t in OPERATING] for p in probabilities]
    means = {"lesions_found": found, "over_0.1_percent": alarms}
    columns = {what: np.mean([np.mean(one, axis=0) for one in of.values()], axis=0) for what, of in means.items()}
    return pd.DataFrame(columns, pd.Index(OPERATING, name="threshold"))


def mirror_check(detector: Detector, frames: Frames) -> dict[str, dict[str, object]]:
    """Whether few alarms on lesion-free mirrors only mean that a mirror is known for one: Dice on the same images as
    they are, and as mirrored halves that hold their lesions."""
    mirrors = lesion_mirrors(frames)
    plain = [frames[i : i + 1] for i, name in enumerate(frames.names) if f"{name}-mirror" in mirrors.names]
    rows = {}
    for kind, images in (("half with a lesion, whole image", join(plain)), ("half with a lesion, mirrored", mirrors)):
        masks = [detector(fusion.to_array(image)).mask for image in images.raw]
        rows[kind] = row(metrics.evaluate_masks(masks, images.mask), metrics.evaluate_lesions(masks, images.mask))
    return rows


def earlier_dice(path: Path, sets: dict[str, tuple]) -> pd.Series:
    """Dice by set and image from an earlier table. Raises ClickException when it lacks images that will be measured."""
    dice = pd.read_csv(path, dtype={"name": str}).set_index(["set", "name"])["dice"]  # ClinicDB's names are numbers
    images = [(label, sample.name) for label, samples in sets.items() for sample in samples]
    if missing := sum(image not in dice.index for image in images):
        raise click.ClickException(
            f"{path.name} lacks {missing} of the {len(images)} images to be measured: give a table of the same "
            "--part and --split"
        )
    return dice.loc[images]


def paired(images: pd.DataFrame, before: pd.Series) -> pd.DataFrame:
    """Dice now less Dice then, over the same images."""
    rows = {}
    for name, now in images.groupby(level="set")["dice"]:
        videos = videos_of(name, now.index.get_level_values("name"))
        one = metrics.paired_bootstrap(now, before.reindex(now.index), groups=videos)
        rows[name] = {"images": one.n, "difference": one.mean, "low": one.low, "high": one.high, "p": one.p_value}
    return pd.DataFrame(rows).T


@click.command()
@click.option("--weights", default="reference")
@click.option("--device", default="auto")
@click.option("--split", type=click.Choice(MEASURED), default="pranet", help="the training's, or elsewhere")
@click.option("--part", type=click.Choice(list(SCENE_SEEDS)), default="test", help="which images are measured on")
@click.option("--size-px", default=0, help="edge at which the networks run; 0 is the weights' own")
@click.option("--threshold", default=0.0, help="0 is the weights' own")
@click.option("--against", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="an earlier table")
@click.option("--out", type=Path, default=FIGURES, help="the tables go here")
def main(
    weights: str, device: str, split: str, part: str, size_px: int, threshold: float, against: Path | None, out: Path
) -> None:
    try:
        sets = samples_of(part, split)
    except datasets.DatasetError as error:
        raise click.ClickException(str(error)) from None
    detector = Detector.from_pretrained(weights, device).fuse()
    detector.threshold = threshold or detector.threshold
    detector.config = replace(detector.config, size_px=size_px or detector.config.size_px)
    before = earlier_dice(against, sets) if against else None
    rows, by_size, images = real_sets(detector, sets)
    if against:
        click.echo(f"Dice less that of {against.name}:\n{paired(images, before).to_string(float_format='%.3f')}")
    frames = real_frames([sample for samples in sets.values() for sample in samples], 256)
    rows |= {kind: alarms(detector, free) for kind, free in lesion_free_images(frames, SCENE_SEEDS[part]).items()}
    rows |= mirror_check(detector, frames)
    table = pd.DataFrame(rows).T.rename_axis("set").assign(threshold=detector.threshold)
    out.mkdir(parents=True, exist_ok=True)
    name = "reference" + ("" if split == "pranet" else f"_{split}") + ("" if part == "test" else f"_{part}")
    tables = {"": table, "_by_size": by_size, "_images": images}
    if part == "test" and datasets.folder_of("polypgen-negative").is_dir():
        centres = {label: one for label, one in sets.items() if label in CENTRES}
        read = {name: map(datasets.read_image, paths) for name, paths in free_sequences("test").items()}
        sequences = {name: [detector(image).probability for image in of] for name, of in read.items()}
        silence = by_sequence(sequences, detector.threshold)
        silence.to_csv(out / "reference_lesion_free.csv", float_format="%.4f")
        click.echo(silence.to_string(float_format="%.3f"))
        if centres:
            operating(detector, centres, sequences).to_csv(out / "reference_operating.csv", float_format="%.4f")
    for ending, frame in tables.items():
        frame.to_csv(out / f"{name}{ending}.csv", float_format="%.4f")
    click.echo(table.T.to_string(float_format="%.3f"))
    click.echo(by_size.to_string(float_format="%.3f"))


if __name__ == "__main__":
    main()
