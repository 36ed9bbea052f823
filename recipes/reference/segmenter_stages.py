"""The reference's segmenter: three stages, the mean of the last two, and forks from that mean."""

from copy import deepcopy
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import torch
from common import log, mean_of
from mirrors import lesion_free_mirrors
from scene_cache import cached_scenes
from splits import free_sequences, pooled
from variation import Variation

from lesionkit import datasets, losses
from lesionkit.detector import Detector
from lesionkit.frames import Frames, join, lesion_free_crops, lesion_free_frames, real_frames, rendered_frames
from lesionkit.scenes import SceneConfig
from lesionkit.segmentation import DepthGuidedSegmenter
from lesionkit.training import TrainConfig, estimate_depth, train_segmenter

kept_frames = partial(rendered_frames, stream=cached_scenes)

# (edges that a batch is resized to, epochs, peak learning rate): the later, slower and with larger images, go on
SEGMENTER_STAGES = (((224, 256, 320), 13, 1e-3), ((256, 320), 22, 6e-4), ((256, 320), 30, 6e-4))
FREE = (160, 300, 160)  # lesion-free crops, mirrored halves and `hard` scenes
SILENT = 2  # times that an epoch shows each frame of the real lesion-free sequences, of which there are few
DROP_PATH = 0.2  # of the encoder; a third stage without it, and with less zoom, fitted its own images and no new ones
BLEND = {2: 0.65, 3: 0.35}  # of these stages' weights the mean, which validation prefers to either
# shares of images with a rectangle and with the colours of another, weight decay: two that differ, since only what
# differs gains by a mean
FORKS = ((0.5, 0.5, 0.05), (0.0, 0.0, TrainConfig.weight_decay))
FORK_EPOCHS, FORK_RATE, FORK_EDGES = 12, 5e-4, (288, 320, 352)
FORK_FREE = (180, 380, 190)  # more than before: what is left of false alarms is unlearned last
FORK_SHARE = 0.25  # of each fork's weights in the mean; the rest is what they began from
ROUNDS = 2  # the second two begin from the first two's mean

State = dict[str, torch.Tensor]


# --- what it learns from


def scene_configs() -> tuple[tuple[SceneConfig, SceneConfig], tuple[SceneConfig, SceneConfig]]:
    """`standard` and `hard`; and both without lesions, since every real image shows one."""
    configs = (SceneConfig.standard(), SceneConfig.hard())
    return configs, tuple(replace(config, lesion_free=1.0) for config in configs)


def training_frames(real: Frames, seed: int, free: tuple[int, int, int]) -> Frames:
    """Real images, lesion-free parts of them, real lesion-free sequences, and rendered scenes. free: how many crops,
    mirrored halves and `hard` scenes without a lesion."""
    size_px, (crops, mirrors, bare_hard) = real.image.shape[-1], free
    configs, bare = scene_configs()
    # more of the hard ones: look-alikes of lesions are what has to be told apart
    mixture = ((32, 10, configs[0]), (64, 10, configs[1]), (60, 11, bare[0]), (bare_hard, 11, bare[1]))
    scenes = [kept_frames("train", n, size_px, seed + shift, config) for n, shift, config in mixture]
    parts = [real, *lesion_free(real, crops, mirrors, seed), *[silent_frames("train", size_px)] * SILENT, *scenes]
    return join([replace(part, raw=part.raw[:, :0]) for part in parts])  # a third of the memory, and not learned from


def free_frames(split: str, size_px: int, seed: int) -> Frames:
    """Lesion-free ones for validation."""
    scenes = [kept_frames("validation", 50, size_px, seed, bare) for bare in scene_configs()[1]]
    found = lesion_free(real_frames(pooled("validation", split), size_px), 100, 100, seed)
    return join([*found, silent_frames("threshold", size_px), *scenes])


@lru_cache(maxsize=2)
def silent_frames(part: str, size_px: int) -> Frames:
    """Of the real lesion-free sequences, without what `rendered_frames` adds."""
    return lesion_free_frames([path for paths in free_sequences(part).values() for path in paths], size_px)


def lesion_free(frames: Frames, crops: int, mirrors: int, seed: int) -> tuple[Frames, Frames]:
    """All that images with lesions offer of normal tissue, close up and at the scale of a whole frame."""
    return lesion_free_crops(frames, crops, seed), lesion_free_mirrors(frames, mirrors, seed)


# --- the trainings


def train_stages(out: Path, detector: Detector, split: str, precision: str, seed: int, stages: tuple) -> None:
    """Trains `detector.segmenter` in place; each finished stage is kept in `out`."""
    frames = depth = None
    for number, (edges, epochs, rate) in enumerate(stages, start=1):
        finished = out / f"segmenter-{number}.safetensors"
        if finished.exists():
            detector.segmenter.load_state_dict(weights_of(finished))
            continue
        if frames is None:
            size_px = max(edge for stage in stages for edge in stage[0])
            frames = training_frames(real_frames(pooled("train", split), size_px), seed, FREE)
            depth = estimate_depth(detector.depth_net, frames.image, detector.device)
        config = TrainConfig(
            epochs, 16, rate, ema_decay=0.995, sizes_px=edges, precision=precision, seed=seed + number - 1
        )
        fit(detector, frames, depth, config, Variation(), finished)


def fit(
    detector: Detector, frames: Frames, depth: torch.Tensor, config: TrainConfig, variation: Variation, finished: Path
) -> None:
    """One training of `detector.segmenter`, in place and into a file."""
    log(f"{finished.stem}: {len(frames)} training frames")
    loss, guidance = losses.weighted("dice", "bce", 0.5), detector.config.guidance
    how = {"log": log, "checkpoint": finished.with_suffix(".pt")}
    train_segmenter(frames, depth, loss, config, detector.device, guidance, detector.segmenter, variation, **how)
    detector.save(finished)


def blended(out: Path) -> State:
    """The mean of the last stages."""
    return mean_of([(share, weights_of(out / f"segmenter-{n}.safetensors")) for n, share in BLEND.items()])


def begin_from(segmenter: DepthGuidedSegmenter, weights: str) -> None:
    """What other weights have of the same kind and shape: encoder and decoder, and the branch if it is of this one."""
    known, wanted = Detector.from_pretrained(weights, "cpu").segmenter.state_dict(), segmenter.state_dict()
    same = {name: value for name, value in known.items() if name in wanted and value.shape == wanted[name].shape}
    segmenter.load_state_dict(same, strict=False)


def train_forks(
    out: Path, detector: Detector, start: State, samples: list[datasets.Sample], name: str, precision: str, seed: int
) -> None:
    """Several short trainings from the weights `start`, in ROUNDS; `detector.segmenter` becomes the mean of all. Each
    fork has other lesion-free material and another order, and is kept in `out` under `name`."""
    real, number = None, 0
    for _ in range(ROUNDS):
        states = [(1 - FORK_SHARE * len(FORKS), start)]
        for mix, looks, decay in FORKS:
            number += 1
            finished = out / f"{name}-{number}.safetensors"
            if not finished.exists():
                real = real_frames(samples, max(FORK_EDGES)) if real is None else real
                config = TrainConfig(
                    FORK_EPOCHS,
                    16,
                    FORK_RATE,
                    weight_decay=decay,
                    ema_decay=0.998,
                    sizes_px=FORK_EDGES,
                    precision=precision,
                    seed=seed + 20 + number,
                )
                fork_from(start, detector, real, config, Variation(mix=mix, looks=looks), finished)
            states.append((FORK_SHARE, weights_of(finished)))
        start = mean_of(states)
    detector.segmenter.load_state_dict(start)


def fork_from(
    start: State, detector: Detector, real: Frames, config: TrainConfig, variation: Variation, finished: Path
) -> None:
    """One training of a copy of `detector` from the weights `start`, into a file."""
    fork = deepcopy(detector)
    fork.segmenter.load_state_dict(start)
    fork.segmenter.encoder.freeze(2)
    frames = training_frames(real, config.seed, FORK_FREE)
    depth = estimate_depth(fork.depth_net, frames.image, fork.device)
    fit(fork, frames, depth, config, variation, finished)


def weights_of(finished: Path) -> State:
    return Detector.from_pretrained(finished, "cpu").segmenter.state_dict()
