"""The explorer's state without a browser: what follows from a choice, what is undone, saved, and refused."""

import json
import zlib
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from lesionkit import metrics
from lesionkit.datasets import DatasetError
from lesionkit.datasets.reading import header_size
from lesionkit.depth import DepthNet, gradient_magnitude
from lesionkit.detector import Detector, DetectorConfig
from lesionkit.explore import whatif
from lesionkit.explore.checks import StateError
from lesionkit.explore.images import SampleImage, SceneImage
from lesionkit.explore.pictures import TABLES, note, panels, quantised, table
from lesionkit.explore.state import PANELS, Choice, ExplorerState
from lesionkit.explore.whatif import Stroke
from lesionkit.segmentation import DepthGuidedSegmenter


def make_detector(guidance: str = "depth") -> Detector:
    """Small, random, and with an attention that listens to its map (fresh layers begin as zeros)."""
    torch.manual_seed(3)
    segmenter = DepthGuidedSegmenter(guidance, "small")
    depth = DepthNet()
    for layer in segmenter.attention:
        torch.nn.init.normal_(layer.layer.weight, std=0.2)
    for net in (depth.local_net, depth.refine_net, depth.global_net):
        torch.nn.init.normal_(net.head.weight, std=0.3)
    return Detector(depth, segmenter, DetectorConfig(size_px=64, depth_px=0, guidance=guidance, encoder="small"), "cpu")


@pytest.fixture(scope="module")
def detector() -> Detector:
    return make_detector()


@pytest.fixture
def state(detector) -> ExplorerState:
    # a threshold that cuts through this random model's answer, so that masks are neither empty nor full
    detector.threshold = round(float(np.quantile(ExplorerState(detector).probability(), 0.8)), 3)
    return ExplorerState(detector)


def encoded(image: np.ndarray, ending: str = ".png") -> bytes:
    return cv2.imencode(ending, image)[1].tobytes()


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(60, 200, shape).astype(np.uint8)


# --- what follows from a choice -----------------------------------------------------------------------


def test_untouched_it_answers_as_the_detector_does(state, detector):
    found = detector(state.shown.loaded.image)
    np.testing.assert_allclose(state.probability(), found.probability, atol=1e-6)
    for mine, its in zip(state.outcome.attention, found.attention, strict=True):
        np.testing.assert_allclose(mine[0, 0].numpy(), its, atol=1e-6)
    assert all(row["change"] in (0, None) for row in state.numbers().values())


@pytest.mark.parametrize(
    "change", [{"guidance": "flat"}, {"guidance": "other"}, {"guidance": "off"}, {"relief": -1.0}, {"relief": 3.0}]
)
def test_another_depth_changes_the_answer_and_not_the_original(state, change):
    before = state.probability(original=True)
    state.set_guidance(**change)
    assert np.abs(state.probability() - before).max() > 1e-4  # far above rounding; the model is random
    np.testing.assert_array_equal(state.probability(original=True), before)
    assert state.numbers()["probability_area"]["change"] != 0


def test_attention_off_passes_the_image_features_as_they_are(state, detector):
    state.set_guidance("off")
    assert all((w == 1).all() for w in state.outcome.attention)
    logits = detector.segmenter.decoder(list(state.shown.features))
    torch.testing.assert_close(state.outcome.probability, torch.sigmoid(logits).detach() * state.shown.view)


def test_depth_of_another_image_is_that_images_depth(state, detector):
    state.set_guidance("other", other=2)
    donor = ExplorerState(detector, image=state.now.image.another(2))
    torch.testing.assert_close(state.outcome.depth, donor.shown.depths.target)
    assert donor.now.image != state.now.image


def test_a_model_without_depth_guidance_does_not_move_and_says_why():
    state = ExplorerState(make_detector("luminance"))
    state.set_guidance("flat")
    np.testing.assert_allclose(state.probability(), state.probability(original=True), atol=1e-6)
    assert "not by depth" in note(state)
    state.set_guidance("off", relief=1.0)
    assert np.abs(state.probability() - state.probability(original=True)).max() > 1e-4


def test_numbers_are_those_of_the_metrics(state):
    mask, truth = state.probability() > state.now.threshold, state.shown.loaded.truth
    numbers = {name: row["now"] for name, row in state.numbers().items()}
    assert numbers["sensitivity"] == pytest.approx(metrics.sensitivity(mask, truth))
    assert numbers["dice"] == pytest.approx(metrics.dice(mask, truth))
    assert numbers["false_area"] == pytest.approx((mask & ~truth).mean())
    assert numbers["false_positives"] == metrics.lesion_matches(mask, truth).false_components
    assert 0.05 < numbers["mask_area"] < 0.4


def test_the_threshold_moves_mask_and_sensitivity_and_runs_no_network(state):
    state.numbers()
    runs, areas, found = state.runs, [], []
    for threshold in (0.0, state.now.threshold, 1.0):
        state.set_threshold(threshold)
        areas.append(state.numbers()["mask_area"]["now"])
        found.append(state.numbers()["sensitivity"]["now"])
    seen = float(state.shown.view.mean())  # a circle
    assert areas[0] == pytest.approx(seen, abs=0.05)
    assert areas[0] > areas[1] > areas[2] == 0
    assert found[0] >= found[1] >= found[2] == 0
    assert state.runs == runs


def test_what_was_computed_once_is_not_computed_again(state):
    state.set_guidance("flat")
    state.numbers()
    runs = state.runs
    state.undo()
    state.redo()
    state.numbers()
    state.set_guidance(relief=2.0)  # a flat depth has no relief
    state.numbers()
    assert state.runs == runs


# --- the depth painted and bent -----------------------------------------------------------------------


def bumpy(size: int = 64) -> torch.Tensor:
    """A slanted wall with one bump, nearer than its surroundings, in the middle."""
    side = torch.linspace(-1, 1, size)
    bump = torch.exp(-((side[:, None] ** 2 + side[None] ** 2) / 0.01))
    return ((30 + 10 * side[None] + 0 * side[:, None]) * (1 - 0.2 * bump))[None, None]


def test_relief_is_kept_smoothed_exaggerated_and_inverted():
    depth, middle = bumpy(), (0, 0, 32, 32)
    level = {factor: float(whatif.exaggerate(depth, factor)[middle].log()) for factor in (0.0, 1.0, 2.0, -1.0)}
    height = level[0.0] - level[1.0]
    assert torch.equal(whatif.exaggerate(depth, 1.0), depth)
    assert height > 0.1  # the bump is a tenth nearer than the smoothed wall
    assert level[0.0] - level[2.0] == pytest.approx(2 * height, rel=1e-3)
    assert level[0.0] - level[-1.0] == pytest.approx(-height, rel=1e-3)


def test_a_bump_has_its_strength_under_the_brush_and_nothing_elsewhere():
    depth, box = torch.full((1, 1, 64, 64), 30.0), (0, 0, 64, 64)
    painted = whatif.paint(depth, [Stroke("nearer", 6.0, 0.5, ((20.5, 40.5), (30.5, 40.5)))], box)
    assert float(painted[0, 0, 40, 25]) == pytest.approx(30 * np.exp(-0.5), rel=0.02)
    assert float(painted[0, 0, 10, 50]) == pytest.approx(30)
    away = whatif.paint(depth, [Stroke("farther", 6.0, 0.5, ((20.5, 40.5),))], box)
    assert float(away[0, 0, 40, 20]) == pytest.approx(30 * np.exp(0.5), rel=0.02)


def test_the_brush_is_round_in_the_image_whatever_its_proportions():
    box = (0, 0, 200, 100)  # squeezed to a square for the networks
    weight = whatif.footprint(Stroke("nearer", 20.0, 1.0, ((100.5, 50.5),)), box, 64)[0, 0]
    rows, columns = np.nonzero(weight.numpy() > 0.5)
    wide, high = (np.ptp(columns) + 1) / 64 * 200, (np.ptp(rows) + 1) / 64 * 100
    assert wide == pytest.approx(high, abs=4)  # a pixel of the networks is 3 of the image


def test_a_very_long_stroke_keeps_its_beginning(state):
    for part in range(3):
        points = [(float(i % 200), 10.0 + part) for i in range(900)]
        state.paint(points, 10, 0.3, "nearer", stroke="one")
    assert sum(len(one.points) for one in state.now.strokes) == 2700
    state.undo()
    assert state.now.strokes == ()


def test_two_reduced_files_of_one_name_are_two_images(state):
    for seed in (1, 2):
        pixels = np.random.default_rng(seed).integers(0, 256, (80, 80, 3), dtype=np.uint8)
        state.load_upload(encoded(pixels), "big.png", reduced=True)
        assert (state.shown.loaded.image == cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)).all()


def test_the_last_own_image_is_the_one_opened_last(state):
    first, second = (encoded(noise(80, 80 + n, 3)) for n in (1, 2))
    for data in (first, second, first):
        state.load_upload(data, "mine.png")
    again = state.now.image
    state.choose_scene(seed=3)
    state.choose_upload()
    assert state.now.image == again


def test_a_first_image_that_does_not_exist_is_refused(detector):
    with pytest.raises(StateError):
        ExplorerState(detector, image=SceneImage(seed=10_000))


def test_a_point_in_the_black_margin_is_pointed_out(state):
    picture = np.zeros((120, 200, 3), np.uint8)
    picture[:, 60:140] = np.random.default_rng(0).integers(80, 200, (120, 80, 3), dtype=np.uint8)
    state.load_upload(encoded(picture), "margin.png")
    state.click(100, 60)
    assert "margin" not in note(state)
    state.click(10, 60)
    assert "black margin" in note(state)


def test_a_stroke_does_not_depend_on_how_often_the_mouse_was_asked():
    box = (0, 0, 64, 64)
    few = whatif.footprint(Stroke("nearer", 5.0, 1.0, ((10.0, 10.0), (50.0, 30.0))), box, 64)
    many = whatif.footprint(Stroke("nearer", 5.0, 1.0, tuple((10 + i, 10 + i / 2) for i in range(41))), box, 64)
    assert float((few - many).abs().max()) < 0.25  # a pixel's rounding, on the flank of the bell
    assert float((few - many).abs().mean()) < 0.01


def test_a_smear_takes_relief_away_under_the_brush_only():
    depth = bumpy()
    smeared = whatif.paint(depth, [Stroke("smear", 12.0, 1.0, ((32.0, 32.0),))], (0, 0, 64, 64))
    assert float(gradient_magnitude(smeared)[0, 0, 26:38, 26:38].max()) < 0.7 * float(gradient_magnitude(depth).max())
    torch.testing.assert_close(smeared[..., :8, :8], depth[..., :8, :8])


def test_painting_lands_where_the_mouse_was_also_in_a_frame_with_margins(detector):
    frame = np.zeros((120, 200, 3), np.uint8)
    frame[20:100, 60:160] = noise(80, 100, 3)
    state = ExplorerState(detector)
    state.load_upload(encoded(frame), "margins.png")
    x, y, width, height = state.shown.box
    assert (x, y, width, height) == pytest.approx((60, 20, 100, 80), abs=2)
    state.paint([(85, 80)], 8, 0.5)
    change = (state.outcome.depth / state.shown.depths.target).log()[0, 0].numpy()
    row, column = np.unravel_index(change.argmin(), change.shape)
    assert (x + (column + 0.5) * width / 64, y + (row + 0.5) * height / 64) == pytest.approx((85, 80), abs=2)


def test_one_movement_of_the_brush_is_one_stroke_and_one_step(state):
    state.paint([(50, 50)], 10, stroke="a")
    state.paint([(60, 50)], 10, stroke="a")
    state.paint([(90, 90)], 10, stroke="b")
    assert [len(stroke.points) for stroke in state.now.strokes] == [2, 1]
    state.undo()
    assert len(state.now.strokes) == 1
    state.undo()
    assert state.now.strokes == ()


# --- history ------------------------------------------------------------------------------------------


def test_undo_redo_and_reset(state):
    start = state.now
    state.set_guidance("flat")
    state.set_threshold(0.9)
    state.undo()
    assert (state.now.guidance, state.now.threshold) == ("flat", start.threshold)
    state.redo()
    assert state.now.threshold == 0.9
    state.reset()
    assert state.now == start
    state.undo()
    assert (state.now.guidance, state.now.threshold) == ("flat", 0.9)
    state.set_guidance("off")
    assert not state.can_redo  # a new change ends the other future


def test_a_drag_is_one_step_until_it_rests(state):
    for relief in (1.5, 2.0, 2.5):
        state.set_guidance(relief=relief)
    state.step = None
    state.set_guidance(relief=3.0)
    state.undo()
    assert state.now.relief == 2.5
    state.undo()
    assert state.now.relief == 1.0
    assert not state.can_undo


def test_how_it_is_looked_at_is_no_step_and_survives_undo(state):
    state.set_guidance("flat")
    state.change(under="depth_used", opacity=0.25, zoom=[2.0, 0.4, 0.6])
    state.undo()
    assert (state.now.under, state.now.opacity, state.now.zoom) == ("depth_used", 0.25, (2.0, 0.4, 0.6))


# --- images -------------------------------------------------------------------------------------------


def test_each_scene_slider_changes_its_own_property():
    base = SceneImage().load()
    larger = replace(SceneImage(), size_mm=18.0).load()
    assert larger.truth.mean() > 1.3 * base.truth.mean()
    recoloured = replace(SceneImage(), contrast=0.0).load()
    np.testing.assert_array_equal(recoloured.depth, base.depth)  # colour is not shape
    assert np.abs(recoloured.image.astype(int) - base.image)[base.truth].mean() > 5
    brighter = replace(SceneImage(), light=1.5).load()
    assert brighter.image.mean() > 1.2 * base.image.mean()
    np.testing.assert_array_equal(brighter.depth, base.depth)
    higher = replace(SceneImage(), relief=2.0).load()
    elsewhere = ~cv2.dilate((base.truth | higher.truth).astype(np.uint8), np.ones((25, 25))).astype(bool)
    moved = np.abs(higher.depth / base.depth - 1)[elsewhere] > 1e-3
    assert moved.mean() < 1e-3  # a few rays that pass a fold's edge may land before or behind it
    assert np.abs(higher.depth - base.depth)[base.truth].max() > 1  # mm
    wider = replace(SceneImage(), view_degrees=135.0).load()
    assert wider.depth.min() < base.depth.min()  # more of the near wall comes into the frame


def test_a_scene_without_lesion_has_an_empty_truth(state):
    state.choose_scene(paris="none")
    assert not state.shown.loaded.truth.any()
    assert state.numbers()["sensitivity"]["now"] is None
    assert state.numbers()["false_area"]["now"] == pytest.approx(state.numbers()["mask_area"]["now"])


def test_on_a_processors_screen_the_view_is_found_or_the_whole_frame_is_taken(state):
    alone, alone_hw = SceneImage().load(), state.shown.size_hw
    state.choose_scene(screen="yes")
    loaded, (x, y, width, height) = state.shown.loaded, state.shown.box
    assert state.shown.size_hw == loaded.truth.shape == loaded.depth.shape == (alone_hw[0], alone_hw[1] * 16 // 9)
    side = alone_hw[1]
    left = int(0.42 * side)
    assert max(abs(x - left), abs(y), abs(width - side), abs(height - side)) <= 3
    np.testing.assert_array_equal(loaded.depth[:, left : left + side], alone.depth)
    assert not state.probability()[:, : left - 3].any()
    state.change(view="whole")
    assert state.shown.box[2] >= loaded.truth.shape[1]
    assert ExplorerState.from_json(state.detector, state.to_json()).now == state.now


def test_paint_and_point_stay_in_a_scene_and_go_with_another(state):
    state.click(100, 100)
    state.paint([(50, 50)], 10)
    state.choose_scene(contrast=0.2)
    assert state.now.strokes
    assert state.now.point == (100, 100)
    state.choose_scene(seed=9)
    assert state.now.strokes == ()
    assert state.now.point is None


@pytest.fixture
def own_folder(tmp_path):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for number in range(6):
        mask = np.zeros((80, 96), np.uint8)
        mask[20 + number : 50, 30:60] = 255
        (tmp_path / "images" / f"{number}.png").write_bytes(encoded(np.roll(noise(80, 96, 3), number, 0)))
        (tmp_path / "masks" / f"{number}.png").write_bytes(encoded(mask))
    return f"folder:{tmp_path}"


def test_an_image_of_a_data_set_comes_with_its_truth(state, own_folder):
    state.change(image=SampleImage(own_folder, "2"))
    assert state.shown.loaded.truth.sum() == 28 * 30
    assert state.shown.loaded.depth is None
    assert own_folder.removeprefix("folder:") not in state.shown.loaded.label
    state.set_guidance("other", other=1)  # of the next image of the set
    assert np.abs(state.probability() - state.probability(original=True)).max() > 0


def test_what_is_not_there_is_refused_and_nothing_changes(state, own_folder):
    now = state.now
    for dataset, name in ((own_folder, "nobody"), ("nothing-like-this", "1"), ("folder:/nowhere/at/all", "1")):
        with pytest.raises((StateError, DatasetError)):
            state.change(image=SampleImage(dataset, name))
    with pytest.raises(StateError, match="size_mm is 99"):
        state.choose_scene(size_mm=99.0)
    with pytest.raises(StateError, match="colour is unknown"):
        state.choose_scene(colour=1.0)
    assert state.now == now


def test_uploads_of_every_colour_kind_become_rgb(state):
    grey = noise(90, 120)
    state.load_upload(encoded(grey), "grey.png")
    assert state.shown.loaded.image.shape == (90, 120, 3)
    np.testing.assert_array_equal(state.shown.loaded.image[..., 1], grey)
    clear = np.dstack([noise(90, 120, 3), np.full((90, 120), 255, np.uint8)])
    clear[:, :60, 3] = 0
    state.load_upload(encoded(clear), "clear.png")
    assert state.shown.loaded.image[:, :60].max() == 0
    np.testing.assert_array_equal(state.shown.loaded.image[:, 60:, ::-1], clear[:, 60:, :3])
    deep = (noise(90, 120, 3).astype(np.uint16)) * 256
    state.load_upload(encoded(deep), "deep.png")
    assert state.shown.loaded.image.max() > 190


def test_an_image_that_is_opened_again_begins_anew(state):
    state.load_upload(encoded(noise(90, 120, 3)), "own.png")
    for again in (lambda: state.load_upload(encoded(noise(90, 120, 3)), "own.png"), state.choose_upload):
        state.paint([[30, 30]], 8)
        state.click(20, 20)
        again()
        assert (state.now.strokes, state.now.point) == ((), None)


@pytest.mark.parametrize("text", ["[]", "3", '"scene"', "null"])
def test_json_that_is_no_object_is_no_state(state, text):
    with pytest.raises(StateError, match=r"a saved state is .*, but must be an object in JSON"):
        state.load_json(text)


def test_a_large_upload_is_reduced_and_keeps_its_shape(state):
    state.load_upload(encoded(cv2.resize(noise(40, 60, 3), (3000, 2000)), ".jpg"), "large.jpg")
    assert state.shown.loaded.image.shape == (683, 1024, 3)
    assert "Reduced from 3000×2000" in note(state)


def test_declared_sizes_are_read_before_anything_is_unpacked(state):
    for kind in (".png", ".jpg", ".webp", ".tiff", ".bmp"):
        assert header_size(encoded(noise(50, 70, 3), kind)) == (70, 50)
    bomb = bytearray(encoded(noise(40, 40, 3)))
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    with pytest.raises(StateError, match=r"bomb\.png has more than 60 million pixels"):
        state.load_upload(bytes(bomb), "bomb.png")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"hello, I am text", "is not an image"),
        (encoded(noise(90, 90, 3), ".jpg")[:-300], "cut off"),
        (encoded(noise(90, 90, 3))[:-300], "cut off"),
        (encoded(noise(90, 90, 3).astype(np.float32), ".tiff"), "is not an image"),
    ],
)
def test_what_is_no_image_is_refused_in_words(state, data, words):
    now = state.now
    with pytest.raises((StateError, DatasetError), match=words):
        state.load_upload(data, "it.bin")
    assert state.now == now


# --- the point ----------------------------------------------------------------------------------------


def test_the_profile_reads_the_maps_along_its_line(state):
    assert state.profile_at_click() is None
    state.click(80.5, 150.5)
    profile = state.profile_at_click()
    exact = state.shown.loaded.depth[150]
    at = np.argmin(np.abs(profile["distance_px"]))
    assert profile["exact"][at] == pytest.approx(exact[80])
    assert profile["exact"][-1] == pytest.approx(exact[255], rel=0.02)
    enlarged = torch.nn.functional.interpolate(state.shown.depths.target, size=state.shown.size_hw, mode="bilinear")
    assert profile["estimated"][at] == pytest.approx(float(enlarged[0, 0, 150, 80]), rel=1e-3)
    height, width = state.shown.size_hw
    assert profile["ends"] == pytest.approx([0, 150.5, width, 150.5], abs=4)
    found = state.outcome.attention[0][0, 0]
    assert profile["attention"][0] == pytest.approx(
        float(found[int(150.5 / height * 32), int(80.5 / width * 32)]), abs=1e-4
    )


def test_a_vertical_line_and_a_changed_depth(state):
    state.click(100, 100)
    state.change(angle=90)
    state.set_guidance("flat")
    profile = state.profile_at_click()
    assert profile["ends"][0] == pytest.approx(100)
    assert profile["ends"][1] < 5 < 250 < profile["ends"][3]
    assert np.ptp(profile["used"]) < 1e-3 < np.ptp(profile["estimated"])
    assert max(profile["gradient_used"]) < 1e-5 < max(profile["gradient"])


def test_a_point_outside_is_refused(state):
    with pytest.raises(StateError, match="x is 300"):
        state.click(300, 10)


# --- saving -------------------------------------------------------------------------------------------


def changed_everywhere(state: ExplorerState) -> None:
    state.choose_scene(seed=9, size_mm=9.0, paris="0-IIa")
    state.set_guidance("other", relief=2.0, other=4)
    state.paint([(30, 40), (35, 45)], 12, 0.3, "smear")
    state.click(60, 70)
    state.change(angle=30)
    state.set_threshold(0.31)
    state.change(under="image", over="attention_3", opacity=0.4, zoom=(3.0, 0.5, 0.4))


def test_a_saved_state_comes_back_whole(state, detector):
    changed_everywhere(state)
    again = ExplorerState.from_json(detector, state.to_json())
    assert again.now == state.now
    np.testing.assert_array_equal(again.probability(), state.probability())
    assert not again.can_undo
    assert ExplorerState(detector).to_json() == "{}"  # only what differs is written


def test_the_python_line_shows_the_view_again(state, detector, monkeypatch):
    changed_everywhere(state)
    monkeypatch.setattr(Detector, "from_pretrained", classmethod(lambda cls, name: {"reference": detector}[name]))
    start, _, last = state.python_line().rpartition("; ")
    space: dict = {}
    exec(start, space)
    assert eval(last, space).state.now == state.now


def test_a_state_about_an_own_image_asks_for_that_file(state, detector):
    data = encoded(noise(90, 120, 3))
    state.load_upload(data, "mine.png")
    state.set_guidance("flat")
    text = state.to_json()
    with pytest.raises(StateError, match=r"open that file first"):
        ExplorerState.from_json(detector, text)
    with pytest.raises(StateError, match="is not the 'mine"):
        ExplorerState.from_json(detector, text, encoded(noise(91, 120, 3)))
    assert ExplorerState.from_json(detector, text, data).now == state.now
    assert "Path('mine.png').read_bytes()" in state.python_line()


BAD = [
    "no json", "[1, 2]", '{"colour": 1}', '{"threshold": 2}', '{"threshold": "high"}', '{"guidance": "up"}',
    '{"relief": null}', '{"point": [1]}', '{"point": "here"}', '{"strokes": [{"tool": "nearer"}]}', '{"strokes": 3}',
    '{"strokes": [{"tool": "nearer", "radius_px": 5, "strength": 1, "points": []}]}', '{"image": {"kind": "moon"}}',
    '{"image": {"kind": "scene", "seed": "x"}}', '{"image": {"kind": "sample"}}', '{"under": "nothing"}',
    '{"strokes": [{"tool": "nearer", "radius_px": 5, "strength": 1, "points": [[1, 2, 3]]}]}',
    '{"image": {"kind": "sample", "dataset": 5, "name": "x"}}', '{"image": {"kind": "scene", "seed": 10000}}',
    '{"zoom": [1, 2]}', '{"image": {"kind": "scene", "moons": 2}}', '{"image": 5}', '{"image": {"kind": []}}',
]  # fmt: skip


@pytest.mark.parametrize("text", BAD)
def test_a_broken_state_is_refused_in_words_and_changes_nothing(state, text):
    now = state.now
    with pytest.raises(StateError) as caught:
        state.load_json(text)
    assert len(str(caught.value)) > 15
    assert state.now == now


def test_defaults_of_a_choice_are_valid():
    assert json.loads(ExplorerState(make_detector()).to_json()) == {}
    assert Choice().zoom == (1.0, 0.5, 0.5)


# --- pictures -----------------------------------------------------------------------------------------


def test_a_depth_becomes_bytes_by_its_logarithm_and_other_maps_do_not():
    maps = torch.tensor([[[[1.0, 10.0, 100.0]]]])
    (depth, levels), (_, others) = (quantised("a map", maps, 1.0, 100.0, kind) for kind in ("depth", "probability"))
    assert levels.tolist() == [[0, 128, 255]]
    assert np.exp(depth["low"] + 128 / 255 * (depth["high"] - depth["low"])) == pytest.approx(10, rel=0.02)
    assert others.tolist() == [[0, 23, 255]]


def test_panels_have_the_images_size_and_show_what_they_say(state):
    shown = panels(state)
    assert list(shown) == list(PANELS)
    assert {p.shape for p in shown.values()} == {(256, 256, 3)}
    np.testing.assert_array_equal(shown["mask"][..., 0] > 0, state.probability() > state.now.threshold)
    assert (shown["depth_used"] == shown["depth_target"]).all()
    state.paint([(190, 60)], 30, 1.0)
    different = (panels(state)["depth_used"] != shown["depth_target"]).any(axis=2)
    assert different[60, 190]
    assert not different[220:, :60].any()


def test_colour_tables_rise_evenly_in_lightness():
    for name in TABLES:
        lab = cv2.cvtColor(table(name)[None], cv2.COLOR_RGB2LAB)[0, :, 0].astype(float)
        steps = np.diff(lab[::16]) * (1 if lab[-1] > lab[0] else -1)
        assert steps.min() > 0
        assert steps.max() < 4 * steps.min()
