"""The kit's first reading of steps [20–24], which older weight files hold: raw log depth through five convolutions, one
weight per place. It was measured to do nothing (docs/weights_history.md). Kept to read those files; nothing new is
trained with it.

Letters: b images, h × w pixels, c channels; five scales, fine to coarse.
"""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lesionkit.encoders import block


class FirstDepthFeatures(nn.Module):
    """`segmentation.guidance_map` b×6×h×w → 5 × b×c_i×h_i×w_i. Of the maps it takes the log depth; of an image, which
    fills all six, red, green and blue."""

    def __init__(self, guidance: str, channels: tuple[int, ...] = (12, 16, 24, 32, 32)):
        super().__init__()
        self.picked = [0, 2, 4] if guidance == "learned" else [0, 0, 0]
        self.channels = channels
        self.stages = nn.ModuleList(block(a, b) for a, b in pairwise((3, *channels)))

    def forward(self, maps: Float[Tensor, "b 6 h w"]) -> list[Tensor]:
        features = [self.stages[0](F.avg_pool2d(maps[:, self.picked], 2))]
        for stage in self.stages[1:]:
            features.append(stage(F.max_pool2d(features[-1], 2)))
        return features


class FirstAttention(nn.Module):
    """Depth features b×c×h×w → weights b×1×h×w, divided by their mean over the image."""

    def __init__(self, channels: int):
        super().__init__()
        self.layer = nn.Conv2d(channels, 1, 5, padding=2, padding_mode="replicate")

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        weights = 2 * torch.sigmoid(self.layer(features).float()).clamp_min(1e-6)
        return weights / weights.mean(dim=(2, 3), keepdim=True)


def give_first_branch(segmenter: nn.Module) -> None:
    """Puts the first branch, untrained, in place of the segmenter's own."""
    segmenter.depth_features = FirstDepthFeatures(segmenter.guidance)
    segmenter.attention = nn.ModuleList(FirstAttention(c) for c in segmenter.depth_features.channels)
