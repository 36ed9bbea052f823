"""Light, camera and noise against what the formulas promise."""

import pytest
import torch

from lesionkit import shading
from lesionkit.shading import Camera, Look


def camera(kind=0.0, radius=1.0, noise=0.0, exposure=0.42, vignette=0.0) -> Camera:
    def one(value):
        return torch.tensor([[value]])

    return Camera(tan_half_view=one(1.0), rotation=torch.eye(3)[None], exposure=one(exposure),
                  tint=torch.ones(1, 3), vignette=one(vignette), noise=one(noise), aperture=one(kind),
                  aperture_radius=one(radius))  # fmt: skip


def look(gloss=0.0) -> Look:
    values = {name: torch.zeros(1, 1) for name in Look.__dataclass_fields__}
    return Look(**(values | {"gloss": torch.tensor([[gloss]]), "roughness": torch.tensor([[300.0]])}))


def straight_on(distance: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Normal and point of a wall that faces the camera at `distance`."""
    return torch.tensor([0.0, 0.0, -1.0]).view(1, 3, 1), torch.tensor([0.0, 0.0, distance]).view(1, 3, 1)


def shine(distance=10.0, gloss=0.0, normal=None) -> torch.Tensor:
    facing, point = straight_on(distance)
    colour = torch.tensor([0.6, 0.3, 0.2]).view(1, 3, 1)
    return shading.radiance(colour, facing if normal is None else normal, point, look(gloss), torch.zeros(1, 1))


def test_light_falls_with_the_squared_distance():
    torch.testing.assert_close(shine(10.0), shine(20.0) * 4)
    torch.testing.assert_close(shine(10.0)[0, :, 0], torch.tensor([0.006, 0.003, 0.002]))


def test_a_grazed_wall_is_darker_but_not_black():
    ratio = shine(normal=torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1)) / shine()
    torch.testing.assert_close(ratio, torch.full_like(ratio, 0.22))


def test_highlights_are_white_and_only_where_the_wall_faces_the_lamp():
    extra = shine(gloss=1.0) - shine()
    torch.testing.assert_close(extra, torch.full_like(extra, 0.01))  # the same in every channel: 1 / 10²
    turned = torch.nn.functional.normalize(torch.tensor([0.3, 0.0, -1.0]), dim=0).view(1, 3, 1)
    assert (shine(gloss=1.0, normal=turned) - shine(normal=turned)).max() < 1e-7


@pytest.mark.parametrize("gain", [0.0005, 0.01, 0.5])
def test_exposure_reaches_its_mean_whatever_the_light(gain):
    light = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * gain + 0.2 * gain
    seen = torch.ones(1, 1, 32, 32)
    shown = shading.expose(light, camera(exposure=0.42), seen)
    # the meter averages the channels before the tone curve, hence not to the last digit
    assert shown.mean().item() == pytest.approx(0.42, abs=0.02)
    assert 0 < shown.min() < shown.max() < 1


def test_vignette_darkens_the_corners():
    light, seen = torch.ones(1, 3, 32, 32), torch.ones(1, 1, 32, 32)
    shown = shading.expose(light, camera(vignette=0.3), seen)[0, 0]
    assert shown[0, 0] < shown[0, 16] < shown[16, 16]


@pytest.mark.parametrize(("kind", "corner", "middle_of_the_side"), [(0.0, 1, 1), (1.0, 0, 0), (2.0, 0, 0)])
def test_aperture(kind, corner, middle_of_the_side):
    inside = shading.aperture(camera(kind, radius=0.95), 64, 64)[0, 0]
    assert inside[0, 0] == corner
    assert inside[0, 32] == middle_of_the_side
    assert inside[32, 32] == 1
    share = {0.0: 1.0, 1.0: 3.1416 / 4 * 0.95**2, 2.0: 0.9215**2 - 2 * (2 * 0.9215 - 0.95 * 1.36) ** 2 / 4}
    assert inside.mean().item() == pytest.approx(share[kind], abs=0.03)


def test_noise_has_its_strength_and_grows_towards_the_dark():
    dark, bright = (torch.full((1, 3, 64, 64), level) for level in (0.3, 0.8))
    shift = torch.tensor([[5, 11]])
    noisy = [shading.sensor(image, camera(noise=0.02), shift) - image for image in (dark, bright)]
    assert noisy[0].std().item() == pytest.approx(0.02 * 1.0, rel=0.05)
    assert noisy[1].std().item() == pytest.approx(0.02 * 0.5, rel=0.05)
    other = shading.sensor(dark, camera(noise=0.02), torch.tensor([[6, 11]])) - dark
    torch.testing.assert_close(other[:, :, :-1], noisy[0][:, :, 1:])  # one row further in the bank


def test_the_texture_bank_is_standardised_periodic_and_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    shading.texture_bank.cache_clear()
    bank = shading.texture_bank()
    torch.testing.assert_close(torch.rand(1), expected)
    plain = bank[:, [shading.BLOTCH, shading.MOTTLE, shading.GRAIN]]
    torch.testing.assert_close(plain.std(dim=(2, 3)), torch.ones(12, 3), rtol=1e-3, atol=0)
    assert plain.mean(dim=(2, 3)).abs().max() < 1e-4
    seam = (bank[..., 0] - bank[..., -1]).square().mean()
    neighbours = (bank[..., 1:] - bank[..., :-1]).square().mean()
    assert seam.item() == pytest.approx(neighbours.item(), rel=0.15)
