"""Other light and texture for rendered images: what changes, what must not, and the physics behind it."""

import pytest
import torch

from lesionkit.relight import DISPLAY_GAMMA, Relight, RelightConfig, solid_noise

PLAIN = {"blotch": 0.0, "mottle": 0.0, "vessels": 0.0}  # no pattern


def tunnel(b: int = 2, size_px: int = 64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A grey tunnel lit by the inverse square of the depth, seen through a round aperture."""
    axis = torch.linspace(-1, 1, size_px)
    radius = (axis[:, None] ** 2 + axis[None] ** 2).sqrt()
    depth = (20 / radius.clamp_min(0.2)).expand(b, 1, -1, -1).contiguous()
    content = (radius < 0.95).float().expand(b, 1, -1, -1).contiguous()
    image = ((5 / depth) ** (2 / DISPLAY_GAMMA) * content).expand(-1, 3, -1, -1).contiguous()
    return image, depth, content


def spread(image: torch.Tensor, content: torch.Tensor) -> torch.Tensor:
    """Deviation of the log brightness over what is seen, the mean over the images."""
    return torch.stack([one[seen > 0.5].log().std() for one, seen in zip(image[:, :1], content, strict=True)]).mean()


def test_a_power_of_two_undoes_the_inverse_square():
    image, depth, content = tunnel()
    even = Relight(RelightConfig(probability=1.0, fall_off=(2.0, 2.0), **PLAIN))(image, depth, content)
    steep = Relight(RelightConfig(probability=1.0, fall_off=(-1.0, -1.0), **PLAIN))(image, depth, content)
    assert spread(image, content) > 0.3
    assert spread(even, content) < 1e-3
    assert spread(steep, content) > 1.2 * spread(image, content)


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_range_and_surround_stay_and_probability_decides(probability):
    torch.manual_seed(0)
    image, depth, content = tunnel()
    new = Relight(RelightConfig(probability=probability))(image, depth, content)
    assert new.shape == image.shape
    assert new.isfinite().all()
    assert new.aminmax().min >= 0
    assert new.aminmax().max <= 1
    assert (new[(content == 0).expand_as(new)] == 0).all()
    assert torch.equal(new, image) == (probability == 0.0)


def test_the_same_seed_gives_the_same_pictures_and_images_differ():
    image, depth, content = tunnel()
    pictures = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        pictures.append(Relight(RelightConfig(probability=1.0))(image, depth, content))
    assert torch.equal(pictures[0], pictures[1])
    assert not torch.equal(pictures[0], pictures[2])
    assert not torch.equal(pictures[0][0], pictures[0][1])


def test_the_pattern_sticks_to_the_surface():
    """A scene twice as large with a pattern twice as large looks the same; on a wall at half the distance the pattern
    is twice as coarse, so neighbouring pixels differ half as much."""
    _, depth, _ = tunnel(b=4)
    tile, view, offset = torch.full((4, 1, 1, 1), 80.0), torch.full((4, 1, 1, 1), 1.0), torch.zeros(4, 3, 1, 1)

    def noise(depth, tile):
        torch.manual_seed(0)
        return solid_noise(depth, tile, view, offset)

    torch.testing.assert_close(noise(depth, tile), noise(2 * depth, 2 * tile), rtol=0, atol=1e-3)
    wall = torch.full((4, 1, 256, 256), 10.0)
    blotches = (noise(distance, tile)[:, :1] for distance in (wall, 2 * wall))
    near, far = ((n[..., 1:] - n[..., :-1]).abs().mean() for n in blotches)
    assert 1.5 < far / near < 2.7
