"""The method in one object: what goes in and comes out, and weight files that fit, do not fit, or are no such thing."""

import json
import stat
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, safe_open, save_file
from torch import nn

from lesionkit import files
from lesionkit.depth import DepthNet
from lesionkit.detector import Detector, DetectorConfig, ImageError, WeightsError, fused, load_depth, save_depth
from lesionkit.encoders import ENCODERS, make_encoder
from lesionkit.segmentation import DepthGuidedSegmenter

CONFIG = DetectorConfig(size_px=64, encoder="small", threshold=0.4, trained_on="nothing, a test")


@pytest.fixture(scope="module")
def detector() -> Detector:
    """Random weights; the layers that start at zero are given values, so that every path matters."""
    torch.manual_seed(0)
    depth, segmenter = DepthNet(), DepthGuidedSegmenter("depth", "small")
    zero = [depth.local_net.head, depth.refine_net.head, *(layer.layer for layer in segmenter.attention)]
    for layer in zero:
        torch.nn.init.normal_(layer.weight, std=0.2)
    segmenter.decoder.head.weight.data *= 20  # probabilities on both sides of the threshold
    return Detector(depth, segmenter, CONFIG, "cpu")


@pytest.fixture
def saved(detector, tmp_path):
    return detector.save(tmp_path / "weights.safetensors")


def pixels(h=70, w=90, seed=0) -> np.ndarray:
    """Something bright in a black frame: the view box is not the whole image."""
    image = np.zeros((h, w, 3), np.uint8)
    inside = np.random.default_rng(seed).integers(80, 220, (h - h // 5, w - w // 5, 3), dtype=np.uint8)
    image[: len(inside), : inside.shape[1]] = inside
    return image


# --- a depth of one's own


def test_a_depth_that_is_given_takes_the_place_of_the_estimate(detector):
    image = pixels()
    own = detector(image)
    slope = np.linspace(20, 60, 90, dtype=np.float32)[None].repeat(70, axis=0)
    found = detector(image, depth=slope)
    assert np.corrcoef(found.depth[:50, :70].ravel(), slope[:50, :70].ravel())[0, 1] > 0.99
    assert np.abs(found.probability - own.probability).max() > 1e-4
    assert np.abs(detector(image, depth=5 * slope).probability - found.probability).max() < 1e-3  # it has no unit


def test_each_image_of_a_batch_gets_its_own_depth(detector):
    image, depth = torch.rand(2, 3, 64, 96), 20 + 20 * torch.rand(2, 1, 64, 96)
    found = detector(image, depth=depth)
    swapped = detector(image, depth=depth.flip(0))
    assert (found.probability - swapped.probability).abs().amax((1, 2, 3)).min() > 1e-5
    torch.testing.assert_close(detector(image[1:], depth=depth[1:]).probability, found.probability[1:])


@pytest.mark.parametrize(
    ("depth", "words"),
    [
        (np.ones((70, 80), np.float32), "of 70×90: one per pixel"),
        (torch.ones(1, 1, 70, 90), "as the image is given, an array or a tensor"),
        (np.zeros((70, 90), np.float32), "give positive distances"),
        (np.full((70, 90), np.nan), "give positive distances"),
    ],
)
def test_a_depth_that_does_not_fit_is_one_sentence(detector, depth, words):
    with pytest.raises(ValueError, match=words) as caught:
        detector(pixels(), depth=depth)
    assert "\n" not in str(caught.value)


# --- in and out


def test_one_array_gives_maps_of_its_size(detector):
    image = pixels()
    found = detector(image)
    assert found.mask.dtype == bool
    assert found.probability.dtype == found.depth.dtype == np.float32
    assert found.mask.shape == found.probability.shape == found.depth.shape == (70, 90)
    assert [weights.shape for weights in found.attention] == [(s, s) for s in (32, 16, 8, 4, 2)]
    assert all(weights.dtype == np.float32 for weights in found.attention)
    np.testing.assert_array_equal(found.mask, found.probability > 0.4)
    assert 0 < found.mask.mean() < 1
    assert found.depth.min() > 0
    assert not found.mask[:, 80:].any()  # black: no lesion is ever found outside the view
    assert sum(one.area_px for one in found.lesions) == found.mask.sum()
    drawn = found.overlay()
    assert drawn.dtype == np.uint8
    np.testing.assert_array_equal(drawn[:10, 80:], image[:10, 80:])


def test_a_batch_is_its_singles(detector):
    images = np.stack([pixels(seed=s) for s in range(3)])
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    found, singles = detector(batch), [detector(image) for image in images]
    assert found.probability.shape == found.depth.shape == found.mask.shape == (3, 1, 70, 90)
    assert found.mask.dtype == torch.bool
    assert [tuple(w.shape) for w in found.attention] == [(3, 1, s, s) for s in (32, 16, 8, 4, 2)]
    for i, one in enumerate(singles):
        np.testing.assert_allclose(found.probability[i, 0], one.probability, atol=1e-5)
        np.testing.assert_allclose(found.depth[i, 0], one.depth, rtol=1e-4)
        np.testing.assert_allclose(found.attention[0][i, 0], one.attention[0], atol=1e-5)
    assert found.lesions == tuple(one.lesions for one in singles)
    drawn = found.overlay()
    assert drawn.shape == batch.shape
    np.testing.assert_array_equal((drawn[1] * 255).round().byte().permute(1, 2, 0).numpy(), singles[1].overlay())


def test_a_batch_of_one_keeps_its_dimension(detector):
    found = detector(torch.rand(1, 3, 64, 64))
    assert found.probability.shape == (1, 1, 64, 64)
    assert len(found.lesions) == 1
    assert found.overlay().shape == (1, 3, 64, 64)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (37, 53), (201, 33)])
def test_any_size_comes_back(detector, size):
    image = np.full((*size, 3), 120, np.uint8)
    found = detector(image)
    assert found.mask.shape == size
    assert np.isfinite(found.probability).all()
    assert found.overlay().shape == image.shape


def test_views_and_read_only_arrays_are_taken(detector):
    image = pixels()
    image.setflags(write=False)
    mirrored = detector(image[:, ::-1][:, ::-1]).probability
    np.testing.assert_array_equal(mirrored, detector(image).probability)


def test_channels_are_rgb(detector):
    image = pixels()
    assert np.abs(detector(image[..., ::-1]).probability - detector(image).probability).max() > 1e-4


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((40, 40), np.uint8), "uint8"),
        (np.zeros((40, 40, 4), np.uint8), r"\(40, 40, 4\)"),
        (np.zeros((40, 40, 3), np.float32), "float32"),
        (np.zeros((0, 40, 3), np.uint8), "empty"),
        (torch.full((1, 3, 40, 40), 200.0), r"\[0, 1\]"),
        (torch.full((1, 3, 40, 40), float("nan")), "NaN"),
        (torch.zeros(0, 3, 40, 40), "b×3×h×w"),
    ],
)
def test_what_is_no_image_is_named(detector, image, words):
    with pytest.raises(ImageError, match=words) as caught:
        detector(image)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("image", [torch.zeros(3, 40, 40), torch.zeros(1, 3, 40, 40, dtype=torch.uint8), "a.png", None])
def test_what_the_annotation_forbids_is_named_without_the_checker_too(detector, image):
    unchecked = Detector.__call__
    while hasattr(unchecked, "__wrapped__"):
        unchecked = unchecked.__wrapped__
    with pytest.raises(ImageError):
        unchecked(detector, image)


def test_a_frozen_detector_finds_the_same_and_saves_the_same(detector, saved, tmp_path):
    frozen = Detector.from_pretrained(saved, device="cpu").fuse()
    found, before = frozen(pixels()), Detector.from_pretrained(saved, device="cpu")(pixels())
    assert before.probability.std() > 0.05
    np.testing.assert_allclose(found.probability, before.probability, atol=1e-3)
    np.testing.assert_allclose(found.depth, before.depth, rtol=1e-3)
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for net in frozen.running for part in net.modules())
    again = load_file(frozen.save(tmp_path / "again.safetensors"))
    assert all(torch.equal(value, again[name]) for name, value in load_file(saved).items())


def test_frozen_means_that_later_weights_are_not_seen(saved):
    moving, frozen = (Detector.from_pretrained(saved, device="cpu") for _ in range(2))
    frozen.fuse()
    before = frozen(pixels()).probability
    for one in (moving, frozen):
        torch.nn.init.constant_(one.segmenter.decoder.head.bias, 50.0)
    assert moving(pixels()).probability[:50, :60].min() > 0.99
    np.testing.assert_array_equal(frozen(pixels()).probability, before)
    assert frozen.fuse()(pixels()).probability[:50, :60].min() > 0.99


# --- folding


def picture() -> torch.Tensor:
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def _lived(net: nn.Module) -> nn.Module:
    """Batch normalisations as training leaves them: far from the identity that they begin as."""
    torch.manual_seed(0)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.3)
            part.running_var.uniform_(0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.3)
    return net


@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_a_folded_network_gives_the_same_without_batch_normalisation(name):
    net = _lived(DepthGuidedSegmenter("depth", name, pretrained=False)).eval()
    fast, depth = fused(net), picture()[:, :1] + 1
    assert not any(isinstance(part, nn.BatchNorm2d) for part in fast.modules())
    expected = net(picture(), depth).logits
    assert expected.std() > 0.01
    torch.testing.assert_close(fast(picture(), depth).logits, expected, rtol=1e-3, atol=1e-3 * float(expected.std()))


def test_folding_leaves_the_network_as_it_was_and_does_not_follow_it():
    net = _lived(make_encoder("small")).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    fast = fused(net)
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    old = fast(picture())[-1]
    nn.init.zeros_(net.stages[-1][-1][1].weight)
    assert torch.equal(fast(picture())[-1], old)


# --- weight files


def test_a_saved_detector_comes_back(detector, saved):
    again = Detector.from_pretrained(saved, device="cpu")
    assert again.config == CONFIG
    assert again.threshold == 0.4
    found, before = again(pixels()), detector(pixels())
    np.testing.assert_allclose(found.probability, before.probability, atol=0.02)  # half precision
    np.testing.assert_allclose(found.depth, before.depth, rtol=0.02)
    assert before.probability.std() > 0.05


def test_saving_again_changes_nothing(saved, tmp_path):
    second = Detector.from_pretrained(saved, device="cpu").save(tmp_path / "second.safetensors")
    first, second = load_file(saved), load_file(second)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_header_carries_configuration_and_threshold(detector, tmp_path):
    again = Detector(detector.depth_net, detector.segmenter, CONFIG, "cpu")
    again.threshold = 0.37
    path = again.save(tmp_path / "new" / "weights.safetensors")
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["lesionkit"])
    assert header["threshold"] == 0.37
    assert header["size_px"] == 64
    assert Detector.from_pretrained(path, device="cpu").threshold == 0.37


def test_weight_files_are_half_precision_and_readable_by_others(saved):
    matrices = [tensor for tensor in load_file(saved).values() if tensor.ndim > 1]
    assert {tensor.dtype for tensor in matrices} == {torch.float16}
    assert saved.stat().st_mode & stat.S_IRUSR
    plain = saved.with_name("plain")
    plain.write_text("")
    assert saved.stat().st_mode == plain.stat().st_mode


def test_a_failing_save_leaves_the_old_file_and_nothing_else(detector, saved, monkeypatch):
    before = saved.read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        detector.save(saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["weights.safetensors"]


def _changed(saved, change, config=None):
    """The file with other tensors, or another header."""
    tensors = load_file(saved)
    with safe_open(saved, "pt") as file:
        header = json.loads(file.metadata()["lesionkit"])
    change(tensors)
    save_file(tensors, saved, metadata={"lesionkit": json.dumps(header | (config or {}))})


def _rename_pickle(saved):
    torch.save({"depth.x": torch.zeros(1)}, saved)


BAD = {
    "missing": (lambda path: path.unlink(), "there is no weight file"),
    "text": (lambda path: path.write_text("hello"), "damaged"),
    "empty": (lambda path: path.write_bytes(b""), "damaged"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-1000]), "damaged"),
    "pickle": (_rename_pickle, "damaged"),
    "foreign": (lambda path: save_file({"x": torch.zeros(1)}, path), "no lesionkit configuration"),
    "tensor missing": (lambda path: _changed(path, lambda t: t.pop("depth.global_net.head.bias")), "1 tensors missing"),
    "tensor too many": (lambda path: _changed(path, lambda t: t.update({"depth.x": torch.zeros(1)})), "1 unknown"),
    "stranger": (lambda path: _changed(path, lambda t: t.update({"optimiser.x": torch.zeros(1)})), "unknown"),
    "shape": (
        lambda path: _changed(path, lambda t: t.update({"depth.global_net.head.bias": torch.zeros(2)})),
        "1 of another shape",
    ),
    "unknown key": (lambda path: _changed(path, lambda t: None, {"colour": "red"}), "configuration"),
    "shuffled": (lambda path: _changed(path, lambda t: None, {"guidance": "shuffled"}), "configuration"),
    "encoder": (lambda path: _changed(path, lambda t: None, {"encoder": "resnet"}), "'resnet' does not exist"),
    "size": (lambda path: _changed(path, lambda t: None, {"size_px": 65}), "configuration"),
    "size type": (lambda path: _changed(path, lambda t: None, {"size_px": "64"}), "configuration"),
    "threshold": (lambda path: _changed(path, lambda t: None, {"threshold": "high"}), "configuration"),
    "threshold range": (lambda path: _changed(path, lambda t: None, {"threshold": 7.0}), "configuration"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_file_that_does_not_fit_is_one_line(saved, kind):
    spoil, words = BAD[kind]
    spoil(saved)
    with pytest.raises(WeightsError, match=words) as caught:
        Detector.from_pretrained(saved, device="cpu")
    assert "\n" not in str(caught.value)
    assert saved.name in str(caught.value)


def test_a_segmenter_of_another_guidance_or_encoder_than_it_says_is_not_saved(tmp_path):
    """All arms have the same parameters: nothing else would notice."""
    net, segmenter = DepthNet(pretrained=False), DepthGuidedSegmenter("plain", "small")
    for said in (CONFIG, replace(CONFIG, guidance="plain", encoder="efficientnet-lite0")):
        with pytest.raises(WeightsError, match="the segmenter has plain, small but its configuration says"):
            Detector(net, segmenter, said, "cpu").save(tmp_path / "weights.safetensors")
    assert list(tmp_path.iterdir()) == []
    path = Detector(net, segmenter, replace(CONFIG, guidance="plain"), "cpu").save(tmp_path / "weights.safetensors")
    assert Detector.from_pretrained(path, "cpu").segmenter.guidance == "plain"


@pytest.mark.parametrize(("guidance", "threshold"), [("oracle", 0.5), ("shuffled", 0.5), ("depth", 0), ("depth", 1)])
def test_what_could_not_be_read_again_is_not_written(tmp_path, guidance, threshold):
    segmenter = DepthGuidedSegmenter(guidance, "small")
    detector = Detector(DepthNet(pretrained=False), segmenter, replace(CONFIG, guidance=guidance), "cpu")
    detector.threshold = float(threshold)
    with pytest.raises(WeightsError, match="cannot be saved"):
        detector.save(tmp_path / "weights.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_weight_file(tmp_path):
    with pytest.raises(WeightsError, match="no weight file"):
        Detector.from_pretrained(tmp_path, device="cpu")


def test_nothing_is_ever_unpickled(saved, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("torch.load was called")

    monkeypatch.setattr(torch, "load", never)
    Detector.from_pretrained(saved, device="cpu")
    _rename_pickle(saved)
    with pytest.raises(WeightsError):
        Detector.from_pretrained(saved, device="cpu")


def test_a_depth_network_alone_comes_back(detector, tmp_path):
    path = save_depth(detector.depth_net, tmp_path / "depth.safetensors")
    again, image = load_depth(path), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(again(image).target, detector.depth_net(image).target, rtol=1e-4, atol=1e-4)
    with pytest.raises(WeightsError, match="no weight file"):
        load_depth(tmp_path / "nothing.safetensors")
