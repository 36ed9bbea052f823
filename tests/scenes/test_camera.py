"""The imaging chain against what the formulas promise: exposure, aperture, blur, colour, noise, what is burnt in."""

import pytest
import torch

from lesionkit.scenes.camera import Camera, aperture, blurred, burn_text, coarse_colour, expose, sensor


def camera(kind=0.0, radius=1.0, noise=0.0, exposure=0.42, vignette=0.0, **other) -> Camera:
    def one(value):
        return torch.tensor([[value]])

    given = {"tan_half_view": one(1.0), "aspect": one(1.0), "distortion": one(0.0), "gamma": one(2.2),
             "blur": torch.zeros(1, 2), "chroma": one(0.0), "rotation": torch.eye(3)[None], "exposure": one(exposure),
             "tint": torch.ones(1, 3), "vignette": one(vignette), "noise": one(noise), "aperture": one(kind),
             "aperture_radius": one(radius), "box": torch.zeros(1, 2), "text": one(0.0)}  # fmt: skip
    return Camera(**(given | other))


@pytest.mark.parametrize("gain", [0.0005, 0.01, 0.5])
def test_exposure_reaches_its_mean_whatever_the_light(gain):
    light = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * gain + 0.2 * gain
    seen = torch.ones(1, 1, 32, 32)
    shown = expose(light, camera(exposure=0.42), seen)
    # the meter averages the channels before the tone curve, hence not to the last digit
    assert shown.mean().item() == pytest.approx(0.42, abs=0.02)
    assert 0 < shown.min() < shown.max() < 1


def test_vignette_darkens_the_corners():
    light, seen = torch.ones(1, 3, 32, 32), torch.ones(1, 1, 32, 32)
    shown = expose(light, camera(vignette=0.3), seen)[0, 0]
    assert shown[0, 0] < shown[0, 16] < shown[16, 16]


@pytest.mark.parametrize(("kind", "corner", "middle_of_the_side"), [(0.0, 1, 1), (1.0, 0, 0), (2.0, 0, 0)])
def test_aperture(kind, corner, middle_of_the_side):
    inside = aperture(camera(kind, radius=0.95), 64)[0, 0]
    assert inside[0, 0] == corner
    assert inside[0, 32] == middle_of_the_side
    assert inside[32, 32] == 1
    share = {0.0: 1.0, 1.0: 3.1416 / 4 * 0.95**2, 2.0: 0.9215**2 - 2 * (2 * 0.9215 - 0.95 * 1.36) ** 2 / 4}
    assert inside.mean().item() == pytest.approx(share[kind], abs=0.03)


def test_noise_has_its_strength_and_grows_towards_the_dark():
    dark, bright = (torch.full((1, 3, 64, 64), level) for level in (0.3, 0.8))
    shift = torch.tensor([[5, 11]])
    noisy = [sensor(image, camera(noise=0.02), shift) - image for image in (dark, bright)]
    assert noisy[0].std().item() == pytest.approx(0.02 * 1.0, rel=0.05)
    assert noisy[1].std().item() == pytest.approx(0.02 * 0.5, rel=0.05)
    other = sensor(dark, camera(noise=0.02), torch.tensor([[6, 11]])) - dark
    torch.testing.assert_close(other[:, :, :-1], noisy[0][:, :, 1:])  # one row further in the bank


def step() -> torch.Tensor:
    """Left half dark, right half red."""
    image = torch.full((1, 3, 64, 64), 0.2)
    image[..., 32:] = torch.tensor([0.8, 0.2, 0.2]).view(3, 1, 1)
    return image


def test_blur_along_x_softens_a_vertical_edge_and_along_y_does_not():
    across, along = (blurred(step(), torch.tensor([share])) for share in ((0.008, 0.0), (0.0, 0.008)))
    assert 0.25 < across[0, 0, 32, 31] < 0.5 < across[0, 0, 32, 32] < 0.75
    torch.testing.assert_close(along, step(), rtol=0, atol=1e-3)
    assert torch.equal(blurred(step(), torch.zeros(1, 2)), step())


def test_coarse_colour_keeps_brightness_and_smears_colour():
    image = step().roll(1, 3)  # off the grid of 2 × 2
    coarse = coarse_colour(image, torch.ones(1, 1))
    grey = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    torch.testing.assert_close((coarse * grey).sum(1), (image * grey).sum(1), rtol=0, atol=2e-3)
    assert (coarse - image).abs()[..., 31:35].max() > 0.1
    assert torch.equal(coarse_colour(image, torch.zeros(1, 1)), image)


def test_the_box_is_dark_and_only_in_its_corner():
    inside = aperture(camera(box=torch.tensor([[0.25, 0.5]])), 64)[0, 0]
    assert inside[32:, :16].sum() == 0
    assert inside.sum() == 64 * 64 - 32 * 16


def test_text_is_burnt_in_at_the_left_where_it_is_asked_for():
    black, place = torch.zeros(1, 3, 128, 128), torch.tensor([[3, 9]])
    assert torch.equal(burn_text(black, camera(), place), black)
    written = burn_text(black, camera(text=torch.ones(1, 1)), place)
    assert 0.05 < (written[0, 0, 38:78, :33] > 0).float().mean() < 0.5
    written[:, :, 38:78, :33] = 0
    assert written.max() == 0
