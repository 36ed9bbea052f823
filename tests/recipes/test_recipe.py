"""The recipe of the reference weights: what it learns from, how that is varied, and that a training goes on."""

from dataclasses import replace

import depth_stages
import kornia
import pytest
import scene_cache
import torch
import train
from click.testing import CliRunner
from common import mean_of
from depth_stages import DepthStage, fresh_scenes, kept_scenes
from mirrors import lesion_free_mirrors, lesion_mirrors
from segmenter_stages import begin_from
from variation import Variation, Views, borrowed, coarsened, cut_mix, unpacked

from lesionkit.augment import Augment, AugmentConfig
from lesionkit.depth import DepthNet
from lesionkit.detector import Detector, DetectorConfig, load_depth
from lesionkit.frames import Frames, join, rendered_frames
from lesionkit.scenes import SceneConfig
from lesionkit.segmentation import DepthGuidedSegmenter

SIZE = 64


@pytest.fixture(scope="module")
def some() -> Frames:
    return rendered_frames("train", 6, SIZE, 0, SceneConfig.basic())


# --- variation


def blob(b=4, size=64) -> torch.Tensor:
    mask = torch.zeros(b, 1, size, size)
    mask[:, :, 12:30, 20:50] = 1
    mask[:, :, 30:50, 20:28] = 1
    return mask


ZOOMED_OUT = AugmentConfig(0, (0.6, 0.6), 0, 0, 0, 0, 0)


def test_a_warp_shows_the_mirrored_frame_instead_of_nothing():
    """Zoomed out, the frame takes a third of the area: all the rest is its reflection, in image and maps alike."""
    mask = blob()
    image, depth = 0.3 + 0.6 * mask.repeat(1, 3, 1, 1), 10 + 30 * mask
    torch.manual_seed(0)
    seen, moved, away = Variation(ZOOMED_OUT, light=0)(image, mask, depth)
    assert seen.min() > 0.25
    assert set(away.unique().tolist()) == {10.0, 40.0}
    assert torch.equal(away == 40, moved == 1)
    assert ((seen[:, :1] > 0.6).float() == moved).float().mean() > 0.96
    torch.manual_seed(0)
    _, alone = Augment(ZOOMED_OUT)(image, mask)
    assert moved.sum() > 1.3 * alone.sum()  # reflections of the lesion are lesions


def test_uneven_light_changes_the_image_alone():
    image, mask = torch.full((4, 3, SIZE, SIZE), 0.5), blob()
    lit = Variation(replace(ZOOMED_OUT, scale=(1, 1)), light=1)
    *_, light = lit.stages.children()
    lit.stages = kornia.augmentation.AugmentationSequential(light, data_keys=None)
    torch.manual_seed(1)
    changed, same, depth = lit(image, mask, mask * 7 + 1)
    assert (changed - image).abs().mean() > 0.02
    assert torch.equal(same, mask)
    assert torch.equal(depth, mask * 7 + 1)


def test_mixed_images_get_a_rectangle_of_the_one_before_with_its_maps():
    """Flat images numbered 0 to 511 as image, mask and depth: all places hold the own number or the one before."""
    numbers = torch.arange(512.0).view(-1, 1, 1, 1).expand(-1, 1, 40, 64)
    torch.manual_seed(0)
    image, depth = cut_mix([numbers.expand(-1, 3, -1, -1), numbers], 0.5)
    assert torch.equal(image[:, 2:], depth)
    own = depth == numbers
    assert ((depth == numbers.roll(1, 0)) | own).all()
    mixed = ~own.flatten(1).all(1)
    assert 0.4 < mixed.float().mean() < 0.6
    for other in ~own[mixed][:50, 0]:  # a rectangle: all of the rows and columns that it touches
        assert torch.equal(other, other.any(0) & other.any(1)[:, None])
    area = 1 - own[mixed].float().mean((1, 2, 3))
    assert 0.1 < area.mean() < 0.3
    assert area.max() <= 0.55


def test_mixing_is_off_unless_asked_for():
    image, mask = torch.full((4, 3, SIZE, SIZE), 0.5), blob()
    results = []
    for mix in (0.0, 1.0):
        torch.manual_seed(0)
        results.append(Variation(replace(ZOOMED_OUT, scale=(1, 1)), light=0, mix=mix)(image, mask)[1])
    plain, mixed = results
    assert not torch.equal(plain, mixed)
    assert plain.sum() > 0


def test_borrowed_colours_are_those_of_the_image_before():
    """Mean and deviation of what is not black; the black stays, and where nothing is borrowed all stays."""
    torch.manual_seed(0)
    image = 0.3 + 0.05 * torch.randn(3, 3, 32, 32) + torch.tensor([0.0, 0.1, 0.3]).view(3, 1, 1, 1)
    image[..., :4] = 0
    assert torch.equal(borrowed(image, 0.0), image)
    dressed = borrowed(image, 1.0)
    assert (dressed[..., :4] == 0).all()
    tissue, before = dressed[..., 4:], image.roll(1, 0)[..., 4:]
    torch.testing.assert_close(tissue.mean((2, 3)), before.mean((2, 3)), atol=0.01, rtol=0)
    torch.testing.assert_close(tissue.std((2, 3)), before.std((2, 3)), atol=0.01, rtol=0)


def test_a_checkpoint_knows_its_variation():
    """By its text: the same in another process, and another where mixing is another."""
    assert repr(Variation()) == repr(Variation())
    assert " at 0x" not in repr(Variation())
    assert len({repr(Variation()), repr(Variation(mix=0.5)), repr(Variation(looks=0.5))}) == 3


# --- views


def ramps(b: int, side: int = 64) -> torch.Tensor:
    """b×3×s×s: x, y and a constant, each in [0, 1], so that a view says where it is."""
    at = (torch.arange(side) + 0.5) / side
    return torch.stack([at.expand(side, side), at[:, None].expand(side, side), torch.full((side, side), 0.5)]).repeat(
        b, 1, 1, 1
    )


def views(view: torch.Tensor) -> list[torch.Tensor]:
    """Views without colours of ramps, with x as the depth."""
    torch.manual_seed(0)
    stages, image = Views(), ramps(len(view))
    stages.colours = torch.nn.Identity()
    return stages(image, image[:, :1], view)


def disc(b: int, side: int = 64) -> torch.Tensor:
    x, y = ramps(1, side)[0, :2] - 0.5
    return (x**2 + y**2 < 0.25).float().expand(b, 1, side, side)


def test_views_move_maps_with_the_image():
    image, depth, _ = views(torch.ones(32, 1, 64, 64))
    assert (image[:, :1] - depth).abs().max() < 1.01 / 64  # bilinear and nearest differ by a pixel at most


def test_views_show_every_symmetry_and_keep_most_of_a_full_frame():
    image, *_ = views(torch.ones(64, 1, 64, 64))
    x, y = image[:, 0], image[:, 1]
    corners = torch.stack([x[:, 0, 0] > 0.5, y[:, 0, 0] > 0.5, (x[:, 0, -1] > 0.5) == (x[:, 0, 0] > 0.5)], 1)
    assert len(corners.unique(dim=0)) == 8
    spread = x.flatten(1).max(1).values - x.flatten(1).min(1).values
    assert spread.min() > Views.SMALLEST - 0.05
    assert spread.max() > 0.95


def test_views_cut_most_round_frames_to_the_square_within():
    _, _, view = views(disc(200))
    inside = view.mean((1, 2, 3)) > 0.97
    assert 0.5 < inside.float().mean() < 0.7


def test_views_vary_colours_of_the_image_alone():
    torch.manual_seed(0)
    image, depth, view = Views()(ramps(8), ramps(8)[:, :1], torch.ones(8, 1, 64, 64))
    assert image.min() >= 0
    assert image.max() <= 1
    assert (image[:, 2] - 0.5).abs().mean() > 0.02
    assert depth.max() <= 1
    assert set(view.unique().tolist()) == {1.0}


def test_views_make_floats_of_what_is_kept_in_few_bytes():
    image, depth, view = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8), torch.rand(4, 1, 64, 64), disc(4)
    found = []
    for packed in ((image, depth.half(), view.bool()), (image / 255, depth.half().float(), view)):
        torch.manual_seed(0)
        found.append(Views()(*packed))
    for few, whole in zip(*found, strict=True):
        assert few.dtype == torch.float32
        assert torch.equal(few, whole)


# --- halves and their mirror images


def _painted(some: Frames) -> Frames:
    """The lesions are painted blue."""
    blue = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1)
    image = torch.where(some.mask > 0, blue, some.image.clamp_max(0.9))
    return Frames(image, image, some.mask, torch.ones_like(some.mask), some.names, some.depth, some.lesions)


def test_lesion_free_mirrors_show_no_lesion(some):
    """Not a trace of the lesions' blue may be in them."""
    free = lesion_free_mirrors(_painted(some), 4, seed=0)
    assert 0 < len(free) <= 4
    assert free.mask.sum() == 0
    assert not free.has_lesion.any()
    assert not ((free.image[:, 2] > 0.95) & (free.image[:, 0] < 0.05)).any()
    assert len(set(free.names)) == len(free)
    assert all(name.rpartition("-")[0] in some.names for name in free.names)
    assert free.depth.shape == free.mask.shape
    assert free.image.shape[2:] == some.image.shape[2:]


def test_frames_filled_by_lesions_give_no_mirror(some):
    full = Frames(some.raw, some.image, torch.ones_like(some.mask), some.view, some.names)
    assert len(lesion_free_mirrors(full, 4)) == 0


def test_a_mirror_is_half_of_a_frame_and_its_reflection(some):
    painted = _painted(some)
    for free in (lesion_free_mirrors(painted, 6, seed=s)[i : i + 1] for s in range(3) for i in range(2)):
        source = painted.image[painted.names.index(free.names[0].removesuffix("-mirror"))]
        halves = [source[:, : SIZE // 2], source[:, SIZE // 2 :], source[..., : SIZE // 2], source[..., SIZE // 2 :]]
        image = free.image[0]
        symmetric = [dim for dim in (1, 2) if torch.equal(image, image.flip(dim))]
        assert symmetric
        dim = symmetric[0]
        parts = image.split(SIZE // 2, dim)
        assert any(torch.equal(part, half) for part in parts for half in halves if half.shape == part.shape)


def test_lesion_mirrors_hold_every_lesion_twice():
    mask = torch.zeros(3, 1, SIZE, SIZE)
    mask[0, :, 10:20, 40:60] = 1  # up on the right
    mask[1, :, 10:20, 4:60] = 1  # across, but in the upper half
    mask[2, :, 20:44, 20:44] = 1  # in the middle: no half holds it
    image = mask.repeat(1, 3, 1, 1)
    found = lesion_mirrors(Frames(image, image, mask, torch.ones_like(mask), ("a", "b", "c")))
    assert found.names == ("a-mirror", "b-mirror")
    assert found.mask.flatten(1).sum(1).tolist() == [2 * 200, 2 * 560]
    assert torch.equal(found.image[:, :1], found.mask)


# --- what depth is learned from


def test_kept_scenes_are_the_frames_of_the_training_stream(tmp_path, monkeypatch):
    monkeypatch.setattr(scene_cache, "default_folder", lambda: tmp_path)
    configs = SceneConfig.basic(), SceneConfig.standard()
    data = kept_scenes([(config, 3, seed) for seed, config in enumerate(configs)], 32)
    wanted = join([rendered_frames("train", 3, 32, seed, config) for seed, config in enumerate(configs)])
    assert {name: value.dtype for name, value in data.items()} == {
        "image": torch.uint8, "mask": torch.bool, "depth": torch.float16, "view": torch.bool,
    }  # fmt: skip
    for name, values in zip(data, unpacked(*data.values()), strict=True):
        torch.testing.assert_close(values, getattr(wanted, name), rtol=1e-3, atol=0.5001 / 255)


def test_scenes_straight_from_the_renderer_are_the_next_of_the_same_stream(tmp_path, monkeypatch):
    monkeypatch.setattr(scene_cache, "default_folder", lambda: tmp_path)
    wanted = [(SceneConfig.basic(), 3, 0), (SceneConfig.hard(), 2, 1)]
    kept = kept_scenes([(config, 2 * count, seed) for config, count, seed in wanted], 32)
    files = sorted(tmp_path.rglob("*"))
    first, next_ = (fresh_scenes(wanted, 32, "auto", first) for first in (0, 2))
    assert sorted(tmp_path.rglob("*")) == files  # nothing is kept
    for found, rows in ((first, [0, 1, 2, 6, 7]), (next_, [2, 3, 4, 8, 9])):
        for values, expected in zip(unpacked(*found.values()), unpacked(*kept.values()), strict=True):
            torch.testing.assert_close(values, expected[rows], rtol=1e-3, atol=1.001 / 255)


# --- the trainings


@pytest.mark.parametrize("renewed", [0, 1], ids=["kept", "fresh"])
def test_a_depth_training_goes_on_where_it_stopped(tmp_path, monkeypatch, renewed):
    """Called again it finds the files of its stages and gives the same weights; a network that is there already goes
    through the last stage alone."""
    monkeypatch.setattr(scene_cache, "default_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(depth_stages, "SCENE_PX", SIZE)
    monkeypatch.setattr(depth_stages, "DRAWING", 0)
    stages = [DepthStage({"standard": n}, (SIZE,), 1, 1e-3, 4, "fp32", renewed) for n in (8, 4)]

    def trained(out, net=None):
        return depth_stages.train(out, torch.device("cpu"), 0, None, 1.0, stages, net).state_dict()

    once, again = trained(tmp_path), trained(tmp_path)
    files = [f"{'fresh-' if renewed else ''}depth-{n}.safetensors" for n in (1, 2)]
    first, second = (load_depth(tmp_path / name).state_dict() for name in files)
    assert any(not torch.equal(first[name], second[name]) for name in first)
    begun = trained(tmp_path / "begun", load_depth(tmp_path / files[0]))
    assert {path.name for path in (tmp_path / "begun").glob("*.safetensors")} == {"depth.safetensors", files[1]}
    for state in (once, again, begun, load_depth(tmp_path / "depth.safetensors").state_dict()):
        assert all(torch.equal(state[name], value) for name, value in second.items())


def test_a_share_of_none_leaves_the_encoder_that_a_stage_began_from(tmp_path, monkeypatch):
    monkeypatch.setattr(scene_cache, "default_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(depth_stages, "SCENE_PX", SIZE)
    stage, net = DepthStage({"standard": 4}, (SIZE,), 1, 1e-2, 4, "fp32", share=0.0), DepthNet(pretrained=False)
    before = {name: value.clone() for name, value in net.state_dict().items() if value.is_floating_point()}
    after = depth_stages.train(tmp_path, torch.device("cpu"), 0, None, 1.0, [stage], net).state_dict()
    same = {name for name, value in before.items() if torch.allclose(after[name], value)}
    encoder = {name for name in before if name.startswith("global_net.encoder.")}
    assert encoder <= same
    assert any(name not in same for name in before.keys() - encoder)


def test_coarse_images_have_half_the_pixels_and_stay_in_place():
    torch.manual_seed(0)
    image = ramps(64)
    found = coarsened(image + 0.2 * torch.rand_like(image), 0.5)
    rough = (found - image).diff(dim=3).abs().mean((1, 2, 3))
    smooth = rough < 0.5 * rough.max()
    assert 0.3 < smooth.float().mean() < 0.7
    assert (found - image - 0.1).mean((2, 3)).abs().max() < 0.02
    assert torch.equal(coarsened(image, 0.0), image)


def test_the_mean_of_weights_by_hand():
    states = [(0.25, {"w": torch.tensor([4.0]), "steps": torch.tensor(3)}), (0.75, {"w": torch.tensor([8.0])})]
    assert mean_of(states) == {"w": torch.tensor([7.0]), "steps": torch.tensor(3)}


def test_forks_begin_from_what_other_weights_have_of_the_same_kind(tmp_path):
    nets = [DepthGuidedSegmenter(kind, "small", pretrained=False) for kind in ("plain", "depth")]
    config = DetectorConfig(guidance="plain", encoder="small")
    weights = Detector(DepthNet(pretrained=False), nets[0], config, "cpu").save(tmp_path / "plain.safetensors")
    before = {name: value.clone() for name, value in nets[1].state_dict().items()}
    begin_from(nets[1], str(weights))
    for name, value in nets[1].state_dict().items():
        of_branch = name.startswith(("depth_features", "attention"))
        expected = before[name] if of_branch else nets[0].state_dict()[name]
        torch.testing.assert_close(value, expected, atol=1e-3, rtol=1e-3)


def test_the_command_trains_on_published_parts_only():
    refused = CliRunner().invoke(train.main, ["--out", "nowhere", "--split", "elsewhere"])
    assert refused.exit_code == 2
    assert "'pranet', 'sequence'" in refused.output
