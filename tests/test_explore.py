"""The explorer's view without a browser: what it sends, what it keeps in the widget state, how it speaks of errors."""

import json
import time
from threading import Event, Thread

import numpy as np
import pytest
from test_explorer_state import encoded, make_detector, noise

from lesionkit import explore, explorer_images, whatif
from lesionkit.explorer_choice import PANELS
from lesionkit.explorer_images import StateError
from lesionkit.explorer_pictures import panels, table


@pytest.fixture(scope="module")
def detector():
    return make_detector()


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


def test_the_greeting_brings_every_panel(screen):
    assert screen.ask("ready")["kind"] == "update"
    assert screen.kinds() == ["hello", "busy", "update"]
    (hello, tables), _, (update, buffers) = screen.messages
    assert list(hello["panels"]) == list(PANELS)
    assert {len(one) for one in tables} == {768}
    sent = [m["name"] for m in update["maps"] if m["side"] == "now"] + [j["name"] for j in update["jpegs"]]
    assert set(sent) | {"mask"} == set(PANELS)  # the browser makes the mask of the probability
    assert len(buffers) == len(update["maps"]) + len(update["jpegs"])
    for header, data in zip(update["maps"], buffers, strict=False):
        assert len(data) == header["width"] * header["height"]


def test_the_bytes_sent_are_the_pixels_of_the_still_picture(screen):
    screen.ask("ready")
    update, buffers = screen.messages[-1]
    at = next(i for i, m in enumerate(update["maps"]) if (m["side"], m["name"]) == ("now", "attention_2"))
    header = update["maps"][at]
    bytes_ = np.frombuffer(buffers[at], np.uint8).reshape(header["height"], header["width"])
    x, y, width, height = screen.state.shown.prepared.box
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


def test_the_answer_names_the_question(screen):
    assert screen.ask("point", x=10.0, y=10.0)["reply"] == str(screen.asked)
    assert screen.ask("ping") == {"kind": "pong", "reply": str(screen.asked)}


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
    assert explore._written(value, kind, signed=True) == written


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
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
        for number in range(10):
            (tmp_path / part / f"{number}.png").write_bytes(
                encoded(noise(64, 64, 3) if part == "images" else noise(64, 64) // 190 * 255)
            )
    screen = Screen(detector, dataset=f"folder:{tmp_path}")
    screen.ask("ready")
    names = explorer_images.sample_names(f"folder:{tmp_path}")
    assert screen.controls["sample"].options == tuple(names)
    assert screen.state.now.image.name == names[0]
    assert screen.set("source", "scene")["frame"]["label"].startswith("rendered")


def test_no_data_set_on_this_machine_is_a_sentence(detector, monkeypatch):
    monkeypatch.setattr(explorer_images, "available_datasets", list)
    screen = Screen(detector)
    assert "lesionkit fetch" in screen.set("source", "sample")["text"]
    assert screen.controls["source"].value == "scene"


def test_the_saved_widget_state_stays_small(screen):
    screen.set("guidance", "flat")
    screen.ask("upload", buffers=[encoded(noise(600, 800, 3))], name="mine.png")
    sizes = {}
    for widget in (screen.view.stack, *(w for w in screen.controls.values() if hasattr(w, "get_state"))):
        state = widget.get_state()
        assert not any(isinstance(value, (bytes, memoryview)) for value in state.values())
        sizes[type(widget).__name__] = len(json.dumps(state, default=str))
    assert sum(sizes.values()) < 80_000


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


def test_messages_from_two_threads_take_turns(screen, monkeypatch):
    """JupyterLab handles widget messages beside the cell that runs. While the first picture is computed, another
    message must not send the maps that belong to it."""
    begun, prepare = Event(), whatif.prepare

    def slow(*args):
        begun.set()
        time.sleep(0.2)
        return prepare(*args)

    screen.state._shown.clear()
    monkeypatch.setattr(whatif, "prepare", slow)
    first = Thread(target=lambda: screen.ask("ready"))
    first.start()
    assert begun.wait(5)
    screen.view.stack.zoom = [2.0, 0.5, 0.5]
    first.join()
    updates = [message for message, _ in screen.messages if message["kind"] == "update"]
    assert ["frame" in message for message in updates] == [True, False]
    assert [len(message["maps"]) for message in updates] == [20, 0]


def test_a_slider_is_not_corrected_under_the_mouse(screen):
    """A browser's 1.4000000000000004 is 1.4 to the state; sent back, it would throw the handle back."""
    screen.set("relief_factor", 1.4000000000000004)
    assert screen.state.now.relief == 1.4
    assert screen.controls["relief_factor"].value == 1.4000000000000004
