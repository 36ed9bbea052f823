"""Steps [15–18]: depth from one image, global first, then local.

Letters: b images, h × w pixels, both multiples of 32. Depths are positive distances along the optical axis, near is
small. On rendered scenes they are trained towards millimetres; on real images only their ratios mean something.

The scheme is the coarse-to-fine idea of Eigen, Puhrsch and Fergus (NeurIPS 2014): a global network sees the whole
scene at low resolution, a shallow local one sees full resolution, their sum is refined locally. Sums are taken of
logarithms, so that a local correction is a *factor*: +0.1 means ten per cent further, near or far.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import kornia
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lesionkit.preprocess import STRIDE

TYPICAL_MM = 30.0  # where the untrained network starts: the middle of a colonoscope's working range
LOG_SPAN = 4.0  # depths stay within TYPICAL_MM · e^±4, so that half precision cannot overflow

LUMINANCE_WEIGHTS = (0.2126, 0.7152, 0.0722)  # of linear RGB, Rec. 709
DARKEST = 1e-3  # of white: below a camera's noise; no depth is more than about 30 times the nearest


class DepthError(ValueError):
    """An image that the depth network cannot take; one sentence."""


@dataclass(frozen=True)
class DepthMaps:
    """The four depth images of the method, each b×1×h×w.

    first: the global map; second: the *signed* logarithmic correction seen locally; third: first and second
    superposed (first · e^second); target: third after local refinement. All but `second` are positive depths.
    """

    first: Float[Tensor, "b 1 h w"]
    second: Float[Tensor, "b 1 h w"]
    third: Float[Tensor, "b 1 h w"]
    target: Float[Tensor, "b 1 h w"]


@dataclass(frozen=True)
class DepthConfig:
    """Widths of the networks; 0.98 million parameters, few of them at full resolution."""

    global_channels: tuple[int, ...] = (24, 40, 64, 96, 160)  # at 1/2, 1/4, … 1/32: deep enough to see the whole scene
    local_channels: int = 12  # full resolution is dear: 12 channels cost as much as 48 at a quarter


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3×3 convolution, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def up_to(features: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(features, size=like.shape[2:], mode="bilinear", align_corners=False)


class GlobalDepth(nn.Module):
    """b×3×h×w → log depth b×1×(h/4)×(w/4). An encoder down to 1/32, the scene's mean feature added there (the
    receptive field is the whole image), and a light decoder back to 1/4."""

    def __init__(self, channels: tuple[int, ...]):
        super().__init__()
        widths = (3, *channels)
        self.down = nn.ModuleList(
            nn.Sequential(block(a, b, stride=2), block(b, b)) for a, b in pairwise(widths)
        )
        self.whole = nn.Linear(channels[-1], channels[-1])
        pairs = list(zip(channels[:0:-1], channels[-2:0:-1], strict=False))  # (160, 96), (96, 64), (64, 40)
        self.up = nn.ModuleList(block(deep + shallow, shallow) for deep, shallow in pairs)
        self.head = nn.Conv2d(channels[1], 1, 3, padding=1)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h4 w4"]:
        features = []
        for stage in self.down:
            image = stage(image)
            features.append(image)
        x = features.pop()
        x = x + torch.relu(self.whole(x.mean(dim=(2, 3))))[:, :, None, None]
        for stage in self.up:
            skip = features.pop()
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
    """image b×3×h×w in [0, 1] → DepthMaps. Raises DepthError when h or w is no multiple of 32 or below 64."""

    def __init__(self, config: DepthConfig | None = None):
        super().__init__()
        config = config or DepthConfig()
        self.global_net = GlobalDepth(config.global_channels)
        self.local_net = LocalDepth(3, config.local_channels)
        self.refine_net = LocalDepth(4, config.local_channels)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> DepthMaps:
        h, w = image.shape[2:]
        if h % STRIDE or w % STRIDE or min(h, w) < 2 * STRIDE:
            wanted = f"width and height must be multiples of {STRIDE}, at least {2 * STRIDE}"
            raise DepthError(f"the image is {w}×{h}: {wanted}")
        centred = image * 2 - 1
        first = up_to(self.global_net(centred), image)
        second = self.local_net(centred)
        third = superimpose(first, second)
        target = third + self.refine_net(torch.cat([third, centred], dim=1))
        return DepthMaps(to_depth(first), second, to_depth(third), to_depth(target))


def superimpose(first: Tensor, second: Tensor) -> Tensor:
    """Step [17]: the global and the preliminary local map, added as logarithms."""
    return first + second


def to_depth(log_depth: Tensor) -> Tensor:
    """From a network's output (0 is TYPICAL_MM) to a positive depth; computed in float32."""
    return TYPICAL_MM * torch.exp(LOG_SPAN * torch.tanh(log_depth.float() / LOG_SPAN))


def depth_steepness(depth: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
    """How strongly depth changes at each pixel [21]: the gradient's length of the log depth, per pixel (Sobel)."""
    gradient = kornia.filters.spatial_gradient(torch.log(depth.clamp_min(1e-3)), mode="sobel")
    return gradient.square().sum(dim=2).sqrt()


def luminance_depth(image: Float[Tensor, "b 3 h w"], blur: float = 0.01) -> Float[Tensor, "b 1 h w"]:
    """Depth from brightness alone: 1 / √(linear luminance), since light at the camera falls off with 1/d².

    The strongest of the trivial baselines in endoscopy. sRGB is made linear first. The Gaussian blur, of
    standard deviation `blur` × the shorter side, takes away vessels and part of the highlights; 0 leaves it
    out. image b×3×h×w in [0, 1] → b×1×h×w, positive, without a unit.
    """
    weights = image.new_tensor(LUMINANCE_WEIGHTS).view(1, 3, 1, 1)
    luminance = (kornia.color.rgb_to_linear_rgb(image) * weights).sum(1, keepdim=True)  # b 3 h w -> b 1 h w
    sigma_px = blur * min(image.shape[-2:])
    if sigma_px > 0:
        size = 2 * math.ceil(3 * sigma_px) + 1
        luminance = kornia.filters.gaussian_blur2d(luminance, (size, size), (sigma_px, sigma_px))
    return luminance.clamp(min=DARKEST).rsqrt()
