"""The geometry against closed forms: a straight tube, a ball on a flat wall, and drawn scenes' own surface."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from lesionkit.scenes.march import coarse_to_fine, length_of, march, normals, scene_function
from lesionkit.scenes.surface import FAR_MM, Elements, Tube, smooth_minimum

SIZE = 64
RADIUS, OFFSET = 20.0, (4.0, -3.0)
WALL_Z, BALL = 60.0, 9.0


def straight(radius=RADIUS, offset=OFFSET, end=400.0, **other) -> Tube:
    """A round tube without folds or bends, but for what `other` says."""
    zero = {field.name: 0.0 for field in fields(Tube)}
    given = {"radius": radius, "offset_x": offset[0], "offset_y": offset[1], "end": end, "end_round": 6.0,
             "fold_spacing": 20.0, "fold_sharpness": 1.0, "corner_start": 400.0, "corner_radius": 50.0,
             **other}  # fmt: skip
    return Tube(**{name: torch.tensor([[value]]) for name, value in (zero | given).items()})


def ball_on_wall(radius=BALL) -> Elements:
    """Half a ball on the flat end of a wide tube, straight ahead of the camera."""

    def axis(*xyz):
        return torch.tensor([[xyz]])

    numbers = {"radius": radius, "aspect": 1.0, "height": radius, "lift": 0.0, "lumps": 0.0, "lump_phase": 0.0}
    axes = {
        "base": axis(0.0, 0.0, WALL_Z),
        "up": axis(0.0, 0.0, -1.0),
        "along": axis(1.0, 0.0, 0.0),
        "across": axis(0.0, 1.0, 0.0),
    }
    one = {name: torch.tensor([[value]]) for name, value in numbers.items()}
    return Elements(**axes, **one, is_lesion=torch.tensor([[True]]), raised=(0,), sunk=())


def rays(tan_half_view=1.0, size=SIZE) -> torch.Tensor:
    side = ((torch.arange(size) + 0.5) / size * 2 - 1) * tan_half_view
    y, x = torch.meshgrid(side, side, indexing="ij")
    return torch.stack([x, y, torch.ones_like(x)])[None]


def cylinder_depth(ray: torch.Tensor) -> torch.Tensor:
    """t with |t·(x, y) − offset| = RADIUS, the camera inside."""
    x, y = ray[:, 0].double(), ray[:, 1].double()
    a, b = x * x + y * y, x * OFFSET[0] + y * OFFSET[1]
    c = OFFSET[0] ** 2 + OFFSET[1] ** 2 - RADIUS**2
    return (b + torch.sqrt(b * b - a * c)) / a


def ball_depth(ray: torch.Tensor) -> torch.Tensor:
    """t of the first meeting with the ball around (0, 0, WALL_Z), nan where it is missed."""
    a, c = ray.double().square().sum(dim=1), WALL_Z**2 - BALL**2
    return (WALL_Z - torch.sqrt(WALL_Z**2 - a * c)) / a


def points_at(ray: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
    return (ray * depth[:, None]).flatten(2)


def test_a_straight_tube_has_the_cylinders_depth():
    ray = rays(1.2)
    depth, exact = coarse_to_fine(straight(), None, ray), cylinder_depth(ray)
    error = ((depth - exact) / exact).abs()
    assert error[exact < 60].max() < 0.01
    assert error[exact < 100].max() < 0.03  # down there the rays graze the wall, and there is little light
    assert (exact < 60).float().mean() > 0.9


def test_an_open_tube_is_followed_to_the_far_end_and_no_further():
    depth = coarse_to_fine(straight(offset=(0.0, 0.0)), None, rays(0.02))
    assert bool((depth == FAR_MM).all())


def test_a_blind_end_is_a_wall_across():
    ray = rays(0.3)
    depth = coarse_to_fine(straight(radius=90.0, offset=(0.0, 0.0), end=WALL_Z), None, ray)
    torch.testing.assert_close(depth, torch.full_like(depth, WALL_Z), rtol=0.002, atol=0)


def test_a_ball_on_the_wall_has_the_balls_depth():
    ray = rays(0.3)
    depth = coarse_to_fine(straight(90.0, (0.0, 0.0), WALL_Z), ball_on_wall(), ray)[0]
    exact = ball_depth(ray)[0]
    away = length_of(ray)[0] / ray[0, 2]
    front = exact < WALL_Z - 0.4 * BALL  # nearer its foot the ball is rounded into the wall
    assert front.sum() > 200
    assert ((depth - exact) / exact)[front].abs().max() < 0.01
    tangent = torch.tensor(WALL_Z**2 / (WALL_Z**2 - BALL**2)).sqrt()
    beside = away > tangent * 1.02  # the silhouette, and the rounded foot
    torch.testing.assert_close(depth[beside], torch.full_like(depth[beside], WALL_Z), rtol=0.005, atol=0)


def test_a_switched_off_element_changes_nothing():
    ray, tube = rays(0.3), straight(90.0, (0.0, 0.0), WALL_Z)
    off = coarse_to_fine(tube, ball_on_wall(radius=0.0), ray)
    torch.testing.assert_close(off, coarse_to_fine(tube, None, ray), rtol=1e-3, atol=0)


def test_normals_point_from_the_wall_to_the_axis():
    ray = rays(1.2)
    points = points_at(ray, cylinder_depth(ray).float().clamp_max(100))
    normal = normals(straight(), None, points)
    inward = torch.tensor(OFFSET)[None, :, None] - points[:, :2]
    seen = (points[:, 2] < 99)[:, None].expand_as(inward)
    torch.testing.assert_close(length_of(normal), torch.ones(1, SIZE * SIZE), rtol=0, atol=1e-5)
    torch.testing.assert_close(normal[:, :2][seen], (inward / RADIUS)[seen], rtol=0, atol=0.02)


def test_normals_of_the_ball_point_away_from_its_centre():
    ray = rays(0.3)
    exact = ball_depth(ray).float()
    front = (exact < WALL_Z - 0.5 * BALL).flatten()
    points = points_at(ray, exact.nan_to_num(1.0))
    normal = normals(straight(90.0, (0.0, 0.0), WALL_Z), ball_on_wall(), points)
    outward = (points - torch.tensor([0.0, 0.0, WALL_Z])[None, :, None]) / BALL
    torch.testing.assert_close(normal[0][:, front], outward[0][:, front], rtol=0, atol=0.03)


def test_footprint_is_one_at_the_rim_and_far_away_on_the_other_side():
    ball = ball_on_wall()
    x, z = torch.tensor([[0.0, BALL, 2 * BALL, 0.0]]), torch.tensor([[WALL_Z, WALL_Z, WALL_Z, WALL_Z - 5 * BALL]])
    reach = ball.footprint(0, x, torch.zeros_like(x), z)
    torch.testing.assert_close(reach, torch.tensor([[0.0, 1.0, 2.0, 9.0]]), rtol=0, atol=1e-3)


@pytest.mark.parametrize(("a", "b", "expected"), [(1.0, 5.0, 1.0), (5.0, 1.0, 1.0), (2.0, 2.0, 1.75)])
def test_smooth_minimum_is_the_minimum_away_from_the_corner(a, b, expected):
    # in the corner itself width / 4 is taken off
    assert smooth_minimum(torch.tensor(a), torch.tensor(b), 1.0).item() == pytest.approx(expected)


def test_a_sunk_element_lies_behind_the_wall():
    flat = ball_on_wall()
    values = {field.name: getattr(flat, field.name) for field in fields(Elements)}
    dent = Elements(**(values | {"height": torch.tensor([[-3.0]]), "raised": (), "sunk": (0,)}))
    ray = rays(0.3)
    depth = coarse_to_fine(straight(90.0, (0.0, 0.0), WALL_Z), dent, ray)[0]
    assert depth[SIZE // 2, SIZE // 2].item() == pytest.approx(WALL_Z + 3.0, rel=0.01)
    assert depth[0, 0].item() == pytest.approx(WALL_Z, rel=0.01)
    assert scene_function(straight(90.0, (0.0, 0.0), WALL_Z), dent, *torch.zeros(3, 1, 1)).item() > 0


# --- what makes a tube a colon


def test_a_corner_is_a_torus():
    """Straight ahead of a corner to the right: the outer wall stands where (R + r)² = R² + ahead²."""
    tube = straight(radius=15.0, offset=(0.0, 0.0), corner_start=30.0, corner_radius=40.0)
    ahead = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1)
    depth = march(tube, None, ahead, torch.full((1, 1), 1.0), steps=300)
    assert depth.item() == pytest.approx(30 + (55.0**2 - 40.0**2) ** 0.5, rel=1e-3)


@pytest.mark.parametrize("about", [0.0, 1.0, 4.0])
def test_straighten_keeps_the_centre_line_and_its_length(about):
    tube = straight(offset=(0.0, 0.0), corner_start=20.0, corner_radius=50.0, corner_about=about)
    angle = torch.linspace(0.1, 1.4, 5)
    inward = 50 * (1 - torch.cos(angle))
    x, y, z = inward * np.cos(about), inward * np.sin(about), 20 + 50 * torch.sin(angle)
    found = tube.straighten(x[None], y[None], z[None])
    for values, wanted in zip(found, (torch.zeros(5), torch.zeros(5), 20 + 50 * angle), strict=True):
        torch.testing.assert_close(values[0], wanted, rtol=1e-4, atol=1e-3)


def test_before_its_corner_a_tube_is_untouched():
    points = torch.rand(3, 1, 20) * 15
    bent, plain = straight(corner_start=16.0), straight()
    assert torch.equal(bent.inside(*points), plain.inside(*points))


def test_a_semilunar_fold_is_on_one_side_only():
    folded = {"offset": (0.0, 0.0), "fold_depth": 4.0}
    ring, half = straight(**folded), straight(**folded, fold_gap=1.0)
    bare = straight(offset=(0.0, 0.0))
    crest = torch.zeros(1, 1)  # z = 0 is on a crest
    for x, share in ((10.0, 1.0), (-10.0, 0.0)):
        at = (torch.full((1, 1), x), torch.zeros(1, 1), crest)
        low, high = bare.inside(*at) - half.inside(*at), bare.inside(*at) - ring.inside(*at)
        assert (low / high).item() == pytest.approx(share, abs=0.01)


def test_the_wall_swells_by_no_more_than_it_should():
    points = [torch.rand(1, 4000, generator=torch.Generator().manual_seed(i)) * 40 - 10 for i in range(3)]
    flat, swollen = straight(), straight(swell=1.5, swell_rate=0.2, swell_phase=1.0)
    change = (swollen.inside(*points) - flat.inside(*points)).abs()
    assert change.max() <= 1.5 + 1e-4
    assert change.max() > 1.0
