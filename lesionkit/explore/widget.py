"""The explorer's view: the controls, and one anywidget for the image stack. Thin: it hands what a person does to
`ExplorerState` and shows what follows.

Pictures go to the browser as custom messages, after the view has said that it is ready: nothing large is ever part of
the widget state that a notebook saves. Callbacks never print; what goes wrong becomes a sentence in the view.
"""

from collections.abc import Callable
from pathlib import Path
from threading import RLock
from time import monotonic
from typing import Any

import anywidget
import ipywidgets as widgets
import traitlets

from lesionkit.detector import Detector, ImageError
from lesionkit.explore import controls as explorer_controls
from lesionkit.explore import images as explorer_images
from lesionkit.explore import messages
from lesionkit.explore import pictures as explorer_pictures
from lesionkit.explore.choice import PANELS, VIEW, Choice
from lesionkit.explore.images import DECIMALS, SCENE_RANGES, SampleImage, SceneImage, StateError
from lesionkit.explore.pictures import TABLES, MapPicture
from lesionkit.explore.state import ExplorerState
from lesionkit.preprocess import PreprocessError

__all__ = ["Explorer", "ImageStack"]

HERE = Path(__file__).parent
PAUSE_S = 1.0  # a slider that rested this long begins a new step to undo


class ImageStack(anywidget.AnyWidget):
    """The stage and the linked panels (explorer.js). Its traits are small; pictures are messages."""

    _esm = HERE / "explorer.js"
    _css = HERE / "explorer.css"
    under = traitlets.Unicode("image").tag(sync=True)
    over = traitlets.Unicode("probability").tag(sync=True)
    opacity = traitlets.Float(0.0).tag(sync=True)
    threshold = traitlets.Float(0.5).tag(sync=True)
    brush_px = traitlets.Float(16.0).tag(sync=True)
    zoom = traitlets.List(traitlets.Float(), [1.0, 0.5, 0.5]).tag(sync=True)


class Explorer(widgets.HBox):
    """Put a finger on the image and see what depth does. Show it as the last expression of a cell.

    detector: any `Detector`; weights: what it was loaded from, for the Python line. dataset: a data set to choose
    images of, beside rendered scenes and own files; it begins with its first one, unless `image`, such as
    SceneImage(seed=7), or `state` says another. state: JSON that an explorer saved; upload: the bytes of the own image
    that it is about. Raises StateError for a state that is none.
    """

    def __init__(
        self, detector: Detector, dataset: str = "scenes", state: str | None = None, upload: bytes | None = None,
        weights: str = "reference", image: SceneImage | SampleImage | None = None,
    ):  # fmt: skip
        self.state = ExplorerState(detector, weights, image)
        if state is not None:
            self.state = ExplorerState.from_json(detector, state, upload, weights=weights)
        self._following, self._changed_at, self._sent, self._offered, self.error = False, 0.0, {}, "", ""
        # JupyterLab handles the messages of widgets in a thread of their own, beside the cell that runs: one at a time
        self._turn = RLock()
        self.stack = ImageStack(layout=widgets.Layout(flex="1 1 560px", min_width="0"))
        self.controls = explorer_controls.make_controls(self.state.now, dataset)
        children = [explorer_controls.column(self.controls), self.stack]
        layout = widgets.Layout(display="flex", flex_flow="row wrap", width="100%", overflow="visible")
        super().__init__(children, layout=layout)
        self.add_class("lesionkit-explorer")
        if dataset != "scenes":
            self._guarded(lambda: self._choose_dataset(dataset) if not (state or image) else self._offer(dataset))
        self._follow_state()
        self._connect()

    # --- from the person to the state -----------------------------------------------------------------

    def _connect(self) -> None:
        c, state = self.controls, self.state
        self.stack.on_msg(self._on_message)
        # threshold and brush act in the browser at once; the kernel hears of them as well
        self._links = [widgets.jslink((c[n], "value"), (self.stack, n)) for n in ("threshold", "brush_px")]
        for name in VIEW:
            self.stack.observe(self._look, name)
        for name in ("paris", *SCENE_RANGES, "seed"):
            self._on(name, lambda value, n=name: state.choose_scene(**{n: value}))
        self._on("threshold", state.set_threshold)
        self._on("guidance", lambda value: state.set_guidance(guidance=value))
        self._on("relief_factor", lambda value: state.set_guidance(relief=value))
        self._on("other", lambda value: state.set_guidance(guidance="other", other=value))
        self._on("angle", state.set_angle)
        self._on("source", self._choose_source)
        self._on("dataset", self._choose_dataset)
        self._on("sample", lambda name: name and state.choose_sample(c["dataset"].value, name))

    def _on(self, name: str, action: Callable[[Any], Any]) -> None:
        self.controls[name].observe(lambda change: self._do(lambda: action(change.new)), "value")

    def _look(self, change: Any) -> None:
        self._do(lambda: self.state.set_view(**{change.name: change.new}), quiet=True)

    def _do(
        self, action: Callable[[], Any], quiet: bool = False, reply: str | None = None, joins: bool = False
    ) -> None:
        """A person's action: change the state, follow it, show it. quiet: nothing but the saved state changes; joins:
        it may belong to the step before, however long ago that was (a brush that rested)."""
        with self._turn:
            if not self._following:  # else the control moved because the state did
                self._guarded(lambda: self._act(action, quiet, reply, joins), reply)

    def _act(self, action: Callable[[], Any], quiet: bool, reply: str | None, joins: bool) -> None:
        if not quiet:
            if not joins and monotonic() - self._changed_at > PAUSE_S:
                self.state.end_step()
            self.stack.send({"kind": "busy"})
        action()
        self._follow_state()
        self._show(reply)
        self._changed_at = monotonic()

    def _guarded(self, action: Callable[[], Any], reply: str | None = None) -> None:
        """Errors become a sentence in the view, and the controls go back to what the state says."""
        try:
            action()
        except (StateError, ImageError, PreprocessError) as error:
            self._fail(str(error), reply)
        except Exception as error:  # a callback has nobody to raise to: without this the view would stay silent
            self._fail(f"That did not work: {type(error).__name__}, {error}. The rest still works.", reply)

    def _fail(self, text: str, reply: str | None) -> None:
        self.error, self._sent = text, {}  # nobody knows what of it arrived: the next picture is sent whole
        self._follow_state()
        self.stack.send({"kind": "error", "text": text[0].upper() + text[1:], "reply": reply})

    def _on_message(self, _widget: Any, message: dict, buffers: list) -> None:
        state, reply, kind = self.state, message.get("id"), message.get("kind")
        if kind == "ready":
            with self._turn:
                self._guarded(lambda: self._greet(reply), reply)
        elif kind == "ping":
            self.stack.send({"kind": "pong", "reply": reply})
        actions = {
            "point": lambda: state.click(message["x"], message["y"]),
            "paint": lambda: state.paint(
                message["points"], self.controls["brush_px"].value, self.controls["strength"].value, message["tool"],
                message["stroke"],
            ),
            "upload": lambda: state.load_upload(bytes(buffers[0]), message["name"], bool(message.get("reduced"))),
            "load": lambda: state.load_json(message["text"]),
            "undo": state.undo, "redo": state.redo, "reset": state.reset,
        }  # fmt: skip
        if kind in actions:
            self._do(actions[kind], reply=reply, joins=kind == "paint")

    def _choose_source(self, source: str) -> None:
        if source == "scene":
            self.state.choose_scene()
        elif source == "sample":
            self._choose_dataset(self.controls["dataset"].value)
        else:
            self.state.choose_upload()

    def _choose_dataset(self, dataset: str | None) -> None:
        if not dataset:
            raise StateError("there is no data set on this machine: `lesionkit fetch NAME` brings one")
        self._offer(dataset)
        self.state.choose_sample(dataset, self.controls["sample"].options[0])

    def _offer(self, dataset: str) -> None:
        """The data set's images as what can be chosen."""
        names, c, before = explorer_images.sample_names(dataset), self.controls, self._following
        self._following = True
        try:
            if dataset not in c["dataset"].options:
                c["dataset"].options = (*c["dataset"].options, dataset)
            c["dataset"].value, c["sample"].options, self._offered = dataset, names, dataset
        finally:
            self._following = before

    # --- from the state to the view -------------------------------------------------------------------

    def _follow_state(self) -> None:
        """Every control shows what the state says; what this moves is not taken for a person's action."""
        now, c = self.state.now, self.controls
        values = {"threshold": now.threshold, "guidance": now.guidance, "relief_factor": now.relief, "other": now.other,
                  "angle": now.angle,
                  "source": now.image.kind}  # fmt: skip
        if isinstance(now.image, SceneImage):
            values |= {name: getattr(now.image, name) for name in ("paris", *SCENE_RANGES, "seed")}
        self._following = True
        try:
            if isinstance(now.image, SampleImage):
                self._follow_sample(now.image)
            for name, value in values.items():
                if not _equal(c[name].value, value):
                    c[name].value = value
            for name in VIEW:
                value = getattr(now, name)
                setattr(self.stack, name, list(value) if name == "zoom" else value)
            for kind, box in c["boxes"].items():
                box.layout.display = "" if kind == now.image.kind else "none"
        finally:
            self._following = False

    def _follow_sample(self, image: SampleImage) -> None:
        c = self.controls
        if self._offered != image.dataset:
            self._offer(image.dataset)
        if image.name not in c["sample"].options:  # a saved state may be about one of the training part
            c["sample"].options = (image.name, *c["sample"].options)
        c["sample"].value = image.name

    def _greet(self, reply: str | None) -> None:
        tables = [explorer_pictures.table(name).tobytes() for name in TABLES]
        view = {name: getattr(Choice(), name) for name in VIEW}  # what a saved state leaves out
        self.stack.send({"kind": "hello", "panels": PANELS, "tables": list(TABLES), "view": view}, tables)
        self.stack.send({"kind": "busy"})
        error, self._sent = self.error, {}
        self._show(reply)
        if error:  # from before there was anybody to tell
            self._fail(error, None)

    def _show(self, reply: str | None = None) -> None:
        """Sends what changed since the last time: a picture that is on the screen already is not sent again."""
        state, message = self.state, {"kind": "update", "reply": reply}
        image = state.now.image
        if self._sent.get("image") != image:
            self._sent = {"image": image}
            message["frame"] = messages.frame(state)
        maps, jpegs = self._new_maps(), self._new_jpegs()
        message["maps"] = [messages.header(side, m) for side, m in maps]
        message["jpegs"] = [{"side": side, "name": name} for side, name, _ in jpegs]
        message |= messages.texts(state)
        self.stack.send(message, [m.bytes.tobytes() for _, m in maps] + [data for *_, data in jpegs])
        self.error = ""

    def _new_maps(self) -> list[tuple[str, MapPicture]]:
        """Maps to send and where they belong: "now", "before", or "both" while nothing was asked yet."""
        state, found = self.state, []
        same = state.is_original
        if "original" not in self._sent:
            found += [("now", m) for m in explorer_pictures.image_maps(state)]
            before = explorer_pictures.outcome_maps(state, state.shown.original)
            found += [("both" if same else "before", m) for m in before]
            self._sent |= {"original": True} | ({"what_if": state.what_if} if same else {})
        if self._sent.get("what_if") != state.what_if:
            found += [("now", m) for m in explorer_pictures.outcome_maps(state, state.outcome)]
            self._sent["what_if"] = state.what_if
        return found

    def _new_jpegs(self) -> list[tuple[str, str, bytes]]:
        state, found = self.state, []
        if "picture" not in self._sent:
            found.append(("now", "image", explorer_pictures.jpeg(state.shown.loaded.image)))
            self._sent["picture"] = True
        key = (state.what_if, state.now.threshold)
        if self._sent.get("detection") != key:
            drawn = explorer_pictures.jpeg(explorer_pictures.detection(state))
            found.append(("both" if state.is_original else "now", "detection", drawn))
            if not state.is_original:
                before = explorer_pictures.detection(state, original=True)
                found.append(("before", "detection", explorer_pictures.jpeg(before)))
            self._sent["detection"] = key
        return found


def _equal(shown: Any, value: Any) -> bool:
    """Whether a control shows the value already. A browser's slider says 1.4000000000000004: to put that right would
    be a message of its own, which comes late and throws the handle back under the mouse."""
    return shown == value or (isinstance(shown, float) and round(shown, DECIMALS) == value)
