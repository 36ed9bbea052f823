"""Frames of rendered scenes and of a folder: what belongs together stays together."""

import cv2
import numpy as np
import pytest
import torch

from lesionkit import datasets, frames
from lesionkit.frames import Frames, join, lesion_free_crops, load_frames, rendered_frames
from lesionkit.preprocess import crop_resize, find_view, preprocess
from lesionkit.scenes import SceneConfig, render_scenes, stream_scenes

SIZE = 64


@pytest.fixture(scope="module")
def some() -> Frames:
    return rendered_frames("train", 6, SIZE, 0, SceneConfig.basic())


@pytest.fixture
def folder(tmp_path):
    """Twelve pictures in a black frame; a bright square is the lesion, on a reddish ground of its own shade."""
    for number in range(12):
        image, mask = np.zeros((90, 120, 3), np.uint8), np.zeros((90, 120), np.uint8)
        image[10:80, 20:110] = (60, 70, 120 + 5 * number)  # BGR
        image[30:50, 40:70] = (190, 200, 210)
        mask[30:50, 40:70] = 255
        for name, pixels in (("images", image), ("masks", mask)):
            (tmp_path / name).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / name / f"{number:02d}.png"), pixels)
    return f"folder:{tmp_path}"


def test_parts_and_seeds_are_streams_of_their_own(some):
    for other in (rendered_frames("test", 6, SIZE, 0, SceneConfig.basic()), rendered_frames("train", 6, SIZE, 1)):
        distance = torch.cdist(some.raw.flatten(1), other.raw.flatten(1))
        assert distance.min() > 1
    longer, again = rendered_frames("train", 6, SIZE, 0), load_frames("scenes", "train", 3, SIZE, 0)
    torch.testing.assert_close(again.image, longer.image[:3], rtol=1e-4, atol=1e-4)
    assert again.names == longer.names[:3] == tuple(f"scene-0-train-{i:04d}" for i in range(3))


@pytest.mark.parametrize(
    ("device", "renderer"), [("cpu", "cpu"), ("cuda:1", "cuda:1"), ("mps", "cpu"), ("mps:0", "cpu")]
)
def test_a_gpu_renders_and_the_frames_are_on_the_cpu(device, renderer):
    asked = []

    def stream(count, size_px, seed, device, config):
        asked.append(device)
        return stream_scenes(count, size_px, seed, "cpu", config)

    found = rendered_frames("train", 3, SIZE, 0, SceneConfig.basic(), torch.device(device), stream)
    assert asked == [renderer]
    assert torch.equal(found.depth, rendered_frames("train", 3, SIZE, 0, SceneConfig.basic()).depth)


def test_rendered_frames_are_the_scenes_seen_through_preprocessing(some):
    scenes = render_scenes(6, SIZE, frames.STREAMS["train"], "cpu", SceneConfig.basic())
    seen = preprocess(scenes.image, SIZE)
    torch.testing.assert_close(some.image, seen.image)
    torch.testing.assert_close(some.view, seen.view)
    assert some.lesions == scenes.lesions
    box = find_view(scenes.image)[0]
    assert torch.equal(some.mask, crop_resize(scenes.mask, box, SIZE, "nearest-exact"))
    assert set(some.depth.unique().tolist()) <= set(scenes.depth.unique().tolist())  # no mixed depths
    assert set(some.mask.unique().tolist()) == {0.0, 1.0}


def test_has_lesion(some):
    expected = [bool(mask.any()) for mask in some.mask]
    assert some.has_lesion.tolist() == expected
    assert any(expected)


def test_slices_keep_everything_together(some):
    part = some[2:4]
    assert len(part) == 2
    assert part.names == some.names[2:4]
    assert part.lesions == some.lesions[2:4]
    assert torch.equal(part.depth, some.depth[2:4])
    assert join([some[:2], some[2:]]).names == some.names
    assert torch.equal(join([some[:2], some[2:]]).mask, some.mask)


def test_joining_with_frames_without_depth_drops_it(some):
    real = Frames(some.raw, some.image, some.mask, some.view, some.names)
    both = join([some[:1], real[:1]])
    assert both.depth is None
    assert both.lesions is None
    assert len(both) == 2


def test_frames_of_a_folder(folder):
    got = load_frames(folder, "train", 4, SIZE)
    assert len(got) == 4
    assert got.depth is None
    assert set(got.mask.unique().tolist()) == {0.0, 1.0}
    # the black frame is cropped away: 70×90 px of view, the lesion from (20, 20) to (50, 40) in it
    rows, columns = np.nonzero(got.mask[0, 0].numpy())
    assert columns.min() == pytest.approx(20 / 90 * SIZE, abs=1)
    assert columns.max() + 1 == pytest.approx(50 / 90 * SIZE, abs=1)
    assert rows.min() == pytest.approx(20 / 70 * SIZE, abs=1)
    assert rows.max() + 1 == pytest.approx(40 / 70 * SIZE, abs=1)
    outside = got.raw[0][:, got.mask[0, 0] == 0]
    assert outside[0].mean() > 1.3 * outside[2].mean()  # RGB


def test_real_frames_are_chosen_by_the_seed(folder):
    one, again = (load_frames(folder, "train", 3, SIZE, seed=0) for _ in range(2))
    assert one.names == again.names
    assert torch.equal(one.image, again.image)
    assert len({load_frames(folder, "train", 3, SIZE, seed=s).names for s in range(5)}) > 1
    everything = load_frames(folder, "train", 1000, SIZE)
    assert len(everything) < 12  # the other parts have theirs
    assert not set(everything.names) & set(load_frames(folder, "test", 1000, SIZE).names)


def _painted(some: Frames) -> Frames:
    """The lesions are painted blue."""
    blue = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1)
    image = torch.where(some.mask > 0, blue, some.image.clamp_max(0.9))
    return Frames(image, image, some.mask, torch.ones_like(some.mask), some.names, some.depth, some.lesions)


def test_lesion_free_crops_show_no_lesion(some):
    """Not a trace of the lesions' blue may be in them."""
    free = lesion_free_crops(_painted(some), 4, seed=0)
    assert 0 < len(free) <= 4
    assert free.mask.sum() == 0
    assert not free.has_lesion.any()
    assert not ((free.image[:, 2] > 0.95) & (free.image[:, 0] < 0.05)).any()
    assert len(set(free.names)) == len(free)
    assert all(name.rpartition("-")[0] in some.names for name in free.names)
    assert free.depth.shape == free.mask.shape
    assert free.image.shape[2:] == some.image.shape[2:]


def test_frames_filled_by_lesions_give_none(some):
    full = Frames(some.raw, some.image, torch.ones_like(some.mask), some.view, some.names)
    assert len(lesion_free_crops(full, 4)) == 0


@pytest.mark.parametrize("dataset", ["scenes", "folder"])
def test_a_part_that_is_none_names_the_parts(dataset, request):
    dataset = request.getfixturevalue("folder") if dataset == "folder" else dataset
    with pytest.raises(datasets.InvalidData, match="no part 'trian': choose one of train, validation, test"):
        load_frames(dataset, "trian", 1, SIZE)
