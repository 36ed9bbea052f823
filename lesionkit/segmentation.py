"""Steps [20–28] of docs/method.md: depth features, attention, weighted image features, segmentation.

Letters: b images, h × w pixels (multiples of 32), c channels; scale i has h/2ⁱ⁺¹ × w/2ⁱ⁺¹ pixels, i = 0 … 4.

    image ──► encoder ──► first image features F_i ──► × w_i ──► second image features ──► decoder ──► logits
    depth ──► depth change ──► encoder ──► depth features D_i ──► attention layer ──► weights w_i

There is a weight for every channel and place, softplus(3a) / log 2: down to nothing, up without a bound. The attention
layer starts at zero and so all weights at 1: guidance is learned.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lesionkit.depth import RELIEF_SCALES, gradient_magnitude, luminance_depth, relief, squash, up_to
from lesionkit.devices import area_mean
from lesionkit.encoders import EfficientNetLite, block, make_encoder
from lesionkit.preprocess import STRIDE, view_mask

Given = Tensor | None  # an input that only some kinds of guidance need
STEEPNESS = 3.0  # of the weights in what the attention layer gives: short trainings have to move them
CHANGE = ("log depth", "steepness", *(f"relief 1/{round(1 / s)}" for s in RELIEF_SCALES))  # what depth_change returns


class Guidance(NamedTuple):
    needs: str  # what the maps are made of: image, depth or donors
    alone: bool = True  # it can be used on an image of which nothing else is known


GUIDANCE = {  # its kinds; what each makes of its input stands in `guidance_map`
    "depth": Guidance("depth"),  # the change of the estimated depth
    "plain": Guidance("image"),  # no branch: every weight is 1
    "learned": Guidance("image"),  # the image itself, from which the branch learns a map without depth labels
    "luminance": Guidance("image"),  # blurred inverse brightness, taken for a depth
    "shuffled": Guidance("donors", alone=False),  # the depth of other frames, see `draw_donors`
    "oracle": Guidance("depth", alone=False),  # the exact depth
}


class GuidanceError(ValueError):
    """A kind of guidance that does not exist, or an input that is missing or of a wrong size; one sentence."""


@dataclass(frozen=True)
class Segmentation:
    """logits b×1×h×w; attention: one b×1×h_i×w_i map per scale, fine to coarse, the weights' mean over channels."""

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


def check_depth(depth: Float[Tensor, "b 1 h w"]) -> None:
    """Raises GuidanceError for a depth that is not positive and finite."""
    if torch.compiler.is_compiling():  # an exported graph cannot look at values
        return
    if not bool(((depth > 0) & (depth < torch.inf)).all()):  # false for NaN too
        raise GuidanceError("the depth map has zeros, negative or infinite values or NaN: give positive distances")


def _size(maps: Tensor) -> str:
    return f"{maps.shape[3]}×{maps.shape[2]}"


def depth_change(depth: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 6 h w"]:
    """Step [21]: how strongly depth changes, as six maps, named by CHANGE.

    Log depth is standardised over each image. Steepness, the gradient of the log depth per 1/128 of the width, and
    `depth.relief` at four scales are squashed into [−1, 1] by tanh(x / 0.1). Free of the depth's unit, in float32
    whatever the precision around. Raises GuidanceError for depths that are not positive and finite.
    """
    check_depth(depth)
    with torch.autocast(depth.device.type, enabled=False):
        depth = depth.float()
        steepness = gradient_magnitude(depth) * depth.shape[-1] / 128
        change = torch.cat([steepness, *(relief(depth, scale) for scale in RELIEF_SCALES)], dim=1)
        return torch.cat([standardise(torch.log(depth)), squash(change)], dim=1)


def guidance_map(
    kind: str,
    image: Float[Tensor, "b 3 h w"] | None = None,
    depth: Float[Tensor, "b 1 y x"] | None = None,
    donors: Float[Tensor, "b 1 y x"] | None = None,
) -> Float[Tensor, "b 6 _ _"]:
    """The six maps that feed the attention: the one place where the kinds of GUIDANCE differ. All but "plain" have the
    same number of maps, and so the same parameters. `depth` is estimated or exact, as the caller passes. Raises
    GuidanceError for what is missing, for maps of another size and for depths that are not positive and finite."""
    needs = check_guidance(kind).needs
    source = {"image": image, "depth": depth, "donors": donors}[needs]
    if source is None:
        raise GuidanceError(f"guidance {kind!r} needs `{needs}`: pass it")
    if kind == "plain":
        raise GuidanceError("guidance 'plain' has no branch, so nothing feeds it: name another one")
    if image is not None and source.shape[2:] != image.shape[2:]:
        raise GuidanceError(f"the depth map is {_size(source)} and the image {_size(image)}: give one depth per pixel")
    if kind == "learned":
        return standardise(source)[:, [0, 0, 1, 1, 2, 2]]
    if kind == "luminance":
        view, source = view_mask(source), luminance_depth(source)
        # brightness calls the black surround the farthest place of all, which would use up the map's range
        mean = (source * view).sum((2, 3), keepdim=True) / view.sum((2, 3), keepdim=True).clamp_min(1)
        source = torch.where(view > 0.5, source, mean)
    return depth_change(source)


def mean_weights(weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The weights b×c_i×h_i×w_i of each scale as one map b×1×h_i×w_i, their mean over the channels."""
    return tuple(one.float().mean(dim=1, keepdim=True) for one in weights)


def strongest_channels(weights: Sequence[Tensor]) -> list[int]:
    """Of each scale the channel whose weight varies most over the first image: what the mean over channels hides."""
    return [int(one[0].float().std(dim=(1, 2)).argmax()) for one in weights]


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


def picture_mix() -> nn.Conv2d:
    """b×6×h×w in about [−1, 1] → a picture b×3×h×w: of steepness and relief at 1/32 and 1/16 to begin with."""
    mix = nn.Conv2d(len(CHANGE), 3, 1)
    nn.init.constant_(mix.bias, 0.5)
    nn.init.zeros_(mix.weight)
    for channel, name in enumerate(("steepness", "relief 1/32", "relief 1/16")):
        nn.init.constant_(mix.weight[channel, CHANGE.index(name)], 0.25)
    return mix


class DepthFeatures(nn.Module):
    """Step [20, 24]: convolution and pooling on the maps, one set of features per scale: b×6×h×w → 5 × b×c_i×h_i×w_i.
    A learned mix makes a picture of the maps, for an encoder that knows pictures."""

    def __init__(self, pretrained: bool = True, blocks: int = 12):
        super().__init__()
        self.mix = picture_mix()
        self.encoder = EfficientNetLite("efficientnet-lite0", pretrained, blocks)
        self.channels = self.encoder.channels

    def forward(self, change: Float[Tensor, "b 6 h w"]) -> list[Tensor]:
        return self.encoder(self.mix(change))


class Attention(nn.Module):
    """Step [21]: depth features b×d×h×w → weights b×c×h×w, at least 0, one for each of the image's channels. Near zero
    softplus is as steep as exp; for large a it grows in proportion, and 2σ, which ends at 2, let less through
    (docs/weights_history.md)."""

    def __init__(self, inputs: int, channels: int):
        super().__init__()
        self.layer = nn.Conv2d(inputs, channels, 1)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, features: Float[Tensor, "b d h w"]) -> Float[Tensor, "b c h w"]:
        return F.softplus(STEEPNESS * self.layer(features)) / math.log(2)


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
        pooled = [F.relu(layer(area_mean(x, (n, n)))) for layer, n in zip(self.reduce, self.parts, strict=True)]
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
    `encoders.ENCODERS`; pretrained: start the encoders from ImageNet. Under guidance "shuffled" pass the donors' depth
    as `donors`, or a batch of two and more."""

    def __init__(self, guidance: str = "depth", encoder: str = "efficientnet-lite0", pretrained: bool = True):
        super().__init__()
        check_guidance(guidance)
        self.guidance, self.encoder_name = guidance, encoder
        self.encoder = make_encoder(encoder, pretrained)
        self.decoder = Decoder(self.encoder.channels)
        if guidance != "plain":  # last, so that the others' first weights are plain's
            self.depth_features = DepthFeatures(pretrained)
            pairs = zip(self.depth_features.channels, self.encoder.channels, strict=True)
            self.attention = nn.ModuleList(Attention(inputs, channels) for inputs, channels in pairs)

    def forward(self, image: Float[Tensor, "b 3 h w"], depth: Given = None, donors: Given = None) -> Segmentation:
        first = self.encode(image)
        weights = self.attend(depth, image, donors)
        second = self.weigh(first, weights)
        return Segmentation(self.decode(second), mean_weights(weights))

    def encode(self, image: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """Step [26]: the first image features b×c_i×h_i×w_i, fine to coarse."""
        h, w = image.shape[2:]
        if h % STRIDE or w % STRIDE:
            raise GuidanceError(f"the image is {w}×{h}: width and height must be multiples of {STRIDE}")
        return self.encoder(image)

    def attend(self, depth: Given = None, image: Given = None, donors: Given = None) -> list[Tensor]:
        """Steps [20–24]: weights b×c_i×h_i×w_i per scale, which start at 1; b×1×h_i×w_i under "plain". Of the three
        only what GUIDANCE names is needed, depth b×1×h×w for "depth"; raises GuidanceError without it."""
        if self.guidance == "plain" and image is not None:
            b, _, h, w = image.shape
            return [image.new_ones(b, 1, h >> i, w >> i) for i in range(1, len(self.encoder.channels) + 1)]
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
