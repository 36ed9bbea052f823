"""Steps [15–18] of docs/method.md: depth from one image, global first, then local.

Letters: b images, h × w pixels, both multiples of 32. Depths are positive distances along the optical axis, near is
small; learned in millimetres on rendered scenes, while on real images only their ratios mean something.

The scheme is the coarse-to-fine idea of Eigen, Puhrsch and Fergus (NeurIPS 2014): a global network sees the whole
scene at low resolution, a shallow local one sees full resolution, their sum is refined locally. Sums are taken of
logarithms, so that a local correction is a *factor*: +0.1 means ten per cent further, near or far.
"""

import math
from dataclasses import dataclass, fields

import kornia
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lesionkit.encoders import EfficientNetLite, block
from lesionkit.preprocess import STRIDE

PARTS = ("global", "local", "refinement")
TYPICAL_MM = 30.0  # where the untrained network starts: the middle of a colonoscope's working range
LOG_SPAN = 4.0  # depths stay within TYPICAL_MM · e^±4, so that half precision cannot overflow
LUMINANCE_WEIGHTS = (0.2126, 0.7152, 0.0722)  # of linear RGB, Rec. 709
RELIEF_SCALES = (1 / 64, 1 / 32, 1 / 16, 1 / 8)  # how wide the surroundings are, of the width
DARKEST = 1e-3  # of white: below a camera's noise; no depth is more than about 30 times the nearest


class DepthError(ValueError):
    """An image that the depth network cannot take; one sentence."""


@dataclass(frozen=True)
class DepthMaps:
    """The four depth images of the method. All but `second` are positive depths."""

    first: Float[Tensor, "b 1 h w"]  # the global map
    second: Float[Tensor, "b 1 h w"]  # the *signed* logarithmic correction seen locally
    third: Float[Tensor, "b 1 h w"]  # both superposed: first · e^second, but for the bound of `to_depth`
    target: Float[Tensor, "b 1 h w"]  # third after local refinement


@dataclass(frozen=True)
class DepthConfig:
    """Size of the networks: 1.8 million parameters, hardly any of them at full resolution."""

    blocks: int = 13  # of the 16 of EfficientNet-Lite0; half of its parameters sit in the last three
    decoder_channels: tuple[int, ...] = (96, 64, 40, 24)  # from 1/32 of what the global network sees up to 1/2
    local_channels: int = 12  # full resolution is dear: 12 channels cost as much as 48 at a quarter
    parts: tuple[str, ...] = PARTS  # an ablation leaves some out; what is left out adds nothing to the sum
    sees_px: int = 0  # smaller images are enlarged to this edge for the network: relief needs pixels


def check_size(image: Float[Tensor, "b 3 h w"]) -> tuple[int, int]:
    """Height and width, which a depth estimator takes in multiples of 32, at least 64; else raises DepthError."""
    h, w = image.shape[2:]
    if h % STRIDE or w % STRIDE or min(h, w) < 2 * STRIDE:
        raise DepthError(f"the image is {w}×{h}, its sides must be multiples of {STRIDE}, at least {2 * STRIDE}")
    return h, w


def up_to(features: Tensor, like: Tensor) -> Tensor:
    """Resized to the height and width of `like`."""
    return F.interpolate(features, size=like.shape[2:], mode="bilinear", align_corners=False)


class GlobalDepth(nn.Module):
    """b×3×h×w in [0, 1] → log depth b×1×(h/4)×(w/4). It sees the scene at half resolution: an encoder, the scene's mean
    feature added at its bottom (the receptive field is the whole image), and a light decoder."""

    def __init__(self, config: DepthConfig, pretrained: bool):
        super().__init__()
        self.encoder = EfficientNetLite("efficientnet-lite0", pretrained, config.blocks)
        *shallow, deep = self.encoder.channels
        self.whole = nn.Linear(deep, deep)
        inputs = (deep, *config.decoder_channels[:-1])
        trios = zip(inputs, reversed(shallow), config.decoder_channels, strict=True)
        self.up = nn.ModuleList(block(below + skip, outputs) for below, skip, outputs in trios)
        self.head = nn.Conv2d(config.decoder_channels[-1], 1, 3, padding=1)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h4 w4"]:
        *skips, x = self.encoder(F.avg_pool2d(image, 2))
        x = x + torch.relu(self.whole(x.mean(dim=(2, 3))))[:, :, None, None]
        for stage in self.up:
            skip = skips.pop()
            x = stage(torch.cat([up_to(x, skip), skip], dim=1))
        return self.head(x)


class LocalDepth(nn.Module):
    """b×c×h×w → signed log correction b×1×h×w: three convolutions at full resolution, no pooling."""

    def __init__(self, inputs: int, channels: int):
        super().__init__()
        self.layers = nn.Sequential(block(inputs, channels), block(channels, channels))
        self.head = nn.Conv2d(channels, 1, 3, padding=1)
        nn.init.zeros_(self.head.weight)  # begins as "no correction", so the global map is learned first
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        return self.head(self.layers(x))


class DepthNet(nn.Module):
    """image b×3×h×w in [0, 1] → DepthMaps. `pretrained`: begin from ImageNet weights.

    Raises DepthError when h or w is no multiple of 32 or below 64, and while training on one image below 128 pixels:
    at the coarsest scale a single value is left, of which no batch statistics can be taken.
    """

    def __init__(self, config: DepthConfig | None = None, pretrained: bool = True):
        super().__init__()
        config = config or DepthConfig()
        if not config.parts or not set(config.parts) <= set(PARTS):
            raise DepthError(f"parts are {config.parts}: name at least one of {', '.join(PARTS)}")
        width, self.sees_px = config.local_channels, config.sees_px
        self.global_net = GlobalDepth(config, pretrained) if "global" in config.parts else None
        self.local_net = LocalDepth(3, width) if "local" in config.parts else None
        self.refine_net = LocalDepth(4, width) if "refinement" in config.parts else None

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> DepthMaps:
        h, w = check_size(image)
        larger = self.sees_px / min(h, w)
        if larger <= 1:
            return self._maps(image)
        size = [STRIDE * math.ceil(n * larger / STRIDE) for n in (h, w)]
        maps = self._maps(F.interpolate(image, size=size, mode="bilinear", align_corners=False))
        return DepthMaps(*(up_to(getattr(maps, field.name), image) for field in fields(maps)))

    def _maps(self, image: Float[Tensor, "b 3 h w"]) -> DepthMaps:
        h, w = image.shape[2:]
        if self.training and len(image) == 1 and max(h, w) < 4 * STRIDE:
            raise DepthError(f"cannot train on one image of {w}×{h}: give at least two, or {4 * STRIDE} pixels")
        centred, nothing = image * 2 - 1, torch.zeros_like(image[:, :1])
        first = up_to(self.global_net(image), image) if self.global_net else nothing
        second = self.local_net(centred) if self.local_net else nothing
        third = superimpose(first, second)
        target = third + self.refine_net(torch.cat([third, centred], dim=1)) if self.refine_net else third
        return DepthMaps(to_depth(first), second, to_depth(third), to_depth(target))


def superimpose(first: Tensor, second: Tensor) -> Tensor:
    """Step [17]: the global and the preliminary local map, added as logarithms."""
    return first + second


def to_depth(log_depth: Tensor) -> Tensor:
    """From a network's output (0 is TYPICAL_MM) to a positive depth; computed in float32."""
    return TYPICAL_MM * torch.exp(LOG_SPAN * torch.tanh(log_depth.float() / LOG_SPAN))


def gradient_magnitude(depth: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
    """The length of the log depth's gradient, per pixel (Sobel)."""
    gradient = kornia.filters.spatial_gradient(torch.log(depth.clamp_min(1e-3)), mode="sobel")
    return gradient.square().sum(dim=2).clamp_min(1e-12).sqrt()  # of zero it would have no gradient


def relief(depth: Float[Tensor, "b 1 h w"], scale: float) -> Float[Tensor, "b 1 h w"]:
    """How far the tissue stands out of its surroundings, as a share of its distance: q / G(q) − 1, q = 1/d, G the
    `local_mean`. In a pinhole view q is affine in the pixel coordinates for any plane, so this is zero on a wall
    however oblique, positive on a bump, negative in a hollow. scale: how wide the surroundings are, of the width."""
    q = 1 / depth
    # the mean's tilted weights could make it negative at the frame's border beside a step: as far as anything there
    return q / torch.maximum(local_mean(q, scale), q.amin(dim=(2, 3), keepdim=True)) - 1


def squash(change: Tensor) -> Tensor:
    """Into [−1, 1], a tenth to 0.76: lesions stand out by some hundredths, folds by any amount."""
    return torch.tanh(10 * change)


def local_mean(maps: Float[Tensor, "b 1 h w"], scale: float) -> Float[Tensor, "b 1 h w"]:
    """Gaussian means of standard deviation `scale` × the width. What lies beyond the frame has no part in them, and an
    affine map is its own mean, up to the border."""
    down, across = (_mean_weights(n, scale * maps.shape[-1], maps) for n in maps.shape[2:])
    with torch.autocast(maps.device.type, enabled=False):  # relief is a small difference of two large numbers
        return down @ maps @ across.T


def _mean_weights(n: int, sigma_px: float, like: Tensor) -> Float[Tensor, "n n"]:
    """Row i: the weights of n pixels in the mean at pixel i. A Gaussian, tilted where the frame cuts it off so that its
    centre stays at i (local linear regression)."""
    at = torch.arange(n, device=like.device, dtype=like.dtype)
    away = at - at[:, None]
    bell = torch.exp(-0.5 * (away / sigma_px) ** 2)
    first, second = (bell * away).sum(1, keepdim=True), (bell * away**2).sum(1, keepdim=True)
    tilted = bell * (second - first * away)
    return tilted / tilted.sum(1, keepdim=True)


def luminance_depth(image: Float[Tensor, "b 3 h w"], blur: float = 0.01) -> Float[Tensor, "b 1 h w"]:
    """Depth from brightness alone, without a unit: 1 / √(linear luminance), since light at the camera falls off with
    1/d². The strongest of the trivial estimates, which the network has to beat. sRGB in [0, 1] is made linear first.
    The Gaussian blur, of standard deviation `blur` × the shorter side, takes away vessels and part of the highlights;
    0 leaves it out."""
    weights = image.new_tensor(LUMINANCE_WEIGHTS).view(1, 3, 1, 1)
    luminance = (kornia.color.rgb_to_linear_rgb(image) * weights).sum(1, keepdim=True)  # b 3 h w -> b 1 h w
    sigma_px = blur * min(image.shape[-2:])
    if sigma_px > 0:
        size = 2 * math.ceil(3 * sigma_px) + 1
        luminance = kornia.filters.gaussian_blur2d(luminance, (size, size), (sigma_px, sigma_px))
    return luminance.clamp(min=DARKEST).rsqrt()


def radial_depth(image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h w"]:
    """A tube seen along its axis: 2 in the image centre (far), falling linearly to 1 in the corners."""
    b, _, h, w = image.shape
    y, x = (torch.linspace(-n, n, n, device=image.device, dtype=image.dtype) for n in (h, w))
    radius = torch.hypot(y[:, None], x[None, :]) / math.hypot(h, w)  # h w, in [0, 1]
    return (2 - radius).expand(b, 1, h, w).clone()


def constant_depth(image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h w"]:
    """1 everywhere: what knowing nothing scores."""
    return torch.ones_like(image[:, :1])
