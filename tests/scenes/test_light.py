"""Light against what the formulas promise."""

from dataclasses import replace

import pytest
import torch
from test_march import straight

from lesionkit.scenes.light import (
    BLOTCH,
    GRAIN,
    MOTTLE,
    Appearance,
    Light,
    ambient_occlusion,
    place_on_wall,
    radiance,
    texture_bank,
    wall_texture,
)


def lamp(at=((0.0, 0.0), (0.0, 0.0)), balance=1.0, fall_off=2.0, wrap=0.22, ambient=0.0, occlusion=0.0) -> Light:
    numbers = {"balance": balance, "fall_off": fall_off, "wrap": wrap, "ambient": ambient, "occlusion": occlusion}
    return Light(lamps=torch.tensor([at]), **{name: torch.tensor([[value]]) for name, value in numbers.items()})


def look(gloss=0.0) -> Appearance:
    values = {name: torch.zeros(1, 1) for name in Appearance.__dataclass_fields__}
    return Appearance(**(values | {"gloss": torch.tensor([[gloss]]), "roughness": torch.tensor([[300.0]])}))


def straight_on(distance: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Normal and point of a wall that faces the camera at `distance`."""
    return torch.tensor([0.0, 0.0, -1.0]).view(1, 3, 1), torch.tensor([0.0, 0.0, distance]).view(1, 3, 1)


def shine(distance=10.0, gloss=0.0, normal=None, light=None) -> torch.Tensor:
    facing, point = straight_on(distance)
    colour, facing = torch.tensor([0.6, 0.3, 0.2]).view(1, 3, 1), facing if normal is None else normal
    return radiance(colour, facing, point, torch.eye(3)[None], look(gloss), light or lamp(), torch.zeros(1, 1))


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


def test_the_texture_bank_is_standardised_periodic_and_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    texture_bank.cache_clear()
    bank = texture_bank()
    torch.testing.assert_close(torch.rand(1), expected)
    plain = bank[:, [BLOTCH, MOTTLE, GRAIN]]
    torch.testing.assert_close(plain.std(dim=(2, 3)), torch.ones(12, 3), rtol=1e-3, atol=0)
    assert plain.mean(dim=(2, 3)).abs().max() < 1e-4
    seam = (bank[..., 0] - bank[..., -1]).square().mean()
    neighbours = (bank[..., 1:] - bank[..., :-1]).square().mean()
    assert seam.item() == pytest.approx(neighbours.item(), rel=0.15)


# --- what makes a frame look like a real one


def test_a_smaller_exponent_lights_up_what_is_far_and_keeps_20_mm():
    weak = lamp(fall_off=1.0)
    torch.testing.assert_close(shine(20.0, light=weak), shine(20.0))
    torch.testing.assert_close(shine(40.0, light=weak), shine(40.0) * 2)


TUBE = straight(radius=20.0, offset=(0.0, 0.0), end=60.0)


def texture_on_a_ring(radius_mm: float, count: int = 720) -> torch.Tensor:
    """The texture's four channels around the axis, 4×count, on the end of TUBE or on its wall."""
    angle = torch.arange(count) / count * 2 * torch.pi
    ring = torch.stack([radius_mm * angle.cos(), radius_mm * angle.sin(), torch.full_like(angle, 60.0)])[None]
    coarse = replace(look(), texture_mm=torch.full((1, 1), 30.0), tile=torch.zeros(1, 1).long())
    return wall_texture(TUBE, coarse, place_on_wall(TUBE, ring))[0]


def change_per_mm(radius_mm: float) -> torch.Tensor:
    ring = texture_on_a_ring(radius_mm)
    return (ring - ring.roll(1, dims=1)).abs().sum(dim=1) / (2 * torch.pi * radius_mm)


def test_a_blind_end_has_the_texture_of_the_wall_not_a_star():
    """Per mm, the texture changes no faster on a small ring at the end's middle than on the wall."""
    wall, middle = (change_per_mm(radius_mm) for radius_mm in (20.0, 2.0))
    assert (middle < 2 * wall).all()


def test_where_the_two_ways_of_laying_texture_meet_it_is_neither_torn_nor_faint():
    rings = torch.stack([texture_on_a_ring(radius_mm) for radius_mm in torch.linspace(11, 19, 401).tolist()])
    assert (rings[1:] - rings[:-1]).abs().mean(dim=(0, 2)).max() < 0.1  # from ring to ring, 0.02 mm
    deviation = rings.std(dim=2).mean(dim=0)
    assert (deviation > 0.6).all()
    assert (deviation < 1.4).all()


def test_creases_are_darker_by_the_occlusion():
    """On the wall of a tube, on its flat end, and where they meet."""
    points = torch.tensor([[20.0, 0.0, 20.0], [0.0, 0.0, 60.0], [19.0, 0.0, 59.0]]).T[None]
    normal = torch.tensor([[-1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [-1.0, 0.0, 0.0]]).T[None]
    none, half, full = (ambient_occlusion(TUBE, None, lamp(occlusion=by), normal, points) for by in (0.0, 0.5, 1.0))
    wall, end, corner = full[0].tolist()
    assert wall == pytest.approx(1, abs=0.01)
    assert end == pytest.approx(1, abs=0.01)
    assert corner < 0.3
    assert (none == 1).all()
    torch.testing.assert_close(half, (1 + full) / 2)


def test_ambient_light_does_not_know_of_distance():
    bright = lamp(ambient=0.5)
    torch.testing.assert_close(shine(10.0, light=bright) - shine(10.0), shine(80.0, light=bright) - shine(80.0))


def test_a_lamp_beside_the_lens_lights_walls_that_face_it():
    towards = torch.nn.functional.normalize(torch.tensor([0.5, 0.0, -1.0]), dim=0).view(1, 3, 1)
    right, left = lamp(at=((5.0, 0.0), (0.0, 0.0))), lamp(at=((-5.0, 0.0), (0.0, 0.0)))
    assert (shine(normal=towards, light=right) > 1.3 * shine(normal=towards, light=left)).all()
    both = lamp(at=((5.0, 0.0), (-5.0, 0.0)), balance=0.5)
    halves = (shine(normal=towards, light=right) + shine(normal=towards, light=left)) / 2
    torch.testing.assert_close(shine(normal=towards, light=both), halves)
