"""Trains the `reference` weights: depth on rendered scenes, segmentation on the training parts of the PraNet split.

    LESIONKIT_DATA=... python benchmarks/train_reference.py --out runs/reference

Stages, each resumable after a kill: depth network on rendered scenes (128 px, then 256 px); segmentation on
the training parts of Kvasir-SEG and CVC-ClinicDB (PraNet split, less the validation part) with lesion-free crops of
the same images and rendered scenes; threshold fixed on the validation part. Writes weights.safetensors; the test
parts are not touched here (benchmarks/evaluate_reference.py does that, once).
"""

import time
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch

from lesionkit import datasets, fusion, losses, metrics
from lesionkit.depth import DepthNet
from lesionkit.detector import Detector, DetectorConfig, load_depth, save_depth
from lesionkit.devices import resolve, seed_everything
from lesionkit.frames import Frames, depth_frames, join, lesion_free_crops, real_frames, rendered_frames
from lesionkit.scenes import SceneConfig
from lesionkit.training import TrainConfig, estimate_depth, train_depth, train_segmenter

SETS = ("kvasir-seg", "cvc-clinicdb")


# (size_px, scenes, epochs, peak learning rate): many small scenes for variety, then others at the size that is shipped
DEPTH_STAGES = ((128, 6000, 10, 2e-3), (256, 2000, 5, 1e-3), (256, 3400, 4, 8e-4))
STANDARD = 0.25  # share of the scenes of the lessons among those of `hard`


def depth_scenes(count: int, size_px: int, seed: int) -> dict[str, torch.Tensor]:
    standard = round(count * STANDARD)
    return depth_frames(((SceneConfig.standard(), standard), (SceneConfig.hard(), count - standard)), size_px, seed)


def depth_stage(out: Path, device: torch.device, seed: int, precision: str, scale: float) -> DepthNet:
    """`scale` < 1 shortens it, for a trial. Everything that the network learns depth from is rendered."""
    net = None
    for number, (size_px, scenes, epochs, rate) in enumerate(DEPTH_STAGES, start=1):
        finished = out / f"depth-{number}.safetensors"
        if finished.exists():
            net = load_depth(finished)
            continue
        frames = depth_scenes(round(scenes * scale), size_px, seed + 100 * number)
        log(f"{len(frames['image'])} scenes of {size_px} px")
        config = TrainConfig(epochs, 16, rate, average=0.998, precision=precision, seed=seed)
        net, _ = train_depth(frames, config, device, net, log=log, checkpoint=out / f"depth-{number}.pt")
        save_depth(net, finished)
    return net


def depth_report(net: DepthNet, device: torch.device, size_px: int, seed: int) -> dict[str, float]:
    """Mean figures on held-out scenes of both configurations."""
    report = {}
    for config in (SceneConfig.standard(), SceneConfig.hard()):
        held_out = rendered_frames("test", 64, size_px, seed, config)
        triples = zip(estimate_depth(net, held_out.image, device), held_out.depth, held_out.content, strict=True)
        rows = [metrics.depth_metrics(p, d, v > 0.5) for p, d, v in triples]
        report |= {f"{config.name} {name}": sum(r[name] for r in rows) / len(rows) for name in ("abs_rel", "delta1")}
    return report


def training_frames(size_px: int, seed: int) -> tuple[Frames, Frames, Frames]:
    """For training; for validation; and lesion-free ones for validation, since every real image shows a lesion."""
    parts = {part: [s for n in SETS for s in datasets.open_dataset(n).part(part)] for part in ("train", "validation")}
    train, validation = (real_frames(parts[part], size_px) for part in ("train", "validation"))
    free = lesion_free_crops(train, count=len(train) // 4, seed=seed)
    configs = (SceneConfig.standard(), SceneConfig.hard())
    scenes = [rendered_frames("train", 96, size_px, seed + 10, config, kept=True) for config in configs]
    bare = [replace(config, lesion_free=1.0) for config in configs]
    empty = [rendered_frames("train", 48, size_px, seed + 11, config, kept=True) for config in bare]
    held_out = [rendered_frames("validation", 50, size_px, seed, config, kept=True) for config in bare]
    crops = lesion_free_crops(validation, count=100, seed=seed)
    return join([train, free, *scenes, *empty]), validation, join([crops, *held_out])


def measure(detector: Detector, samples: list, free: Frames) -> tuple[list, list]:
    """Probability and truth of validation images at the original's size, and of lesion-free frames."""
    found = [(detector(image).probability, mask) for image, mask in map(datasets.read_sample, samples)]
    found += [(detector(fusion.to_array(image)).probability, np.zeros(image.shape[1:], bool)) for image in free.raw]
    return [p for p, _ in found], [m for _, m in found]


def log(line: str) -> None:
    print(time.strftime("%H:%M:%S"), line, flush=True)


@click.command()
@click.option("--out", type=Path, required=True)
@click.option("--device", default="auto")
@click.option("--size-px", default=256)
@click.option("--epochs", default=16)
@click.option("--rate", default=1e-3, help="peak learning rate of the segmenter")
@click.option("--multi-scale/--one-scale", default=True)
@click.option("--start", default="", help="a weight file whose segmenter is trained further")
@click.option("--alarm-limit", default=1.0, help="share of lesion-free validation frames that may be marked")
@click.option("--seed", default=0)
@click.option("--guidance", default="depth")
@click.option("--depth-precision", default="auto", help="bf16 is faster on CPUs with matrix tiles")
@click.option("--depth-scale", default=1.0, help="below 1 shortens the depth training, for a trial")
@click.option("--only-depth", is_flag=True, help="stop after the depth network")
def main(
    out: Path, device: str, size_px: int, epochs: int, rate: float, multi_scale: bool, start: str,
    alarm_limit: float, seed: int, guidance: str, depth_precision: str, depth_scale: float, only_depth: bool,
) -> None:
    device = resolve(device)
    seed_everything(seed)
    torch.use_deterministic_algorithms(False)  # speed; the seeds still fix data and order
    net = depth_stage(out, device, seed, depth_precision, depth_scale)
    log(f"depth on held-out scenes: {depth_report(net, device, size_px, seed)}")
    if only_depth:
        return
    train, validation, free = training_frames(size_px, seed)
    log(f"{len(train)} training frames; {len(validation)} and {len(free)} lesion-free ones for validation")
    sizes = tuple(size for size in (size_px - 64, size_px, size_px + 64) if multi_scale)
    config = TrainConfig(epochs, 16, learning_rate=rate, average=0.995, sizes_px=sizes, seed=seed)
    depth, loss = estimate_depth(net, train.image, device), losses.weighted("dice", "bce", 0.5)
    how = {"log": log, "checkpoint": out / "segmenter.pt"}
    begin = Detector.from_pretrained(start, device).segmenter if start else None
    segmenter, _ = train_segmenter(train, depth, loss, config, device, guidance, begin, **how)
    words = "Kvasir-SEG and CVC-ClinicDB (PraNet training parts), rendered scenes"
    detector = Detector(net, segmenter, DetectorConfig(size_px, guidance, trained_on=words), device)
    held_out = [s for n in SETS for s in datasets.open_dataset(n).part("validation")]
    detector.threshold = metrics.best_threshold(*measure(detector, held_out, free), alarm_limit=alarm_limit)
    log(f"threshold {detector.threshold} from {len(held_out)} validation images and {len(free)} lesion-free frames")
    log(f"saved {detector.save(out / 'weights.safetensors')}")


if __name__ == "__main__":
    main()
