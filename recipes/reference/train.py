"""Trains the `reference` weights: depth on rendered scenes, segmentation on the training parts of the PraNet split.

    LESIONKIT_DATA=... python recipes/reference/train.py --out runs/reference

Stages, each resumable after a kill: depth network on rendered scenes (four steps; on a GPU `--fresh --compiled` has new
scenes all the time, straight from the renderer); segmentation on the training parts of Kvasir-SEG and CVC-ClinicDB
(PraNet split, less the validation part) with lesion-free crops and mirrored halves of the same images, six lesion-free
sequences of PolypGen, and rendered scenes; the mean of its last stages; two short trainings that fork from that mean,
the mean of all three, and the same once more from there; threshold fixed on the validation part and two more lesion-
free sequences. With all of this chosen, the forks are trained once more on the whole training part, validation images
included, as published tables do. Writes chosen.safetensors (before the validation images are learned from) and
weights.safetensors; the test parts are not touched here (benchmarks/evaluate_reference.py does that).
"""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import click
import depth_stages
import numpy as np
import torch
from common import log
from segmenter_stages import DROP_PATH, SEGMENTER_STAGES, begin_from, blended, free_frames, train_forks, train_stages
from splits import SPLITS, pooled

from lesionkit import datasets, fusion, metrics, scenes
from lesionkit.depth import DepthNet
from lesionkit.detector import Detector, DetectorConfig
from lesionkit.devices import resolve, seed_everything
from lesionkit.frames import Frames
from lesionkit.segmentation import GUIDANCE, DepthGuidedSegmenter


@click.command()
@click.option("--out", type=Path, required=True)
@click.option("--device", default="auto")
@click.option("--size-px", default=320, help="edge at which the detector will run")
@click.option("--encoder", default="efficientnet-lite2")
@click.option("--precision", default="auto", help="of the segmenter's training")
@click.option("--alarm-limit", default=0.05, help="share of lesion-free validation frames that may be marked")
@click.option("--seed", default=0)
@click.option("--split", type=click.Choice(list(SPLITS)), default="pranet")
@click.option("--stages", default=len(SEGMENTER_STAGES), help="how many of the segmenter's, for a shorter training")
@click.option("--guidance", type=click.Choice([name for name, kind in GUIDANCE.items() if kind.alone]), default="depth")
@click.option("--depth-precision", default=None, help="bf16 is faster on CPUs with matrix tiles [the recipe's]")
@click.option("--depth-scale", default=1.0, help="below 1 shortens the depth training, for a trial")
@click.option("--compiled", is_flag=True, help="render depth's scenes by a compiled program: faster, the same scenes")
@click.option("--fresh", is_flag=True, help="depth from new scenes all the time, for a GPU")
@click.option("--depth-from", default=None, help="of these weights: only the last stage is trained, on relief")
@click.option("--segmenter-from", default=None, help="of these weights: only the forks are trained")
@click.option("--only-depth", is_flag=True, help="stop after the depth network")
def main(
    out: Path,
    device: str,
    size_px: int,
    encoder: str,
    precision: str,
    alarm_limit: float,
    seed: int,
    split: str,
    stages: int,
    guidance: str,
    depth_precision: str | None,
    depth_scale: float,
    compiled: bool,
    fresh: bool,
    depth_from: str | None,
    segmenter_from: str | None,
    only_depth: bool,
) -> None:
    device = resolve(device)
    seed_everything(seed)
    torch.use_deterministic_algorithms(False)  # speed; the seeds still fix data and order
    with faster_renderer(device) if compiled else nullcontext():
        recipe = depth_stages.FRESH_STAGES if fresh else depth_stages.DEPTH_STAGES
        begun = Detector.from_pretrained(depth_from, "cpu").depth_net if depth_from else None
        net = depth_stages.train(out, device, seed, depth_precision, depth_scale, recipe, begun)
    log(f"depth on held-out scenes: {depth_stages.report(net, device, size_px, seed)}")
    if only_depth:
        return
    torch.manual_seed(seed)
    detector = untrained(net, size_px, guidance, encoder, split, device)
    if segmenter_from:
        begin_from(detector.segmenter, segmenter_from)
    else:
        train_stages(out, detector, split, precision, seed, SEGMENTER_STAGES[:stages])
    forked, learned, held_out = stages == len(SEGMENTER_STAGES), pooled("train", split), pooled("validation", split)
    if forked:
        start = detector.segmenter.state_dict() if segmenter_from else blended(out)
        start = {name: value.cpu().clone() for name, value in start.items()}
        train_forks(out, detector, start, learned, "fork", precision, seed)
    free = free_frames(split, size_px, seed)
    detector.threshold = metrics.best_threshold(*measure(detector, held_out, free), alarm_limit=alarm_limit)
    log(f"threshold {detector.threshold} from {len(held_out)} validation images and {len(free)} lesion-free frames")
    log(f"saved {detector.save(out / ('chosen.safetensors' if forked else 'weights.safetensors'))}")
    if forked:  # the same once more, with nothing left to choose and nothing held back
        train_forks(out, detector, start, learned + held_out, "last", precision, seed)
        log(f"saved {detector.save(out / 'weights.safetensors')}")


def faster_renderer(device: torch.device) -> AbstractContextManager:
    """What `--compiled` renders with, the same scenes up to rounding: on a GPU the kernel of this folder."""
    if device.type != "cuda":
        return scenes.compiled()
    from fused import by_kernel  # only where it is used: it leans on a private function of torch

    return by_kernel()


def untrained(net: DepthNet, size_px: int, guidance: str, encoder: str, split: str, device: torch.device) -> Detector:
    words = f"Kvasir-SEG and CVC-ClinicDB (training parts, {split} split), PolypGen (lesion-free), rendered scenes"
    config = DetectorConfig(size_px, guidance, encoder, trained_on=words)
    detector = Detector(net, DepthGuidedSegmenter(guidance, encoder), config, device)
    detector.segmenter.encoder.drop_path = DROP_PATH
    return detector


def measure(detector: Detector, samples: list[datasets.Sample], free: Frames) -> tuple[list, list]:
    """Probability and truth of validation images at the original's size, and of lesion-free frames."""
    found = [(detector(image).probability, mask) for image, mask in map(datasets.read_sample, samples)]
    found += [(detector(fusion.to_array(image)).probability, np.zeros(image.shape[1:], bool)) for image in free.raw]
    return [p for p, _ in found], [m for _, m in found]


if __name__ == "__main__":
    main()
