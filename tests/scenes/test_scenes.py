"""Rendered scenes: streams, labels that belong to the picture, and light that belongs to the depth."""

import json
import multiprocessing
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from types import GeneratorType

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from lesionkit.scenes import SceneConfig, SceneError, Scenes, render, render_scenes, stream_scenes
from lesionkit.scenes.camera import Camera, aperture, camera_rays
from lesionkit.scenes.config import MAX_ELEMENTS
from lesionkit.scenes.march import NEAR_MM, coarse_to_fine, evaluated_by, march, scene_function
from lesionkit.scenes.render import as_tensors, place_elements
from lesionkit.scenes.sampling import sample_scenes
from lesionkit.scenes.surface import FAR_MM, Tube, inside

NAMES = ("basic", "standard", "hard", "examination", "blind_end")
CONFIGS = {name: getattr(SceneConfig, name)() for name in NAMES}
# Python 3.12 warns of every fork beside threads; torch's DataLoader forks, and its workers only draw numbers
FORKS = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
SMOOTH = replace(SceneConfig.basic(), lesion_free=1.0, fold_depth_mm=(0.0, 0.0), noise=(0.0, 0.0))


@pytest.fixture(scope="module")
def some() -> dict[str, Scenes]:
    return {name: render_scenes(12, 64, 0, "cpu", config) for name, config in CONFIGS.items()}


def assert_equal(a: Scenes, b: Scenes) -> None:
    """The same pictures up to the order of additions, which may differ with the size of a batch."""
    for name in ("image", "depth"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(a.instance, b.instance, rtol=0, atol=0)
    assert [[one.paris for one in lesions] for lesions in a.lesions] == [
        [one.paris for one in lesions] for lesions in b.lesions
    ]


# --- streams


def test_same_seed_same_scenes_and_another_seed_others(some):
    again = render_scenes(12, 64, 0, "cpu", SceneConfig.hard())
    for name in ("image", "depth", "mask", "instance"):
        assert torch.equal(getattr(again, name), getattr(some["hard"], name))
    assert again.lesions == some["hard"].lesions
    other = render_scenes(12, 64, 1, "cpu", SceneConfig.hard())
    assert bool(((other.image - again.image).abs().amax(dim=(1, 2, 3)) > 0.1).all())


def test_no_two_scenes_of_a_stream_are_the_same(some):
    depth = some["standard"].depth.flatten(1)
    distance = torch.cdist(depth, depth) + torch.eye(12) * 1e9
    assert distance.min() > 10


def test_the_global_generators_are_neither_read_nor_moved(some):
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    assert torch.equal(render_scenes(2, 64, 0, "cpu", SceneConfig.hard()).image[:1], render_scenes(
        2, 64, 0, "cpu", SceneConfig.hard()).image[:1])  # fmt: skip
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))


def test_a_scene_does_not_depend_on_batch_chunk_or_first(some, monkeypatch):
    whole = some["hard"]
    assert_equal(render_scenes(1, 64, 0, "cpu", SceneConfig.hard(), first=7), whole[7:8])
    monkeypatch.setattr(render, "CHUNK", 5)
    assert_equal(render_scenes(12, 64, 0, "cpu", SceneConfig.hard()), whole)
    assert_equal(render_scenes(6, 64, 0, "cpu", SceneConfig.hard(), first=4), whole[4:10])


@FORKS
def test_scenes_drawn_ahead_by_other_processes_are_the_same(some, monkeypatch):
    monkeypatch.setattr(render, "CHUNK", 3)
    config = SceneConfig.hard()
    assert_equal(render_scenes(12, 64, 0, "cpu", config, workers=2), some["hard"])


@FORKS
def test_drawing_ahead_leaves_the_global_generators_alone_and_no_process_behind(monkeypatch):
    monkeypatch.setattr(render, "CHUNK", 1)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    stream = stream_scenes(10**6, 32, 0, "cpu", SceneConfig.basic(), workers=2)
    assert len(next(stream)) == 1
    assert len(multiprocessing.active_children()) == 2
    stream.close()
    assert not multiprocessing.active_children()
    assert torch.equal(torch.rand(1), expected)


@FORKS
def test_what_fails_in_a_process_that_draws_reaches_who_asked():
    impossible = replace(SceneConfig.basic(), classes=("0-IV",))
    with pytest.raises(KeyError, match="0-IV"):
        render_scenes(4, 32, 0, "cpu", impossible, workers=1)


def test_a_gpu_renders_as_many_at_a_time_as_its_memory_is_meant_for():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert render.chunk_size(128, cpu) == render.chunk_size(512, cpu) == render.CHUNK
    assert [render.chunk_size(size_px, gpu) for size_px in (32, 128, 256, 4096)] == [512, 512, 128, 1]


def test_streaming_renders_a_chunk_when_it_is_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(render, "_render", lambda drawn, *rest: asked.append(len(drawn.paris)) or "a chunk")
    stream = stream_scenes(10**9, 64, 0, "cpu")
    assert isinstance(stream, GeneratorType)
    assert [next(stream), next(stream)] == ["a chunk"] * 2
    assert asked == [render.CHUNK] * 2


# --- labels


@pytest.mark.parametrize("name", CONFIGS)
def test_masks_instances_and_areas_agree(some, name):
    scene = some[name]
    assert set(scene.mask.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(scene.mask > 0, scene.instance > 0)
    for instance, lesions in zip(scene.instance, scene.lesions, strict=True):
        counted = {int(i): int((instance == i).sum()) for i in instance.unique() if i > 0}
        assert counted == {lesion.index: lesion.area_px for lesion in lesions}
        assert all(area >= render.MIN_VISIBLE_PX for area in counted.values())


@pytest.mark.parametrize("name", CONFIGS)
def test_lesions_are_what_the_configuration_says(some, name):
    config, lesions = CONFIGS[name], [one for lesions in some[name].lesions for one in lesions]
    low, high = config.size_mm
    assert lesions
    for one in lesions:
        assert one.paris in config.classes
        assert config.contrast[0] <= one.contrast <= config.contrast[1]
        # close to the lens a lesion is kept small: a radius of a third of the distance at the most
        clamped = one.size_mm == pytest.approx(0.66 * one.distance_mm, rel=1e-4)
        assert clamped or low <= one.size_mm * (1 + 1e-6)
        assert one.size_mm <= high * (1 + 1e-6)
    assert max(len(lesions) for lesions in some[name].lesions) <= config.lesions[1]


def test_size_belongs_to_what_is_seen():
    """A lesion that faces the camera covers about the area of its diameter at its distance."""
    config = replace(SceneConfig.basic(), classes=("0-Is",), fold_depth_mm=(0.0, 0.0), view_degrees=(90.0, 90.0))
    scene, ratios = render_scenes(24, 64, 3, "cpu", config), []
    for lesions in scene.lesions:
        for one in lesions:
            diameter_px = one.size_mm / one.distance_mm * 32  # 32 px to the mm at a distance of one mm
            ratios.append(one.area_px / (3.1416 / 4 * diameter_px**2))
    assert 0.5 < float(np.median(ratios)) < 1.5


def test_the_share_of_lesion_free_frames():
    none = render_scenes(48, 32, 0, "cpu", replace(SceneConfig.basic(), lesion_free=1.0))
    assert none.mask.sum() == 0
    half = render_scenes(112, 32, 0, "cpu", replace(SceneConfig.basic(), lesion_free=0.5))
    share = np.mean([not lesions for lesions in half.lesions])
    assert 0.36 < share < 0.66  # three deviations; a few lesions are hidden behind a fold
    with_lesion = render_scenes(48, 32, 0, "cpu", SceneConfig.basic())
    assert np.mean([bool(lesions) for lesions in with_lesion.lesions]) > 0.85


# --- picture and depth


@pytest.mark.parametrize("name", CONFIGS)
def test_values(some, name):
    scene = some[name]
    assert scene.image.min() >= 0
    assert scene.image.max() <= 1
    assert NEAR_MM <= scene.depth.min() < 15
    assert scene.depth.max() <= FAR_MM
    red, _, blue = scene.image.mean(dim=(0, 2, 3))
    assert red > 1.3 * blue  # mucosa


def test_near_is_small_and_bright():
    scene = render_scenes(8, 64, 2, "cpu", SMOOTH)
    for image, depth in zip(scene.image, scene.depth, strict=True):
        seen = image.amax(dim=0) > 0.02
        rank = spearmanr(image.mean(dim=0)[seen].numpy(), -depth[0][seen].numpy()).statistic
        assert rank > 0.6


def test_a_lesion_stands_out_of_the_wall():
    """With the same draws but without relief the lesion's pixels are further away."""
    config = replace(SceneConfig.basic(), classes=("0-Is",))
    raised, flat = (render_scenes(8, 64, 4, "cpu", replace(config, classes=(paris,))) for paris in ("0-Is", "0-IIb"))
    both = (raised.mask > 0) & (flat.mask > 0)
    assert both.sum() > 300
    assert (flat.depth - raised.depth)[both].median() > 0.5


def test_outside_the_aperture_it_is_black_and_no_lesion():
    scene = render_scenes(24, 64, 0, "cpu", SceneConfig.hard())
    dark_corner = (scene.image[:, :, :2, :2].amax(dim=(1, 2, 3)) == 0).nonzero().flatten().tolist()
    assert 6 < len(dark_corner) < 24  # seven of ten frames have a round or octagonal aperture
    for i in dark_corner:
        outside = scene.image[i].amax(dim=0) == 0
        assert outside.float().mean() > 0.03
        assert scene.mask[i, 0][outside].sum() == 0


@pytest.mark.parametrize("change", [{}, {"aspect": (1.33, 1.33)}, {"distortion": (0.3, 0.3)}])
def test_the_camera_matrix_projects_depth_back_to_its_pixels(change):
    """Points from depth, rays and lens; matrix and distortion take them back to where they were seen."""
    config = replace(SMOOTH, **change)
    scene = render_scenes(2, 64, 1, "cpu", config)
    lens = as_tensors(Camera, sample_scenes(1, [config], range(2)).camera, torch.device("cpu"))
    rays = camera_rays(replace(lens, rotation=torch.eye(3).expand(2, 3, 3)), 64)
    x, y, z = (rays * scene.depth).unbind(1)
    fx, fy = scene.intrinsics[:, 0, 0, None, None], scene.intrinsics[:, 1, 1, None, None]
    u, v = fx * x / z, fy * y / z  # undistorted, in pixels from the centre
    side = torch.arange(64) + 0.5 - 32
    k, radius2 = scene.distortion[:, None, None], (side[:, None] ** 2 + side[None] ** 2) / 32**2
    torch.testing.assert_close(u, (side[None, None] * (1 + k * radius2)).expand_as(u), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(v, (side[None, :, None] * (1 + k * radius2)).expand_as(v), rtol=1e-4, atol=1e-3)
    assert torch.equal(scene.intrinsics[:, :2, 2], torch.full((2, 2), 32.0))


def test_lookalikes_are_no_lesions():
    """All kinds of them, and not a pixel in the mask; bubbles and diverticula change the depth all the same."""
    config = replace(SMOOTH, lookalikes=(2, 2), odd_lookalikes=1.0)
    bare = replace(config, lookalikes=(0, 0))
    with_them, without = (render_scenes(16, 64, 5, "cpu", one) for one in (config, bare))
    assert with_them.mask.sum() == 0
    assert not any(with_them.lesions)
    changed = (with_them.depth - without.depth).abs().amax(dim=(1, 2, 3))
    assert (changed > 0.3).float().mean() > 0.3
    heights = sample_scenes(5, [config], range(40)).shape["height"]
    assert heights.min() < 0 < heights.max()


# --- configurations and errors


def test_configurations_are_named_frozen_and_ordered():
    assert [config.name for config in CONFIGS.values()] == list(CONFIGS)
    for config in CONFIGS.values():
        with pytest.raises(FrozenInstanceError):
            config.noise = (0.0, 0.0)
    assert CONFIGS["basic"].contrast[0] > CONFIGS["standard"].contrast[0] > CONFIGS["hard"].contrast[0] == 0
    assert set(CONFIGS["basic"].classes) < set(CONFIGS["standard"].classes) < set(CONFIGS["hard"].classes)
    for config in CONFIGS.values():
        assert config.lesions[1] + config.lookalikes[1] <= MAX_ELEMENTS


def middle_is_far(config: SceneConfig) -> float:
    """Mean rank correlation of depth with the nearness to the frame's middle."""
    side = torch.linspace(-1, 1, 32)
    nearness = -(side[:, None] ** 2 + side[None] ** 2)
    depth = render_scenes(96, 32, 4, "cpu", config).depth
    return float(np.mean([spearmanr(one.flatten().numpy(), nearness.flatten().numpy()).statistic for one in depth]))


def test_an_examination_looks_along_the_lumen_and_at_a_blind_end():
    hard, along, ahead = (middle_is_far(CONFIGS[name]) for name in ("hard", "examination", "blind_end"))
    assert hard + 0.08 < min(along, ahead)


def test_a_rounder_rim_makes_a_bowl_of_a_blind_end():
    """What closes the tube comes nearer off the middle, where a flat end is as far as in the middle."""
    flat, bowl = (
        render_scenes(1, 64, 1, "cpu", replace(
            SMOOTH, blind=1.0, end_mm=(40.0, 40.0), end_round_mm=(width, width), tilt_degrees=0.0, off_centre=0.0,
            radius_mm=(26.0, 26.0), view_degrees=(90.0, 90.0),
        )).depth[0, 0]
        for width in (6.0, 40.0)
    )  # fmt: skip
    assert flat[32, 32] == pytest.approx(40.0, rel=0.01)
    assert flat[32, 40] == pytest.approx(40.0, rel=0.02)
    assert bowl[32, 40] < 0.9 * bowl[32, 32]


@pytest.mark.parametrize("change", [{"n": 0}, {"n": -1}, {"size_px": 30}, {"size_px": 33}, {"size_px": 28}])
def test_what_cannot_be_rendered_is_refused(change):
    with pytest.raises(SceneError, match="cannot render") as caught:
        render_scenes(**({"n": 1, "size_px": 32, "device": "cpu"} | change))
    assert "\n" not in str(caught.value)


def test_slices_and_joins_keep_lesions_with_their_pictures(some):
    parts = [some["hard"][:5], some["hard"][5:]]
    joined = Scenes.join(parts)
    assert len(parts[0]) == 5
    assert joined.lesions == some["hard"].lesions
    assert torch.equal(joined.instance, some["hard"].instance)


# --- exactness


@pytest.mark.parametrize("name", CONFIGS)
def test_drawn_scenes_depth_is_that_of_a_long_plain_march(name):
    """Against 300 short steps from the lens, without the shortcuts of `coarse_to_fine`."""
    drawn, cpu = sample_scenes(0, [CONFIGS[name]], range(2)), torch.device("cpu")
    tube, camera = as_tensors(Tube, drawn.tube, cpu), as_tensors(Camera, drawn.camera, cpu)
    rays = camera_rays(camera, 64)
    elements = place_elements(drawn, tube, rays, aperture(camera, 64))
    depth = coarse_to_fine(tube, elements, rays).flatten(1)
    exact = march(tube, elements, rays.flatten(2), torch.full_like(depth, NEAR_MM), steps=300, slope=2.2)
    error = ((depth - exact) / exact)[exact < 120].abs()
    assert (error > 0.01).float().mean() < 0.03  # rays that graze an edge may take it or pass it by
    points = rays.flatten(2) * depth[:, None]
    left = scene_function(tube, elements, *points.unbind(1)).abs() / depth
    # deep folds of `examination` leave a few rays short
    assert left[depth < 120].quantile(0.95 if name == "examination" else 0.97) < 0.003


def test_another_program_computes_f_while_it_is_asked_to():
    asked = []

    def program(*arguments):
        asked.append(arguments)
        return inside(*arguments)

    plain = render_scenes(1, 32, 0, "cpu", CONFIGS["basic"])
    with evaluated_by(program):
        assert torch.equal(render_scenes(1, 32, 0, "cpu", CONFIGS["basic"]).image, plain.image)
    during = len(asked)
    render_scenes(1, 32, 0, "cpu", CONFIGS["basic"])
    assert len(asked) == during > 100


CAN_COMPILE = shutil.which("c++") and (Path(sysconfig.get_path("include")) / "Python.h").exists()
COMPARED = """
import json
from lesionkit.scenes import SceneConfig, compiled, render_scenes

def scenes():
    return [render_scenes(3, 48, 5, "cpu", config) for config in (SceneConfig.basic(), SceneConfig.hard())]

plain = scenes()
with compiled():
    others = scenes()
for one, other in zip(plain, others):
    assert not (one.depth == other.depth).all()  # another program ran: not even the rounding would differ
    apart = (one.depth - other.depth).abs() / one.depth
    print(json.dumps({
        "median": apart.median().item(), "far_off": (apart > 0.01).float().mean().item(),
        "image": (one.image - other.image).abs().mean().item(),
        "lesions": [len(found) for found in one.lesions] == [len(found) for found in other.lesions],
    }))
"""


@pytest.mark.skipif(not CAN_COMPILE, reason="torch.compile needs a C++ compiler and Python's headers")
def test_compiled_scenes_are_the_same_up_to_rounding():
    # in a process of its own: torch.compile cannot see through the type checks that the tests put around every function
    done = subprocess.run([sys.executable, "-c", COMPARED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 2
    for row in rows:
        assert row["median"] < 1e-5
        assert row["far_off"] < 0.01
        assert row["image"] < 1e-3
        assert row["lesions"]
