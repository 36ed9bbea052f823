"""The reference's depth network: stages of training on rendered scenes, each going on from the one before.

Letters: n scenes of s × s pixels, s = SCENE_PX.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from common import log, mean_of
from scene_cache import cached_scenes
from variation import Views

from lesionkit import metrics
from lesionkit.depth import DepthNet
from lesionkit.detector import load_depth, save_depth
from lesionkit.devices import resolve
from lesionkit.frames import STREAMS, rendered_frames, scene_frames
from lesionkit.scenes import SceneConfig, Scenes, stream_scenes
from lesionkit.training import DEPTH_AUGMENT, TrainConfig, estimate_depth, train_depth


@dataclass(frozen=True)
class DepthStage:
    scenes: dict[str, int]  # how many of each SceneConfig; always the first ones, if they are not renewed
    sizes_px: tuple[int, ...]  # edges that a batch is resized to
    epochs: int
    learning_rate: float  # at the peak
    batch: int = 16
    precision: str = "auto"
    renewed: int = 0  # after so many epochs others are rendered in place of these, straight from the renderer; 0: never
    coarse: float = 0.0  # share of the images that have half the pixels, enlarged
    share: float = 1.0  # of what the encoder learned in the mean with that which it began from


Samples = dict[str, torch.Tensor]  # image, mask, depth and view of n scenes
Wanted = Sequence[tuple[SceneConfig, int, int]]  # configurations, how many scenes of each, and their seeds

SCENE_PX = 256  # rendered at this edge, for all stages
# Lesions enough, low and hardly coloured, for relief; half of the images as small ones look, enlarged for the network.
# Frames from elsewhere lose by it; the mean with the encoder before keeps both.
RELIEF_STAGE = DepthStage(
    {"subtle": 4096, "standard": 3072, "hard": 640, "examination": 1280, "blind_end": 384}, (256, 320, 384), 4, 7e-4,
    coarse=0.5, share=0.7,
)  # fmt: skip
# Where the camera looks decides more than how many scenes there are: most look along the lumen, as in an examination.
# Small images first; the last stage has more scenes lit as physics has it, or tubes lit like that are forgotten.
DEPTH_STAGES = (
    DepthStage({"examination": 6144, "blind_end": 1664, "standard": 1408, "hard": 1536}, (160, 192, 224), 6, 2e-3),
    DepthStage({"examination": 6144, "blind_end": 1664, "standard": 1408, "hard": 1024}, (192, 224, 256), 4, 1.2e-3),
    DepthStage({"examination": 3072, "blind_end": 1024, "standard": 2560}, (256, 320), 3, 7e-4),
    RELIEF_STAGE,
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
    replace(RELIEF_STAGE, epochs=12, batch=64, precision="fp32", renewed=2),
)
SCENE_SEEDS = {"examination": 9400, "blind_end": 9500, "standard": 9600, "hard": 9700, "subtle": 9800}
DRAWING = 8  # processes that draw scenes for the GPU's renderer


def train(
    out: Path, device: torch.device, seed: int, precision: str | None, scale: float, recipe: Sequence[DepthStage],
    net: DepthNet | None = None,
) -> DepthNet:  # fmt: skip
    """The network after all stages of `recipe`, of which each that is finished is kept in `out`. precision: instead of
    the stages' own. scale: below 1 shortens it, for a trial. net: goes through the last stage alone."""
    kind = "fresh-" if recipe[-1].renewed else ""
    for number, stage in list(enumerate(recipe, start=1))[-1 if net else 0 :]:
        finished = out / f"{kind}depth-{number}.safetensors"
        if finished.exists():
            net = load_depth(finished)
            continue
        config = TrainConfig(
            stage.epochs,
            stage.batch,
            stage.learning_rate,
            ema_decay=0.998,
            sizes_px=stage.sizes_px,
            precision=precision or stage.precision,
            seed=seed + number,
        )
        how = {"log": log, "checkpoint": finished.with_suffix(".pt")}
        views = Views(replace(DEPTH_AUGMENT, blur=0.25), stage.coarse)
        before = deepcopy(net.global_net.encoder.state_dict()) if net else None
        net, _ = train_depth(samples_of(stage, number, device, seed, scale), config, device, net, views, **how)
        if before and stage.share < 1:
            encoder = net.global_net.encoder
            encoder.load_state_dict(mean_of([(stage.share, encoder.state_dict()), (1 - stage.share, before)]))
        save_depth(net, finished)
    save_depth(net, out / "depth.safetensors")
    return net


def samples_of(
    stage: DepthStage, number: int, device: torch.device, seed: int, scale: float
) -> Samples | Callable[[int], Samples]:
    """What stage `number` learns from: the same scenes in every epoch, or a function of the epoch."""
    counts = {name: max(round(count * scale), 1) for name, count in stage.scenes.items()}

    def wanted(seed: int) -> Wanted:
        return [(getattr(SceneConfig, name)(), count, SCENE_SEEDS[name] + seed) for name, count in counts.items()]

    if not stage.renewed:
        return kept_scenes(wanted(seed), SCENE_PX)
    kept: dict[int, Samples] = {}

    def samples(epoch: int) -> Samples:
        pool = epoch // stage.renewed
        if pool not in kept:
            kept.clear()  # there may not be room for two
            begin, first = time.perf_counter(), pool * max(counts.values())
            kept[pool] = fresh_scenes(wanted(seed + 1000 * number), SCENE_PX, device, first, DRAWING)
            log(f"{sum(counts.values())} new scenes in {time.perf_counter() - begin:.1f} s")
        return kept[pool]

    return samples


def kept_scenes(wanted: Wanted, size_px: int, device: str | torch.device = "cpu") -> Samples:
    """Scenes of the training stream in memory, by way of the cache on disk: trainings may begin again."""
    return packed(wanted, size_px, torch.device("cpu"), partial(cached_scenes, device=device))


def fresh_scenes(
    wanted: Wanted, size_px: int, device: str | torch.device = "auto", first: int = 0, workers: int = 0
) -> Samples:
    """As `kept_scenes`, straight from the renderer and on its device, for a GPU: the scenes numbered `first`, `first`
    + 1, … of each configuration's stream, drawn by `workers` processes."""
    place = resolve(str(device))
    return packed(wanted, size_px, place, partial(stream_scenes, device=place, first=first, workers=workers))


def packed(wanted: Wanted, size_px: int, place: torch.device, stream: Callable[..., Iterator[Scenes]]) -> Samples:
    """image n×3×s×s uint8, depth n×1×s×s float16, mask and view n×1×s×s bool, on `place`: 10,000 of 256 px are 5 GB.
    `variation.unpacked` makes floats of them again."""
    n, at = sum(count for _, count, _ in wanted), 0
    data = {
        "image": torch.empty(n, 3, size_px, size_px, dtype=torch.uint8, device=place),
        "mask": torch.empty(n, 1, size_px, size_px, dtype=torch.bool, device=place),
        "depth": torch.empty(n, 1, size_px, size_px, dtype=torch.float16, device=place),
        "view": torch.empty(n, 1, size_px, size_px, dtype=torch.bool, device=place),
    }
    for config, count, seed in wanted:
        for scenes in stream(count, size_px, seed + STREAMS["train"], config=config):
            chunk = scene_frames(scenes, size_px)
            rows, at = slice(at, at + len(chunk)), at + len(chunk)
            data["image"][rows] = (chunk.image * 255).round()
            data["mask"][rows], data["depth"][rows], data["view"][rows] = chunk.mask, chunk.depth, chunk.view
    return data


def report(net: DepthNet, device: torch.device, size_px: int, seed: int) -> dict[str, float]:
    """Mean figures on held-out scenes of two configurations."""
    found = {}
    for config in (SceneConfig.standard(), SceneConfig.hard()):
        held_out = rendered_frames("test", 64, size_px, seed, config)
        triples = zip(estimate_depth(net, held_out.image, device), held_out.depth, held_out.view, strict=True)
        rows = [metrics.depth_metrics(p, d, v > 0.5) for p, d, v in triples]
        found |= {f"{config.name} {name}": sum(r[name] for r in rows) / len(rows) for name in ("abs_rel", "delta1")}
    return found
