"""Augmentation that keeps an image and its maps together."""

import kornia
import pytest
import torch

from lesionkit.augment import Augment, AugmentConfig, colour_stages


def blob(b=4, size=64) -> torch.Tensor:
    mask = torch.zeros(b, 1, size, size)
    mask[:, :, 12:30, 20:50] = 1
    mask[:, :, 30:50, 20:28] = 1
    return mask


def tissue(b=4, size=64) -> torch.Tensor:
    grain = torch.rand(1, 1, size, size, generator=torch.Generator().manual_seed(0)) * 0.1
    return (torch.tensor([0.6, 0.35, 0.3]).view(1, 3, 1, 1) + grain).repeat(b, 1, 1, 1)


PLAIN = AugmentConfig(brightness=0, contrast=0, saturation=0, hue=0, blur=0)


def test_maps_move_with_the_image():
    mask = blob()
    depth = 10 + 30 * mask
    torch.manual_seed(0)
    image, moved, far = Augment(PLAIN)(mask.repeat(1, 3, 1, 1), mask, depth)
    assert (moved != mask).float().mean() > 0.1  # it did move
    agree = ((image[:, :1] > 0.5).float() == moved).float().mean()
    assert agree > 0.985  # the image is interpolated, the map is not: they may differ along the outline
    assert set(moved.unique().tolist()) == {0.0, 1.0}
    assert set(far.unique().tolist()) <= {0.0, 10.0, 40.0}  # neither mixed nor jittered
    assert torch.equal(far == 40, moved == 1)


@pytest.mark.parametrize(
    ("config", "change"),
    [
        (AugmentConfig(brightness=0.4, contrast=0.4), 0.02),
        (AugmentConfig(brightness=0, contrast=0, saturation=0, hue=0, blur=1), 0.01),
    ],
    ids=["colour", "blur"],
)
def test_colour_and_blur_change_the_image_alone(config, change):
    image, mask, colours = tissue(), blob(), Augment()
    colours.stages = kornia.augmentation.AugmentationSequential(*colour_stages(config), data_keys=None)
    torch.manual_seed(1)
    jittered, same, depth = colours(image, mask, mask * 7 + 1)
    assert (jittered - image).abs().mean() > change
    assert torch.equal(same, mask)
    assert torch.equal(depth, mask * 7 + 1)


def test_same_torch_seed_same_result_and_another_seed_another():
    image, mask, stages = tissue(), blob(), Augment()

    def draw(seed):
        torch.manual_seed(seed)
        return stages(image, mask)

    first, again, other = draw(0), draw(0), draw(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[1], other[1])
    assert 0 <= first[0].min() <= first[0].max() <= 1


def test_images_of_a_batch_are_varied_differently():
    torch.manual_seed(0)
    _, mask = Augment()(blob().repeat(1, 3, 1, 1), blob())
    assert not torch.equal(mask[0], mask[1])


def test_a_batch_of_one_keeps_its_dimensions():
    image, mask, depth = Augment()(tissue(1), blob(1), blob(1))
    assert image.shape == (1, 3, 64, 64)
    assert mask.shape == depth.shape == (1, 1, 64, 64)
