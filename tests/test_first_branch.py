"""Weight files of the first branch are still read, and act as what they are."""

import torch

from lesionkit.depth import DepthNet
from lesionkit.detector import Detector, DetectorConfig
from lesionkit.first_branch import FirstAttention, give_first_branch
from lesionkit.segmentation import DepthGuidedSegmenter, standardise


def first(guidance: str = "depth") -> DepthGuidedSegmenter:
    torch.manual_seed(0)
    net = DepthGuidedSegmenter(guidance, "small")
    give_first_branch(net)
    return net.eval()


@torch.no_grad()
def test_it_is_fed_the_log_depth_and_gives_one_weight_per_place_of_mean_one():
    net, image, depth = first(), torch.rand(2, 3, 64, 64), 20 + 30 * torch.rand(2, 1, 64, 64)
    seen = []
    net.depth_features.stages[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    weights = net.attend(depth, image)
    log = standardise(torch.log(depth)).expand(-1, 3, -1, -1)
    torch.testing.assert_close(seen[0], torch.nn.functional.avg_pool2d(log, 2))
    assert [tuple(one.shape) for one in weights] == [(2, 1, s, s) for s in (32, 16, 8, 4, 2)]
    for one in weights:
        torch.testing.assert_close(one.mean((2, 3)), torch.ones(2, 1))
    assert weights[0].std() > 1e-3


@torch.no_grad()
def test_learned_is_fed_the_image():
    net, image, seen = first("learned"), torch.rand(2, 3, 64, 64), []
    net.depth_features.stages[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    net.attend(image=image)
    torch.testing.assert_close(seen[0], torch.nn.functional.avg_pool2d(standardise(image), 2))


def test_a_saved_first_branch_comes_back_as_one(tmp_path):
    config, image = DetectorConfig(size_px=64, depth_px=0, encoder="small"), torch.rand(1, 3, 64, 64)
    before = Detector(DepthNet(pretrained=False), first(), config, "cpu")
    after = Detector.from_pretrained(before.save(tmp_path / "old.safetensors"), "cpu")
    assert all(isinstance(layer, FirstAttention) for layer in after.segmenter.attention)
    torch.testing.assert_close(after(image).probability, before(image).probability, rtol=1e-2, atol=1e-2)
