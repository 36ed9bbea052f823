"""The explorer's view without a browser: what it sends, what it keeps in the widget state, how it speaks of errors."""

import json
import time
from threading import Event, Thread

import ipywidgets as widgets
import numpy as np
import pytest
from test_explorer_state import encoded, make_detector, noise

from lesionkit import datasets, explore
from lesionkit.explore import pictures, whatif
from lesionkit.explore.checks import StateError, build
from lesionkit.explore.images import SceneImage
from lesionkit.explore.pictures import panels, table
from lesionkit.explore.state import PANELS, Choice
from lesionkit.explore.widget import BOXES, FIELDS, SLIDERS


@pytest.fixture(scope="module")
def detector():
    return make_detector()


def sample_names(dataset: str) -> list[str]:
    return [sample.name for sample in datasets.open_dataset(dataset).part("test")]


class Screen:
    """An explorer whose messages are kept: what a browser would get."""

    def __init__(self, detector, **options):
        self.view = explore.Explorer(detector, **options)
        self.messages: list[tuple[dict, list[bytes]]] = []
        self.view.stack.send = lambda message, buffers=(): self.messages.append((message, list(buffers)))
        self.controls, self.state, self.asked = self.view.controls, self.view.state, 0

    def ask(self, kind: str, buffers: tuple = (), **message) -> dict:
        """What the browser would send; returns the last answer."""
        self.asked += 1
        self.messages.clear()
        self.view._on_message(None, {"kind": kind, "id": str(self.asked), **message}, list(buffers))
        return self.messages[-1][0]

    def set(self, name: str, value) -> dict:
        """A control moved by a person; returns the last answer."""
        self.messages.clear()
        self.controls[name].value = value
        return self.messages[-1][0]

    def kinds(self) -> list[str]:
        return [message["kind"] for message, _ in self.messages]


@pytest.fixture
def screen(detector):
    screen = Screen(detector)
    screen.ask("ready")
    return screen


def test_nothing_is_computed_or_sent_before_the_view_is_ready(detector):
    screen = Screen(detector)
    assert screen.messages == []
    assert screen.state.runs == 0
    loading = screen.view.loading
    assert "script-src" in loading.value  # until the script runs, nothing else could say why it does not
    assert loading.layout.display != "none"
    screen.ask("ready")
    assert loading.layout.display == "none"


def test_the_greeting_brings_every_panel(screen):
    assert screen.ask("ready")["kind"] == "update"
    assert screen.kinds() == ["busy", "hello", "update"]
    _, (hello, tables), (update, buffers) = screen.messages
    assert list(hello["panels"]) == list(PANELS)
    assert {len(one) for one in tables} == {768}
    sent = [m["name"] for m in (*update["maps"], *update["jpegs"]) if m["side"] != "before"]
    assert set(sent) | {"mask"} == set(PANELS)  # the browser makes the mask of the probability
    assert len(buffers) == len(update["maps"]) + len(update["jpegs"])
    for header, data in zip(update["maps"], buffers, strict=False):
        assert len(data) == header["width"] * header["height"]


def test_the_bytes_sent_are_the_pixels_of_the_still_picture(screen):
    screen.ask("ready")
    update, buffers = screen.messages[-1]
    at = next(i for i, m in enumerate(update["maps"]) if m["name"] == "attention_2")
    header = update["maps"][at]
    bytes_ = np.frombuffer(buffers[at], np.uint8).reshape(header["height"], header["width"])
    x, y, width, height = screen.state.shown.box
    cell = bytes_[3, 5]
    drawn = panels(screen.state)["attention_2"]
    row, column = y + int(3.5 * height / header["height"]), x + int(5.5 * width / header["width"])
    assert (drawn[row, column] == table("attention")[cell]).all()


def test_only_what_changed_is_sent_again(screen):
    assert {m["name"] for m in screen.set("relief_factor", 2.0)["maps"]} >= {"probability", "attention_1"}
    assert not any(m["name"] == "depth_target" for m in screen.messages[-1][0]["maps"])
    threshold = screen.set("threshold", 0.31)
    assert threshold["maps"] == []
    assert {j["name"] for j in threshold["jpegs"]} == {"detection"}
    point = screen.ask("point", x=100.0, y=90.0)
    assert point["maps"] == point["jpegs"] == []
    assert point["profile"]["point"] == [100.0, 90.0]


def test_what_is_the_same_before_and_now_is_sent_once(screen):
    sides = {m["name"]: m["side"] for m in screen.ask("ready")["maps"]}
    assert sides["probability"] == sides["depth_used"] == "both"
    assert sides["depth_target"] == "now"
    screen.set("guidance", "flat")
    assert {m["side"] for m in screen.messages[-1][0]["maps"]} == {"now"}
    assert [j["side"] for j in screen.messages[-1][0]["jpegs"]] == ["now", "before"]


def test_the_answer_names_the_question(screen):
    assert screen.ask("point", x=10.0, y=10.0)["reply"] == str(screen.asked)


def test_undo_moves_the_controls_and_counts_as_no_action(screen):
    screen.set("relief_factor", 2.5)
    answer = screen.ask("undo")
    assert screen.controls["relief_factor"].value == 1.0
    assert answer["can_redo"]
    assert screen.ask("redo")["can_undo"]
    assert screen.controls["relief_factor"].value == 2.5
    screen.ask("reset")
    assert screen.controls["relief_factor"].value == 1.0


def test_numbers_are_written_with_their_change(screen):
    rows = {row["name"]: row for row in screen.set("guidance", "flat")["numbers"]}
    numbers = screen.state.numbers()["probability_area"]
    assert rows["probability_area"]["now"] == f"{100 * numbers['now']:.1f} %"
    screen.ask("reset")
    assert {row["change"] for row in screen.messages[-1][0]["numbers"]} <= {"0.0 %", "0", "0.00", "—"}


@pytest.mark.parametrize(
    ("value", "kind", "written"),
    [
        (0.0123, "percent", "+1.2 %"),
        (-2, "count", "−2"),
        (-0.001, "ratio", "0.00"),
        (0.0, "count", "0"),
        (None, "ratio", "—"),
    ],
)
def test_a_change_has_a_sign_unless_it_rounds_to_nothing(value, kind, written):
    assert pictures.written(value, kind, "+") == written


def test_painting_goes_through_the_brush_controls(screen):
    screen.controls["brush_px"].value = 30.0
    screen.controls["strength"].value = 0.8
    screen.ask("paint", tool="nearer", stroke="one", points=[[50, 60], [70, 60]])
    (stroke,) = screen.state.now.strokes
    assert (stroke.radius_px, stroke.strength, stroke.points) == (30.0, 0.8, ((50.0, 60.0), (70.0, 60.0)))


@pytest.mark.parametrize(
    ("kind", "message", "buffers", "words"),
    [
        ("upload", {"name": "notes.txt"}, [b"hello"], "Notes.txt is not an image"),
        ("upload", {"name": "cut.jpg"}, [encoded(noise(90, 90, 3), ".jpg")[:-200]], "is cut off"),
        ("load", {"text": "{"}, [], "no saved state"),
        ("point", {"x": 1e4, "y": 0.0}, [], "X is 10000"),
        ("paint", {"tool": "hammer", "stroke": "s", "points": [[1, 1]]}, [], "Tool is 'hammer'"),
        ("paint", {"tool": "nearer"}, [], "KeyError"),
    ],
)
def test_errors_are_sentences_and_the_rest_keeps_working(screen, capsys, kind, message, buffers, words):
    answer = screen.ask(kind, buffers=buffers, **message)
    assert answer["kind"] == "error"
    assert words in answer["text"]
    assert answer["reply"] == str(screen.asked)
    assert screen.set("threshold", 0.4)["kind"] == "update"
    assert capsys.readouterr() == ("", "")


def test_an_upload_is_shown_and_can_be_left_again(screen):
    screen.ask("upload", buffers=[encoded(noise(90, 120, 3))], name="mine.png")
    assert screen.messages[-1][0]["frame"]["label"] == "own image, mine.png"
    assert screen.controls["source"].value == "upload"
    assert screen.view.controls["boxes"]["scene"].layout.display == "none"
    screen.set("source", "scene")
    assert screen.messages[-1][0]["frame"]["label"].startswith("rendered scene")


def test_a_state_that_is_about_a_missing_image_says_so(screen):
    text = '{"image": {"kind": "upload", "name": "mine.png", "sha256": "00"}}'
    assert "open that file first" in screen.ask("load", text=text)["text"]


def test_a_data_set_is_listed_and_chosen(detector, tmp_path):
    dataset = make_folder(tmp_path / "set")
    screen = Screen(detector, dataset=dataset)
    screen.ask("ready")
    names = sample_names(dataset)
    assert screen.controls["sample"].options == tuple(names)
    assert screen.state.now.image.name == names[0]
    assert screen.set("source", "scene")["frame"]["label"].startswith("rendered")


def test_no_data_set_on_this_machine_is_a_sentence(detector, monkeypatch):
    monkeypatch.setattr(datasets, "status", list)
    screen = Screen(detector)
    assert "lesionkit fetch" in screen.set("source", "sample")["text"]
    assert screen.controls["source"].value == "scene"


def test_the_saved_widget_state_stays_small(screen):
    screen.set("guidance", "flat")
    screen.ask("upload", buffers=[encoded(noise(600, 800, 3))], name="mine.png")
    states = widgets.Widget.get_manager_state()["state"]  # what a notebook saves, of every widget
    assert not any(one.get("buffers") for one in states.values())
    ours = [one for one in states.values() if one["model_name"] != "AnyModel" or "_esm" in one["state"]]
    per_explorer = len(json.dumps(ours, default=str)) / sum("_esm" in one["state"] for one in ours)
    assert per_explorer < 120_000


def test_a_state_given_is_what_it_opens_with(detector):
    view = explore.Explorer(detector, state='{"guidance": "off", "opacity": 0.5}')
    assert view.controls["guidance"].value == "off"
    assert view.stack.opacity == 0.5
    with pytest.raises(StateError, match="no saved state"):
        explore.Explorer(detector, state="{")


def test_looking_is_remembered_without_running_anything(screen):
    runs = screen.state.runs
    screen.view.stack.over = "mask"
    screen.view.stack.zoom = [2.0, 0.5, 0.5]
    assert (screen.state.now.over, screen.state.now.zoom) == ("mask", (2.0, 0.5, 0.5))
    assert screen.state.runs == runs
    assert "mask" in screen.messages[-1][0]["line"]


def test_messages_from_two_threads_take_turns(detector, monkeypatch):
    """JupyterLab handles widget messages beside the cell that runs. While the first picture is computed, another
    message must not send the maps that belong to it."""
    begun, prepare = Event(), whatif.prepare

    def slow(*args):
        begun.set()
        time.sleep(0.2)
        return prepare(*args)

    screen = Screen(detector)
    monkeypatch.setattr(whatif, "prepare", slow)
    first = Thread(target=lambda: screen.ask("ready"))
    first.start()
    assert begun.wait(5)
    screen.view.stack.zoom = [2.0, 0.5, 0.5]
    first.join()
    updates = [message for message, _ in screen.messages if message["kind"] == "update"]
    assert ["frame" in message for message in updates] == [True, False]
    assert [len(message["maps"]) for message in updates] == [17, 0]


def test_both_ends_of_every_slider_are_taken(screen):
    for name in SLIDERS:
        control = screen.controls[name]
        for end in (control.min, control.max):
            if name in FIELDS:
                build(Choice, {FIELDS[name]: end}, "a choice")
            elif name in BOXES["scene"]:
                build(SceneImage, {name: end}, "a scene")
            else:
                screen.controls[name].value = end
                assert screen.ask("paint", tool="smear", stroke=name, points=[[50, 60]])["kind"] == "update"


def test_a_slider_is_not_corrected_under_the_mouse(screen):
    """A browser's 1.4000000000000004 is 1.4 to the state; sent back, it would throw the handle back."""
    screen.set("relief_factor", 1.4000000000000004)
    assert screen.state.now.relief == 1.4
    assert screen.controls["relief_factor"].value == 1.4000000000000004


def test_own_file_without_one_says_how_and_with_one_shows_it_again(screen):
    answer = screen.set("source", "upload")
    assert answer["kind"] == "error"
    assert "open…" in answer["text"]
    assert screen.controls["source"].value == "scene"
    screen.ask("upload", buffers=[encoded(noise(90, 120, 3))], name="mine.png")
    screen.set("source", "scene")
    assert screen.set("source", "upload")["frame"]["label"] == "own image, mine.png"


def make_folder(place, count=10, size=64):
    for part in ("images", "masks"):
        (place / part).mkdir(parents=True)
        for number in range(count):
            pixels = noise(size, size, 3) if part == "images" else noise(size, size) // 190 * 255
            (place / part / f"{number}.png").write_bytes(encoded(pixels))
    return f"folder:{place}"


def test_the_data_set_shown_is_that_of_the_image(detector, tmp_path):
    one, two = make_folder(tmp_path / "one"), make_folder(tmp_path / "two", count=20)
    screen = Screen(detector, dataset=one)
    screen.ask("ready")
    first = screen.state.now.image
    screen.ask("load", text=json.dumps({"image": {"kind": "sample", "dataset": two, "name": "3"}}))
    assert (screen.controls["dataset"].value, screen.controls["sample"].value) == (two, "3")
    assert set(sample_names(two)) <= set(screen.controls["sample"].options)
    screen.ask("undo")
    assert screen.state.now.image == first
    assert (screen.controls["dataset"].value, screen.controls["sample"].value) == (one, first.name)


def test_a_state_or_an_image_given_goes_before_the_data_set(detector, tmp_path):
    dataset = make_folder(tmp_path / "set")
    view = explore.Explorer(detector, dataset=dataset, state='{"guidance": "off"}')
    assert view.controls["guidance"].value == "off"
    assert view.state.now.image == SceneImage()
    assert view.controls["sample"].options == tuple(sample_names(dataset))


def test_a_data_set_that_is_not_here_is_refused_at_once(detector, tmp_path):
    with pytest.raises(datasets.MissingData, match="nowhere"):
        Screen(detector, dataset=f"folder:{tmp_path / 'nowhere'}")


def test_after_an_error_the_next_picture_is_sent_whole(screen, monkeypatch):
    def broken(*args):
        raise RuntimeError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(whatif, "guide", broken)
        assert screen.set("guidance", "flat")["kind"] == "error"
    answer = screen.ask("point", x=10.0, y=10.0)
    assert "frame" in answer
    assert {m["side"] for m in answer["maps"]} == {"now", "before"}
    assert len(answer["maps"]) == 30


def test_a_brush_that_rests_goes_on_with_its_stroke(screen, monkeypatch):
    screen.ask("paint", tool="nearer", stroke="one", points=[[50, 60], [60, 60]])
    screen.view._changed_at -= 5
    screen.ask("paint", tool="nearer", stroke="one", points=[[60, 60], [70, 60]])
    assert len(screen.state.now.strokes) == 1
    screen.ask("undo")
    assert screen.state.now.strokes == ()
