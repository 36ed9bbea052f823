"""Trains the `reference` weights: depth on rendered scenes, segmentation on the training parts of the PraNet split.

    LESIONKIT_DATA=... python benchmarks/train_reference.py --out runs/reference

Stages, each resumable after a kill: depth network on rendered scenes (standard and hard, 256 px); segmentation on
the training parts of Kvasir-SEG and CVC-ClinicDB (PraNet split, less the validation part) with lesion-free crops of
the same images and rendered scenes; threshold fixed on the validation part. Writes weights.safetensors; the test
parts are not touched here (benchmarks/evaluate_reference.py does that, once).
"""

import time
from pathlib import Path

import click
import torch

from lesionkit import datasets, losses, metrics
from lesionkit.depth import DepthNet
from lesionkit.detector import Detector, DetectorConfig, load_depth, save_depth
from lesionkit.devices import resolve, seed_everything
from lesionkit.frames import Frames, join, lesion_free_crops, real_frames, rendered_frames
from lesionkit.scenes import SceneConfig
from lesionkit.training import TrainConfig, estimate_depth, train_depth, train_segmenter

SETS = ("kvasir-seg", "cvc-clinicdb")


def depth_stage(
    out: Path, device: torch.device, size_px: int, scenes: int, epochs: int, seed: int
) -> tuple[DepthNet, dict]:
    configs, done = (SceneConfig.standard(), SceneConfig.hard()), out / "depth.safetensors"
    if done.exists():
        net = load_depth(done)
    else:
        frames = join([rendered_frames("train", scenes // 2, size_px, seed + i, c) for i, c in enumerate(configs)])
        config = TrainConfig(epochs=epochs, batch_size=16, learning_rate=3e-3, seed=seed)
        net, _ = train_depth(frames, config, device, log=log, checkpoint=out / "depth.pt")
        save_depth(net, done)
    held_out = rendered_frames("test", 64, size_px, seed, configs[0])
    predicted = estimate_depth(net, held_out.image, device)
    triples = zip(predicted, held_out.depth, held_out.content, strict=True)
    rows = [metrics.depth_metrics(p, d, v > 0.5) for p, d, v in triples]
    return net, {name: sum(r[name] for r in rows) / len(rows) for name in rows[0]}


def training_frames(size_px: int, seed: int) -> tuple[Frames, Frames]:
    parts = {part: [s for n in SETS for s in datasets.open_dataset(n).part(part)] for part in ("train", "validation")}
    train, validation = (real_frames(parts[part], size_px) for part in ("train", "validation"))
    free = lesion_free_crops(train, count=len(train) // 8, seed=seed)
    configs = (SceneConfig.standard(), SceneConfig.hard())
    scenes = join([rendered_frames("train", 96, size_px, seed + 10, config) for config in configs])
    return join([train, free, scenes]), validation


def measure(detector: Detector, samples: list) -> tuple[list, list]:
    """Probability and truth at the original's size, image by image."""
    found = [(detector(image).probability, mask) for image, mask in map(datasets.read_sample, samples)]
    return [p for p, _ in found], [m for _, m in found]


def log(line: str) -> None:
    print(time.strftime("%H:%M:%S"), line, flush=True)


@click.command()
@click.option("--out", type=Path, required=True)
@click.option("--device", default="auto")
@click.option("--size-px", default=256)
@click.option("--scenes", default=1600)
@click.option("--depth-epochs", default=10)
@click.option("--epochs", default=16)
@click.option("--seed", default=0)
@click.option("--guidance", default="depth")
def main(
    out: Path, device: str, size_px: int, scenes: int, depth_epochs: int, epochs: int, seed: int, guidance: str
) -> None:
    device = resolve(device)
    seed_everything(seed)
    torch.use_deterministic_algorithms(False)  # speed; the seeds still fix data and order
    net, depth_report = depth_stage(out, device, size_px, scenes, depth_epochs, seed)
    log(f"depth on held-out scenes: {depth_report}")
    train, validation = training_frames(size_px, seed)
    log(f"{len(train)} training frames, {len(validation)} for validation")
    config = TrainConfig(epochs=epochs, batch_size=16, learning_rate=1e-3, average=0.995, seed=seed)
    depth, loss = estimate_depth(net, train.image, device), losses.weighted("dice", "bce", 0.5)
    how = {"log": log, "checkpoint": out / "segmenter.pt"}
    segmenter, _ = train_segmenter(train, depth, loss, config, device, guidance, **how)
    words = "Kvasir-SEG and CVC-ClinicDB (PraNet training parts), rendered scenes"
    detector = Detector(net, segmenter, DetectorConfig(size_px, guidance, trained_on=words), device)
    held_out = [s for n in SETS for s in datasets.open_dataset(n).part("validation")]
    detector.threshold = metrics.best_threshold(*measure(detector, held_out))
    log(f"threshold {detector.threshold} from {len(held_out)} validation images")
    log(f"saved {detector.save(out / 'weights.safetensors')}")


if __name__ == "__main__":
    main()
