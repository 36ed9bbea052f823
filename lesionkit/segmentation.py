"""Steps [20–28] of docs/method.md: depth features, attention, weighted image features, segmentation.

Letters: b images, h × w pixels (multiples of 32), c channels; scale i has h/2ⁱ⁺¹ × w/2ⁱ⁺¹ pixels, i = 0 … 4.

    image ──► encoder ──► first image features F_i ──► × w_i ──► second image features ──► decoder ──► logits
    map ────► conv + pool ──► depth features D_i ──► attention layer ──► weights w_i

The weights are 2σ(a), divided by their own mean over the image: each map has mean 1, so the attention can move weight
from one place to another but never switch the features off everywhere; and since the last layer starts at zero, every
weight starts at 1 and guidance can only be learned.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lesionkit.depth import luminance_depth, up_to
from lesionkit.encoders import block, make_encoder
from lesionkit.preprocess import STRIDE, view_mask


@dataclass(frozen=True)
class Guidance:
    """needs: what the map is made of, image, depth or donors; alone: whether it can be used on an image alone, of
    which nothing else is known."""

    needs: str
    alone: bool = True


GUIDANCE = {
    "depth": Guidance("depth"),  # estimated
    "none": Guidance("image"),  # for its size alone
    "learned": Guidance("image"),
    "luminance": Guidance("image"),
    "shuffled": Guidance("donors", alone=False),
    "oracle": Guidance("depth", alone=False),  # exact
}


class GuidanceError(ValueError):
    """A kind of guidance that does not exist, or an input that is missing or of a wrong size; one sentence."""


@dataclass(frozen=True)
class Segmentation:
    """logits b×1×h×w; attention: one b×1×h_i×w_i weight map per scale, fine to coarse, each of mean 1."""

    logits: Float[Tensor, "b 1 h w"]
    attention: tuple[Tensor, ...]

    @property
    def probability(self) -> Float[Tensor, "b 1 h w"]:
        return torch.sigmoid(self.logits.float())


def check_guidance(kind: str) -> Guidance:
    """The kind of this name. Raises GuidanceError."""
    if kind not in GUIDANCE:
        raise GuidanceError(f"guidance {kind!r} does not exist: use one of {', '.join(GUIDANCE)}")
    return GUIDANCE[kind]


def guidance_map(
    kind: str,
    image: Float[Tensor, "b 3 h w"] | None = None,
    depth: Float[Tensor, "b 1 h w"] | None = None,
    donors: Float[Tensor, "b 1 h w"] | None = None,
) -> Float[Tensor, "b 3 h w"]:
    """The map that feeds the attention: the one place where the kinds of GUIDANCE differ. Always three channels (a grey
    map repeated), so that all have the same parameters.

    depth, oracle: the log of `depth` (estimated or exact, as the caller passes); none: ones; learned: the image
    itself, from which the branch learns a map without depth labels; luminance: blurred inverse brightness as a
    depth; shuffled: the log depth of `donors`, other frames than this one (see `draw_donors`). Maps are standardised
    per image: guidance is relative, free of scale. Raises GuidanceError.
    """
    needs = check_guidance(kind).needs
    source = {"image": image, "depth": depth, "donors": donors}[needs]
    if source is None:
        missing = {"image": "an image", "depth": "a depth map"}.get(needs, needs)
        raise GuidanceError(f"guidance {kind!r} needs {missing}: pass it")
    if kind == "none":
        return torch.ones_like(source)
    if kind == "learned":
        return standardise(source)
    if kind == "luminance":
        source = _inside_only(luminance_depth(source), view_mask(source))
    return standardise(torch.log(source.clamp_min(1e-3))).expand(-1, 3, -1, -1)


def standardise(maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Mean 0 and deviation 1 over each image; a flat map becomes zeros."""
    mean = maps.mean(dim=(1, 2, 3), keepdim=True)
    std = maps.std(dim=(1, 2, 3), keepdim=True)
    return (maps - mean) / (std + 1e-3)


def _inside_only(maps: Float[Tensor, "b 1 h w"], view: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
    """The maps with their mean over the view put outside it. The black surround reads as "farthest of all" by its
    brightness; left in, it would use up the map's range and cripple the luminance control."""
    mean = (maps * view).sum((2, 3), keepdim=True) / view.sum((2, 3), keepdim=True).clamp_min(1)
    return torch.where(view > 0.5, maps, mean)


def draw_donors(depth: Float[Tensor, "n 1 h w"], seed: int = 0) -> Float[Tensor, "n 1 h w"]:
    """Another frame's depth for every frame of a pool, never its own: the pool moved on by half its length, and by
    `seed` more. Neighbours of a sorted list are often of one video, so the next frame would be nearly its own.

    No random generator is used: the other arms would otherwise see other augmentation. Raises GuidanceError for a
    pool of one.
    """
    n = len(depth)
    if n < 2:
        raise GuidanceError("shuffled guidance needs at least two frames: pass more, or another's depth as donors")
    return depth.roll(1 + (n // 2 - 1 + seed) % (n - 1), dims=0)


class DepthFeatures(nn.Module):
    """Step [20, 24]: convolution and pooling on the map, one set of features per scale: b×3×h×w → 5 × b×c_i×h_i×w_i."""

    def __init__(self, channels: tuple[int, ...] = (12, 16, 24, 32, 32)):
        super().__init__()
        widths = (3, *channels)
        self.stages = nn.ModuleList(block(a, b) for a, b in pairwise(widths))

    def forward(self, guide: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        features = []
        x = F.avg_pool2d(guide, 2)  # the finest features of the encoder are at half resolution
        for i, stage in enumerate(self.stages):
            x = stage(x if i == 0 else F.max_pool2d(x, 2))
            features.append(x)
        return features


class Attention(nn.Module):
    """Step [21]: depth features b×c×h×w → weights b×1×h×w of mean 1. The 5×5 kernel lets it see differences."""

    def __init__(self, channels: int):
        super().__init__()
        self.layer = nn.Conv2d(channels, 1, 5, padding=2, padding_mode="replicate")
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        # the floor is far below any effect; without it an attention that saturates everywhere would divide 0 by 0
        weights = 2 * torch.sigmoid(self.layer(features).float()).clamp_min(1e-6)
        return weights / weights.mean(dim=(2, 3), keepdim=True)


class Context(nn.Module):
    """What the whole scene says, added to the coarsest features b×c×h×w: their means over 1, 2×2 and 4×4 parts of the
    image (pyramid pooling, Zhao et al., CVPR 2017). A lesion that fills a quarter of the frame cannot be told from its
    inside alone. It starts at zero: nothing added."""

    def __init__(self, channels: int, width: int = 48, parts: tuple[int, ...] = (1, 2, 4)):
        super().__init__()
        self.parts = parts
        self.reduce = nn.ModuleList(nn.Conv2d(channels, width, 1) for _ in parts)
        self.project = nn.Conv2d(width * len(parts), channels, 1)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        pooled = [F.relu(layer(F.adaptive_avg_pool2d(x, n))) for layer, n in zip(self.reduce, self.parts, strict=True)]
        return x + self.project(torch.cat([up_to(means, x) for means in pooled], dim=1))


class Decoder(nn.Module):
    """Step [28]: second image features, coarse to fine, to logits at the input's resolution."""

    def __init__(self, channels: tuple[int, ...], widths: tuple[int, ...] = (24, 32, 48, 64)):
        super().__init__()
        deep = channels[-1]
        self.context = Context(deep)
        stages = []
        for skip, width in zip(channels[-2::-1], widths[::-1], strict=True):
            stages.append(nn.Sequential(block(deep + skip, width), block(width, width)))
            deep = width
        self.stages = nn.ModuleList(stages)
        self.head = nn.Conv2d(deep, 1, 3, padding=1)

    def forward(self, features: list[Tensor]) -> Tensor:
        x = self.context(features[-1])
        for stage, skip in zip(self.stages, features[-2::-1], strict=True):
            x = stage(torch.cat([up_to(x, skip), skip], dim=1))
        return F.interpolate(self.head(x), scale_factor=2, mode="bilinear", align_corners=False)


class DepthGuidedSegmenter(nn.Module):
    """image b×3×h×w in [0, 1] and a depth map b×1×h×w → Segmentation.

    guidance: one of GUIDANCE. encoder: "efficientnet-lite0" or "small" (see `encoders`). pretrained: start the
    encoder from ImageNet. For guidance "shuffled" pass the donors' depth as `donors`, or a batch of two and more.
    """

    def __init__(self, guidance: str = "depth", encoder: str = "efficientnet-lite0", pretrained: bool = True):
        super().__init__()
        check_guidance(guidance)
        self.guidance, self.encoder_name = guidance, encoder
        self.encoder = make_encoder(encoder, pretrained)
        self.depth_features = DepthFeatures()
        self.attention = nn.ModuleList(Attention(stage[0].out_channels) for stage in self.depth_features.stages)
        self.decoder = Decoder(self.encoder.channels)

    def forward(
        self, image: Float[Tensor, "b 3 h w"], depth: Tensor | None = None, donors: Tensor | None = None
    ) -> Segmentation:
        first = self.encode(image)
        weights = self.attend(depth, image, donors)
        second = self.weigh(first, weights)
        return Segmentation(self.decode(second), tuple(weights))

    def encode(self, image: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """Step [26]: the first image features b×c_i×h_i×w_i, fine to coarse."""
        h, w = image.shape[2:]
        if h % STRIDE or w % STRIDE:
            raise GuidanceError(f"the image is {w}×{h}: width and height must be multiples of {STRIDE}")
        return self.encoder(image)

    def attend(
        self, depth: Tensor | None = None, image: Tensor | None = None, donors: Tensor | None = None
    ) -> list[Tensor]:
        """Steps [20–24]: a weight map b×1×h_i×w_i per scale. Guidance by depth needs a depth map b×1×h×w and nothing
        else, see GUIDANCE for the other kinds. Raises GuidanceError for what is missing."""
        if self.guidance == "shuffled" and donors is None and depth is not None:
            donors = draw_donors(depth)
        features = self.depth_features(guidance_map(self.guidance, image, depth, donors))
        return [layer(f) for layer, f in zip(self.attention, features, strict=True)]

    def weigh(self, first: Sequence[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
        """Step [27]: the second image features."""
        return [features * weight.to(features.dtype) for features, weight in zip(first, weights, strict=True)]

    def decode(self, second: list[Tensor]) -> Float[Tensor, "b 1 h w"]:
        """Step [28]: logits at the image's resolution."""
        return self.decoder(second)
