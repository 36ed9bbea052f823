"""Steps [30–33] of docs/method.md for the two networks: what each learns from, and what its loss compares.

Letters: n samples, b a batch of them. The loop is `fitting.fit`, to be had from here too, as is its configuration.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lesionkit import losses
from lesionkit.augment import Augment, AugmentConfig
from lesionkit.depth import DepthMaps, DepthNet
from lesionkit.fitting import Batch, History, Objective, TrainConfig, fit
from lesionkit.frames import Frames
from lesionkit.preprocess import dilate
from lesionkit.segmentation import GUIDANCE, DepthGuidedSegmenter, draw_donors

DEPTH_NAMES = ("image", "mask", "depth", "view")  # what depth is learned from; relief counts most near lesions
RELIEF, NEAR_LESIONS = 0.5, 5.0  # weights: of the loss on relief, and in it of a pixel `around` a lesion
# Without zoom: a zoomed picture is one of another lens, whose depth in mm would be wrong. Wilder colours than for
# lesions, whose colour says something: depth must not hang on it.
DEPTH_AUGMENT = AugmentConfig(scale=(1.0, 1.0), contrast=0.3, saturation=0.5, hue=0.06)


def ablation_config(epochs: int, batch_size: int, seed: int) -> TrainConfig:
    """Of the many short trainings of an ablation: the moving average forgets the untrained weights sooner."""
    return TrainConfig(epochs, batch_size, ema_decay=0.95, seed=seed)


def depth_objective(model: DepthNet, batch: Batch) -> Tensor:
    """Deep supervision: first, third and target map against the exact depth, where there is tissue to see; and the
    relief of the two that have seen the local detail."""
    maps: DepthMaps = model(batch["image"])
    valid = batch["view"] > 0.5
    counts = batch["view"] * (1 + (NEAR_LESIONS - 1) * around(batch["mask"])) if "mask" in batch else batch["view"]
    total = RELIEF * losses.relief_matching(maps.target, batch["depth"], counts)
    total = total + 0.3 * RELIEF * losses.relief_matching(maps.third, batch["depth"], counts)
    for weight, prediction in ((0.3, maps.first), (0.3, maps.third), (1.0, maps.target)):
        similar = losses.scale_invariant_log(prediction, batch["depth"], valid)
        edges = losses.gradient_matching(prediction, batch["depth"], valid)
        total = total + weight * (similar + 0.5 * edges)
    return total


def around(mask: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
    """Lesions with their surroundings, 1/16 of the width on all sides."""
    return dilate(mask, 2 * (mask.shape[-1] // 16) + 1)


def joint_objective(loss: losses.WeightedLoss) -> Objective:
    """Reading B of the method: the depth network (`model["depth"]`) and the segmenter (`model["segmenter"]`) learn
    together, the first through both losses. Needs exact depth, so rendered scenes."""

    def objective(model: nn.ModuleDict, batch: Batch) -> Tensor:
        estimated = model["depth"](batch["image"]).target
        logits = model["segmenter"](batch["image"], estimated).logits
        return loss(logits, batch["mask"], estimated, batch["depth"], batch["view"] > 0.5)

    return objective


def augmented(stages: Callable[..., Sequence[Tensor]]) -> Callable[[Batch], Batch]:
    """`augment.Augment` on a batch: image and whatever maps it has (mask, depth, view) together."""

    def augment(batch: Batch) -> Batch:
        names = [name for name in ("image", "mask", "depth", "view") if name in batch]
        batch = batch | dict(zip(names, stages(*(batch[name] for name in names)), strict=True))
        if "depth" in batch:  # 0 is none: the corners that a warp opened get the median of the rest, for the logarithms
            depth = batch["depth"]
            known = depth.masked_fill(depth <= 0, torch.nan)
            middle = known.flatten(1).nanmedian(dim=1).values.nan_to_num(1.0).view(-1, 1, 1, 1)
            batch["depth"] = torch.where(depth > 0, depth, middle)
        return batch

    return augment


def train_depth(
    frames: Frames | Batch | Callable[[int], Batch],
    config: TrainConfig,
    device: torch.device | str = "cpu",
    net: DepthNet | None = None,
    stages: nn.Module | None = None,
    **how,
) -> tuple[DepthNet, History]:
    """A depth network on rendered scenes: frames, or the tensors named DEPTH_NAMES, or a function that gives these for
    an epoch. `net` trains one further, in place. stages: what varies image, depth and view together, else
    `Augment(DEPTH_AUGMENT)`. `how` goes on to `fit`."""
    torch.manual_seed(config.seed)
    net = net or DepthNet()
    data = {name: getattr(frames, name) for name in DEPTH_NAMES} if isinstance(frames, Frames) else frames
    vary, label = augmented(stages or Augment(DEPTH_AUGMENT)), f"depth, {stages}" if stages else "depth"
    return net, fit(net, data, depth_objective, config, device, vary, label=label, **how)


def train_segmenter(
    frames: Frames,
    depth: Float[Tensor, "n 1 h w"],
    loss: Callable[[Tensor, Tensor], Tensor],
    config: TrainConfig,
    device: torch.device | str = "cpu",
    guidance: str = "depth",
    segmenter: DepthGuidedSegmenter | None = None,
    stages: nn.Module | None = None,
    **how,
) -> tuple[DepthGuidedSegmenter, History]:
    """Reading A of the method: a loss on the segmentation alone, guided by `depth` (one map per frame). `segmenter`
    trains one further, in place. stages: what varies image, mask and depth together, else `Augment()`.

    Whatever the guidance and the loss, the same seed gives the same initial weights, order of samples and augmentation:
    arms differ in what is asked about, and in nothing else. `how` goes on to `fit`.
    """
    torch.manual_seed(config.seed)
    segmenter = segmenter or DepthGuidedSegmenter(guidance)
    data = {"image": frames.image, "mask": frames.mask, "depth": depth}
    augment, label = augmented(stages or Augment()), f"{losses.label(loss)}, guidance {guidance}, {stages}"

    def objective(model: DepthGuidedSegmenter, batch: Batch) -> Tensor:
        return loss(model(batch["image"], batch["depth"]).logits, batch["mask"])

    return segmenter, fit(segmenter, data, objective, config, device, augment, label=label, **how)


@torch.inference_mode()
def estimate_depth(
    model: DepthNet, image: Float[Tensor, "n 3 h w"], device: torch.device | str = "cpu", batch_size: int = 16
) -> Float[Tensor, "n 1 h w"]:
    """The target depth image of many images, on the CPU."""
    model = model.to(device).eval()
    return torch.cat([model(part.to(device)).target.float().cpu() for part in image.split(batch_size)])


@torch.inference_mode()
def segment(
    model: DepthGuidedSegmenter,
    image: Float[Tensor, "n 3 h w"],
    depth: Float[Tensor, "n 1 h w"],
    device: torch.device | str = "cpu",
    batch_size: int = 16,
    seed: int = 0,
) -> Float[Tensor, "n 1 h w"]:
    """Probabilities of many images, on the CPU. Under guidance "shuffled" every image gets the depth of another of
    these images, chosen by `seed`; raises GuidanceError for a single one."""
    model = model.to(device).eval()
    donors = draw_donors(depth, seed) if GUIDANCE[model.guidance].needs == "donors" else depth
    batches = zip(*(maps.split(batch_size) for maps in (image, depth, donors)), strict=True)
    return torch.cat([model(*(part.to(device) for part in batch)).probability.cpu() for batch in batches])
