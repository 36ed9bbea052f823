"""Steps [20–28] of docs/method.md: depth features, attention, weighted image features, segmentation.

Letters: b images, h × w pixels (multiples of 32), c channels; scale i has h/2ⁱ⁺¹ × w/2ⁱ⁺¹ pixels, i = 0 … 4.

    image ──► encoder ──► first image features F_i ──► × w_i ──► second image features ──► decoder ──► logits
    map ────► conv + pool ──► depth features D_i ──► attention layer ──► weights w_i

The weights are 2σ(a), divided by their own mean over the image: the attention can move weight from one place to another
but never switch the features off everywhere. Its layer starts at zero, so all weights start at 1: guidance is learned.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lesionkit.depth import luminance_depth, up_to
from lesionkit.encoders import block, make_encoder
from lesionkit.preprocess import STRIDE, view_mask

Given = Tensor | None  # an input that only some kinds of guidance need


class Guidance(NamedTuple):
    needs: str  # what the map is made of: image, depth or donors
    alone: bool = True  # it can be used on an image of which nothing else is known


GUIDANCE = {  # its kinds; what each makes of its input stands in `guidance_map`
    "depth": Guidance("depth"),  # the log of the estimated depth
    "none": Guidance("image"),  # ones
    "learned": Guidance("image"),  # the image itself, from which the branch learns a map without depth labels
    "luminance": Guidance("image"),  # blurred inverse brightness, taken for a depth
    "shuffled": Guidance("donors", alone=False),  # the log depth of other frames, see `draw_donors`
    "oracle": Guidance("depth", alone=False),  # the log of the exact depth
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
    map repeated), so that all have the same parameters; standardised per image, since guidance is relative, free of
    scale. `depth` is estimated or exact, as the caller passes. Raises GuidanceError for what is missing."""
    needs = check_guidance(kind).needs
    source = {"image": image, "depth": depth, "donors": donors}[needs]
    if source is None:
        raise GuidanceError(f"guidance {kind!r} needs `{needs}`: pass it")
    if kind == "none":
        return torch.ones_like(source)
    if kind == "learned":
        return standardise(source)
    if kind == "luminance":
        view, source = view_mask(source), luminance_depth(source)
        # brightness calls the black surround the farthest place of all, which would use up the map's range
        mean = (source * view).sum((2, 3), keepdim=True) / view.sum((2, 3), keepdim=True).clamp_min(1)
        source = torch.where(view > 0.5, source, mean)
    return standardise(torch.log(source.clamp_min(1e-3))).expand(-1, 3, -1, -1)


def standardise(maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Mean 0 and deviation 1 over each image; a flat map becomes zeros."""
    whole = {"dim": (1, 2, 3), "keepdim": True}
    return (maps - maps.mean(**whole)) / (maps.std(**whole) + 1e-3)


def draw_donors(depth: Float[Tensor, "n 1 h w"], seed: int = 0) -> Float[Tensor, "n 1 h w"]:
    """Another frame's depth for every frame of a pool, never its own: the pool moved on by half its length, and by
    `seed` more, as neighbours of a sorted list are often of one video. Without a random generator, or the other arms
    would see other augmentation. Raises GuidanceError for a pool of one."""
    n = len(depth)
    if n < 2:
        raise GuidanceError("shuffled guidance needs at least two frames: pass more, or another's depth as donors")
    return depth.roll(1 + (n // 2 - 1 + seed) % (n - 1), dims=0)


class DepthFeatures(nn.Module):
    """Step [20, 24]: convolution and pooling on the map, one set of features per scale: b×3×h×w → 5 × b×c_i×h_i×w_i."""

    def __init__(self, channels: tuple[int, ...] = (12, 16, 24, 32, 32)):
        super().__init__()
        self.stages = nn.ModuleList(block(a, b) for a, b in pairwise((3, *channels)))

    def forward(self, guide: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        features = [self.stages[0](F.avg_pool2d(guide, 2))]  # the encoder's finest are at half resolution
        for stage in self.stages[1:]:
            features.append(stage(F.max_pool2d(features[-1], 2)))
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
        *skips, deep = channels
        self.context, self.stages = Context(deep), nn.ModuleList()
        for skip, width in zip(reversed(skips), reversed(widths), strict=True):
            self.stages.append(nn.Sequential(block(deep + skip, width), block(width, width)))
            deep = width
        self.head = nn.Conv2d(deep, 1, 3, padding=1)

    def forward(self, features: list[Tensor]) -> Tensor:
        x = self.context(features[-1])
        for stage, skip in zip(self.stages, features[-2::-1], strict=True):
            x = stage(torch.cat([up_to(x, skip), skip], dim=1))
        return F.interpolate(self.head(x), scale_factor=2, mode="bilinear", align_corners=False)


class DepthGuidedSegmenter(nn.Module):
    """image b×3×h×w in [0, 1] and a depth map b×1×h×w → Segmentation. guidance: one of GUIDANCE; encoder: one of
    `encoders.ENCODERS`; pretrained: start it from ImageNet. Under guidance "shuffled" pass the donors' depth as
    `donors`, or a batch of two and more."""

    def __init__(self, guidance: str = "depth", encoder: str = "efficientnet-lite0", pretrained: bool = True):
        super().__init__()
        check_guidance(guidance)
        self.guidance, self.encoder_name = guidance, encoder
        self.encoder = make_encoder(encoder, pretrained)
        self.depth_features = DepthFeatures()
        self.attention = nn.ModuleList(Attention(stage[0].out_channels) for stage in self.depth_features.stages)
        self.decoder = Decoder(self.encoder.channels)

    def forward(self, image: Float[Tensor, "b 3 h w"], depth: Given = None, donors: Given = None) -> Segmentation:
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

    def attend(self, depth: Given = None, image: Given = None, donors: Given = None) -> list[Tensor]:
        """Steps [20–24]: a weight map b×1×h_i×w_i per scale. Of the three only what GUIDANCE names is needed, depth
        b×1×h×w for "depth"; raises GuidanceError without it."""
        if GUIDANCE[self.guidance].needs == "donors" and donors is None and depth is not None:
            donors = draw_donors(depth)
        features = self.depth_features(guidance_map(self.guidance, image, depth, donors))
        return [layer(f) for layer, f in zip(self.attention, features, strict=True)]

    def weigh(self, first: Sequence[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
        """Step [27]: the second image features."""
        return [features * weight.to(features.dtype) for features, weight in zip(first, weights, strict=True)]

    def decode(self, second: list[Tensor]) -> Float[Tensor, "b 1 h w"]:
        """Step [28]: logits at the image's resolution."""
        return self.decoder(second)
