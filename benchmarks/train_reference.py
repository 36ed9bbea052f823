"""Trains the `reference` weights: depth on rendered scenes, segmentation on the training parts of the PraNet split.

    LESIONKIT_DATA=... python benchmarks/train_reference.py --out runs/reference

Stages, each resumable after a kill: depth network on rendered scenes (three steps; on a GPU `--fresh --compiled`
has new scenes all the time, straight from the renderer); segmentation on the training parts of Kvasir-SEG and
CVC-ClinicDB (PraNet split, less the validation part) with lesion-free crops and mirrored halves of the same images and
rendered scenes; the mean of its last stages; two short trainings that fork from that mean, the mean of all three,
and the same once more from there; threshold fixed on the validation part. With all of this chosen, the forks are
trained once more on the whole training part, validation images included, as published tables do. Writes
chosen.safetensors (before the validation images are learned from) and weights.safetensors; the test parts are not
touched here (benchmarks/evaluate_reference.py does that).
"""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch
from splits import SPLITS, samples_of

from lesionkit import datasets, fusion, losses, metrics
from lesionkit.depth import DepthNet
from lesionkit.detector import USABLE_GUIDANCE, Detector, DetectorConfig, load_depth, save_depth
from lesionkit.devices import resolve, seed_everything
from lesionkit.frames import (
    Frames,
    depth_frames,
    fresh_depth_frames,
    join,
    lesion_free_crops,
    lesion_free_mirrors,
    real_frames,
    rendered_frames,
)
from lesionkit.preprocess import AugmentConfig, Views
from lesionkit.scenes import SceneConfig
from lesionkit.scenes import march as raymarch
from lesionkit.segmentation import DepthGuidedSegmenter
from lesionkit.training import DEPTH_AUGMENT, TrainConfig, estimate_depth, train_depth, train_segmenter


@dataclass(frozen=True)
class DepthStage:
    scenes: dict[str, int]  # how many of each SceneConfig; always the first ones, if they are not renewed
    sizes_px: tuple[int, ...]  # edges that a batch is resized to
    epochs: int
    rate: float  # peak learning rate
    batch: int = 16
    precision: str = "auto"
    renewed: int = 0  # after so many epochs others are rendered in place of these, straight from the renderer; 0: never


Samples = dict[str, torch.Tensor] | Callable[[int], dict[str, torch.Tensor]]

SCENE_PX = 256  # rendered at this edge, for all stages
# Where the camera looks decides more than how many scenes there are: most look along the lumen, as in an examination.
# Small images first; the last stage has more scenes lit as physics has it, or tubes lit like that are forgotten.
DEPTH_STAGES = (
    DepthStage({"examination": 6144, "blind_end": 1664, "standard": 1408, "hard": 1536}, (160, 192, 224), 6, 2e-3),
    DepthStage({"examination": 6144, "blind_end": 1664, "standard": 1408, "hard": 1024}, (192, 224, 256), 4, 1.2e-3),
    DepthStage({"examination": 3072, "blind_end": 1024, "standard": 2560}, (256, 320), 3, 7e-4),
)
# The same on a GPU, whose renderer is fast enough for scenes that are seen three times only: what an H200 had done in
# five minutes.
FRESH_STAGES = (
    DepthStage(
        {"examination": 2183, "blind_end": 504, "standard": 756, "hard": 588}, (160, 192, 224), 24, 3e-3, 64, "fp32", 3
    ),
    DepthStage(
        {"examination": 2015, "blind_end": 504, "standard": 1092, "hard": 420}, (192, 224, 256), 24, 2e-3, 64, "fp32", 3
    ),
    DepthStage({"examination": 1763, "blind_end": 504, "standard": 1763}, (256, 320), 18, 1e-3, 64, "fp32", 3),
)
DRAWING = 8  # processes that draw scenes for the GPU's renderer
SCENE_SEEDS = {"examination": 9400, "blind_end": 9500, "standard": 9600, "hard": 9700}
# wider than for short trainings: lesions of every size, colours of other hospitals
VARIATION = AugmentConfig(
    scale=(0.55, 2.0), brightness=0.25, contrast=0.25, saturation=0.35, hue=0.04, blur=0.25, illumination=0.3,
    padding="reflection",
)  # fmt: skip
# (edges that a batch is resized to, epochs, peak learning rate): the later, slower and with larger images, go on
SEGMENTER_STAGES = (((224, 256, 320), 13, 1e-3), ((256, 320), 22, 6e-4), ((256, 320), 30, 6e-4))
FREE = (160, 300, 160)  # lesion-free crops, mirrored halves and `hard` scenes
DROP_PATH = 0.2  # of the encoder; a third stage without it, and with less zoom, fitted its own images and no new ones
BLEND = {2: 0.65, 3: 0.35}  # of these stages' weights the mean, which validation prefers to either
# share of images with a rectangle of another, weight decay: two that differ, since only what differs gains by a mean
FORKS = ((0.5, 0.05), (0.0, TrainConfig.weight_decay))
FORK_EPOCHS, FORK_RATE, FORK_EDGES = 12, 5e-4, (256, 320)
FORK_FREE = (180, 380, 190)  # more than before: what is left of false alarms is unlearned last
FORK_SHARE = 0.25  # of each fork's weights in the mean; the rest is what they began from
ROUNDS = 2  # the second two begin from the first two's mean


def depth_scenes(stage: DepthStage, number: int, device: torch.device, seed: int, scale: float) -> Samples:
    """What stage `number` learns from: the same scenes in every epoch, or a function of the epoch."""
    counts = {name: max(round(count * scale), 1) for name, count in stage.scenes.items()}

    def wanted(seed: int) -> list[tuple[SceneConfig, int, int]]:
        return [(getattr(SceneConfig, name)(), count, SCENE_SEEDS[name] + seed) for name, count in counts.items()]

    if not stage.renewed:
        return depth_frames(wanted(seed), SCENE_PX)
    kept: dict[int, dict[str, torch.Tensor]] = {}

    def samples(epoch: int) -> dict[str, torch.Tensor]:
        pool = epoch // stage.renewed
        if pool not in kept:
            kept.clear()  # there may not be room for two
            begin, first = time.perf_counter(), pool * max(counts.values())
            kept[pool] = fresh_depth_frames(wanted(seed + 1000 * number), SCENE_PX, device, first, DRAWING)
            log(f"{sum(counts.values())} new scenes in {time.perf_counter() - begin:.1f} s")
        return kept[pool]

    return samples


def depth_stage(
    out: Path, device: torch.device, seed: int, precision: str | None, scale: float, recipe: Sequence[DepthStage]
) -> DepthNet:
    """`scale` < 1 shortens it, for a trial. Everything that the network learns depth from is rendered."""
    net, fresh = None, bool(recipe[-1].renewed)
    files = [out / f"{'fresh-' if fresh else ''}depth-{n}.safetensors" for n in range(1, len(recipe) + 1)]
    for number, (stage, finished) in enumerate(zip(recipe, files, strict=True), start=1):
        if finished.exists():
            net = load_depth(finished)
            continue
        config = TrainConfig(
            stage.epochs, stage.batch, stage.rate, ema_decay=0.998, sizes_px=stage.sizes_px,
            precision=precision or stage.precision, seed=seed + number,
        )  # fmt: skip
        how = {"log": log, "checkpoint": finished.with_suffix(".pt")}
        views = Views(replace(DEPTH_AUGMENT, blur=0.25))
        net, _ = train_depth(depth_scenes(stage, number, device, seed, scale), config, device, net, views, **how)
        save_depth(net, finished)
    if fresh:  # the last two steps' mean knows scenes that neither has seen a little better than the last
        net.load_state_dict(mean_of([(0.5, load_depth(file).state_dict()) for file in files[-2:]]))
    save_depth(net, out / "depth.safetensors")
    return net


def depth_report(net: DepthNet, device: torch.device, size_px: int, seed: int) -> dict[str, float]:
    """Mean figures on held-out scenes of both configurations."""
    report = {}
    for config in (SceneConfig.standard(), SceneConfig.hard()):
        held_out = rendered_frames("test", 64, size_px, seed, config)
        triples = zip(estimate_depth(net, held_out.image, device), held_out.depth, held_out.view, strict=True)
        rows = [metrics.depth_metrics(p, d, v > 0.5) for p, d, v in triples]
        report |= {f"{config.name} {name}": sum(r[name] for r in rows) / len(rows) for name in ("abs_rel", "delta1")}
    return report


def together(part: str, split: str) -> list[datasets.Sample]:
    return [sample for samples in samples_of(part, split).values() for sample in samples]


def scene_configs() -> tuple[tuple[SceneConfig, SceneConfig], tuple[SceneConfig, SceneConfig]]:
    """`standard` and `hard`; and both without lesions, since every real image shows one."""
    configs = (SceneConfig.standard(), SceneConfig.hard())
    return configs, tuple(replace(config, lesion_free=1.0) for config in configs)


def training_frames(real: Frames, seed: int, free: tuple[int, int, int]) -> Frames:
    """Real images, lesion-free parts of them, and rendered scenes. free: how many crops, mirrored halves and `hard`
    scenes without a lesion."""
    size_px, (crops, mirrors, bare_hard) = real.image.shape[-1], free
    configs, bare = scene_configs()
    # more of the hard ones: look-alikes of lesions are what has to be told apart
    mixture = ((32, 10, configs[0]), (64, 10, configs[1]), (60, 11, bare[0]), (bare_hard, 11, bare[1]))
    scenes = [rendered_frames("train", n, size_px, seed + shift, config, kept=True) for n, shift, config in mixture]
    parts = [real, *lesion_free(real, crops, mirrors, seed), *scenes]
    return join([replace(part, raw=part.raw[:, :0]) for part in parts])  # a third of the memory, and not learned from


def free_frames(split: str, size_px: int, seed: int) -> Frames:
    """Lesion-free ones for validation."""
    scenes = [rendered_frames("validation", 50, size_px, seed, bare, kept=True) for bare in scene_configs()[1]]
    return join([*lesion_free(real_frames(together("validation", split), size_px), 100, 100, seed), *scenes])


def lesion_free(frames: Frames, crops: int, mirrors: int, seed: int) -> tuple[Frames, Frames]:
    """All that images with lesions offer of normal tissue, close up and at the scale of a whole frame."""
    return lesion_free_crops(frames, crops, seed), lesion_free_mirrors(frames, mirrors, seed)


def segmenter_stages(out: Path, detector: Detector, split: str, precision: str, seed: int, stages: tuple) -> None:
    """Trains `detector.segmenter` in place; each finished stage is kept in `out`."""
    frames = depth = None
    for number, (edges, epochs, rate) in enumerate(stages, start=1):
        finished = out / f"segmenter-{number}.safetensors"
        if finished.exists():
            detector.segmenter.load_state_dict(weights_of(finished))
            continue
        if frames is None:
            size_px = max(edge for stage in stages for edge in stage[0])
            frames = training_frames(real_frames(together("train", split), size_px), seed, FREE)
            depth = estimate_depth(detector.depth_net, frames.image, detector.device)
        config = TrainConfig(
            epochs, 16, rate, ema_decay=0.995, sizes_px=edges, precision=precision, seed=seed + number - 1
        )
        fit(detector, frames, depth, config, VARIATION, finished)


def fit(
    detector: Detector, frames: Frames, depth: torch.Tensor, config: TrainConfig, variation: AugmentConfig,
    finished: Path,
) -> None:
    """One training of `detector.segmenter`, in place and into a file."""
    log(f"{finished.stem}: {len(frames)} training frames")
    loss, guidance = losses.weighted("dice", "bce", 0.5), detector.config.guidance
    how = {"log": log, "checkpoint": finished.with_suffix(".pt")}
    train_segmenter(frames, depth, loss, config, detector.device, guidance, detector.segmenter, variation, **how)
    detector.save(finished)


def segmenter_forks(
    out: Path, detector: Detector, samples: list[datasets.Sample], name: str, precision: str, seed: int
) -> None:
    """Several short trainings from the blended stages, in ROUNDS; `detector.segmenter` becomes the mean of all. Each
    fork has other lesion-free material and another order, and is kept in `out` under `name`."""
    start, real, number = blended(out), None, 0
    for _ in range(ROUNDS):
        states = [(1 - FORK_SHARE * len(FORKS), start)]
        for mix, decay in FORKS:
            number += 1
            finished = out / f"{name}-{number}.safetensors"
            if not finished.exists():
                real = real_frames(samples, max(FORK_EDGES)) if real is None else real
                config = TrainConfig(
                    FORK_EPOCHS, 16, FORK_RATE, weight_decay=decay, ema_decay=0.998, sizes_px=FORK_EDGES,
                    precision=precision, seed=seed + 20 + number,
                )  # fmt: skip
                fork_from(start, detector, real, config, mix, finished)
            states.append((FORK_SHARE, weights_of(finished)))
        start = mean_of(states)
    detector.segmenter.load_state_dict(start)


def fork_from(
    start: dict[str, torch.Tensor], detector: Detector, real: Frames, config: TrainConfig, mix: float, finished: Path
) -> None:
    """One training of a copy of `detector` from the weights `start`, into a file."""
    fork = deepcopy(detector)
    fork.segmenter.load_state_dict(start)
    fork.segmenter.encoder.freeze(2)
    frames = training_frames(real, config.seed, FORK_FREE)
    depth = estimate_depth(fork.depth_net, frames.image, fork.device)
    fit(fork, frames, depth, config, replace(VARIATION, mix=mix), finished)


def blended(out: Path) -> dict[str, torch.Tensor]:
    """The mean of the finished stages' weights by BLEND."""
    return mean_of([(share, weights_of(out / f"segmenter-{n}.safetensors")) for n, share in BLEND.items()])


def weights_of(finished: Path) -> dict[str, torch.Tensor]:
    return Detector.from_pretrained(finished, "cpu").segmenter.state_dict()


def mean_of(states: list[tuple[float, dict[str, torch.Tensor]]]) -> dict[str, torch.Tensor]:
    """The weighted mean of several networks' weights; `states` are pairs of a share and a state."""
    first = states[0][1]  # batch norm's counters of steps are whole numbers, and no longer needed
    return {
        name: sum(share * state[name] for share, state in states) if value.is_floating_point() else value
        for name, value in first.items()
    }


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
@click.option("--size-px", default=320, help="edge at which the detector will run")
@click.option("--encoder", default="efficientnet-lite2")
@click.option("--precision", default="auto", help="of the segmenter's training")
@click.option("--alarm-limit", default=0.05, help="share of lesion-free validation frames that may be marked")
@click.option("--seed", default=0)
@click.option("--split", type=click.Choice(list(SPLITS)), default="pranet")
@click.option("--stages", default=len(SEGMENTER_STAGES), help="how many of the segmenter's, for a shorter training")
@click.option("--guidance", type=click.Choice(USABLE_GUIDANCE), default="depth")
@click.option("--depth-precision", default=None, help="bf16 is faster on CPUs with matrix tiles [the recipe's]")
@click.option("--depth-scale", default=1.0, help="below 1 shortens the depth training, for a trial")
@click.option("--compiled", is_flag=True, help="render depth's scenes by a compiled program: faster, the same scenes")
@click.option("--fresh", is_flag=True, help="depth from new scenes all the time, for a GPU")
@click.option("--only-depth", is_flag=True, help="stop after the depth network")
def main(
    out: Path, device: str, size_px: int, encoder: str, precision: str, alarm_limit: float, seed: int, split: str,
    stages: int, guidance: str, depth_precision: str | None, depth_scale: float, compiled: bool, fresh: bool,
    only_depth: bool,
) -> None:
    device = resolve(device)
    seed_everything(seed)
    torch.use_deterministic_algorithms(False)  # speed; the seeds still fix data and order
    with raymarch.compiled() if compiled else nullcontext():
        recipe = FRESH_STAGES if fresh else DEPTH_STAGES
        net = depth_stage(out, device, seed, depth_precision, depth_scale, recipe)
    log(f"depth on held-out scenes: {depth_report(net, device, size_px, seed)}")
    if only_depth:
        return
    torch.manual_seed(seed)
    words = f"Kvasir-SEG and CVC-ClinicDB (training parts, {split} split), rendered scenes"
    config = DetectorConfig(size_px, guidance, encoder, trained_on=words)
    detector = Detector(net, DepthGuidedSegmenter(guidance, encoder), config, device)
    detector.segmenter.encoder.drop_path = DROP_PATH
    segmenter_stages(out, detector, split, precision, seed, SEGMENTER_STAGES[:stages])
    whole, learned, held_out = stages == len(SEGMENTER_STAGES), together("train", split), together("validation", split)
    if whole:
        segmenter_forks(out, detector, learned, "fork", precision, seed)
    free = free_frames(split, size_px, seed)
    detector.threshold = metrics.best_threshold(*measure(detector, held_out, free), alarm_limit=alarm_limit)
    log(f"threshold {detector.threshold} from {len(held_out)} validation images and {len(free)} lesion-free frames")
    log(f"saved {detector.save(out / ('chosen.safetensors' if whole else 'weights.safetensors'))}")
    if whole:  # the same once more, with nothing left to choose and nothing held back
        segmenter_forks(out, detector, learned + held_out, "last", precision, seed)
        log(f"saved {detector.save(out / 'weights.safetensors')}")


if __name__ == "__main__":
    main()
