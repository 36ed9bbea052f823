"""The explorer's view: the controls, and one anywidget for the image stack. Thin: it hands what a person does to
`ExplorerState` and shows what follows.

Pictures go to the browser as custom messages, after the view has said that it is ready: nothing large is ever part of
the widget state that a notebook saves. Callbacks never print; what goes wrong becomes a sentence in the view.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from time import monotonic
from typing import Any

import anywidget
import ipywidgets as widgets
import traitlets

from lesionkit.detector import Detector
from lesionkit.explore import images, messages
from lesionkit.explore.checks import DECIMALS, StateError
from lesionkit.explore.choice import VIEW
from lesionkit.explore.controls import column, make_controls
from lesionkit.explore.images import SampleImage, SceneImage
from lesionkit.explore.state import ExplorerState
from lesionkit.preprocess import ImageError

HERE = Path(__file__).parent
Action = Callable[[], Any]
PAUSE_S = 1.0  # a slider that rested this long begins a new step to undo


class ImageStack(anywidget.AnyWidget):
    """The stage and the linked panels (explorer.js). Its traits are small; pictures are messages."""

    _esm = HERE / "explorer.js"
    _css = HERE / "explorer.css"
    _html = traitlets.Unicode((HERE / "explorer.html").read_text("utf-8")).tag(sync=True)
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
        self,
        detector: Detector,
        dataset: str = "scenes",
        state: str | None = None,
        upload: bytes | None = None,
        weights: str = "reference",
        image: SceneImage | SampleImage | None = None,
    ):
        if state is None:
            self.state = ExplorerState(detector, weights, image)
        else:
            self.state = ExplorerState.from_json(detector, state, upload, weights=weights)
        self._following, self._changed_at, self._sent, self.error = False, 0.0, {}, ""
        # JupyterLab handles the messages of widgets in a thread of their own, beside the cell that runs: one at a time
        self._turn = RLock()
        self.stack = ImageStack(layout=widgets.Layout(flex="1 1 560px", min_width="0"))
        self.controls = make_controls(self.state.now, dataset)
        layout = widgets.Layout(display="flex", flex_flow="row wrap", width="100%", overflow="visible")
        super().__init__([column(self.controls), self.stack], layout=layout)
        self.add_class("lesionkit-explorer")
        if dataset != "scenes":
            with self._errors_shown():
                self._offer(dataset) if state or image else self._choose_dataset(dataset)
        self._follow()
        self._connect()

    # --- from the person to the state -----------------------------------------------------------------

    def _connect(self) -> None:
        c, state = self.controls, self.state
        self.stack.on_msg(self._on_message)
        # threshold and brush act in the browser at once; the kernel hears of them as well
        self._links = [widgets.jslink((c[n], "value"), (self.stack, n)) for n in ("threshold", "brush_px")]
        for name in VIEW:
            self.stack.observe(self._look, name)
        for name in vars(SceneImage()):
            self._on(name, lambda value, name=name: state.choose_scene(**{name: value}))
        self._on("threshold", state.set_threshold)
        self._on("guidance", lambda value: state.set_guidance(guidance=value))
        self._on("relief_factor", lambda value: state.set_guidance(relief=value))
        self._on("other", lambda value: state.set_guidance(guidance="other", other=value))
        self._on("angle", state.set_angle)
        sources = {"scene": state.choose_scene, "upload": state.choose_upload}
        sources["sample"] = lambda: self._choose_dataset(c["dataset"].value)
        self._on("source", lambda kind: sources[kind]())
        self._on("dataset", self._choose_dataset)
        self._on("sample", lambda name: name and state.choose_sample(c["dataset"].value, name))

    def _on(self, name: str, action: Callable[[Any], Any]) -> None:
        self.controls[name].observe(lambda change: self._do(lambda: action(change.new)), "value")

    def _look(self, change: Any) -> None:
        self._do(lambda: self.state.set_view(**{change.name: change.new}), quiet=True)

    def _do(self, action: Action, quiet: bool = False, reply: str | None = None, joins: bool = False) -> None:
        """A person's action: change the state, follow it, show it. quiet: nothing but the saved state changes; joins:
        it may belong to the step before, however long ago that was (a brush that rested)."""
        with self._turn, self._errors_shown(reply):
            if self._following:  # the control moved because the state did
                return
            if not (quiet or joins) and monotonic() - self._changed_at > PAUSE_S:
                self.state.end_step()
            if not quiet:
                self.stack.send({"kind": "busy"})
            action()
            self._follow()
            self._show(reply)
            self._changed_at = monotonic()

    @contextmanager
    def _errors_shown(self, reply: str | None = None) -> Iterator[None]:
        """Errors become a sentence in the view, and the controls go back to what the state says."""
        try:
            yield
        except (StateError, ImageError) as error:
            self._fail(str(error), reply)
        except Exception as error:  # a callback has nobody to raise to: without this the view would stay silent
            self._fail(f"That did not work: {type(error).__name__}, {error}. The rest still works.", reply)

    def _fail(self, text: str, reply: str | None = None) -> None:
        self.error, self._sent = text, {}  # nobody knows what of it arrived: the next picture is sent whole
        self._follow()
        self.stack.send({"kind": "error", "text": text[0].upper() + text[1:], "reply": reply})

    def _on_message(self, _widget: Any, message: dict, buffers: list) -> None:
        state, c, reply, kind = self.state, self.controls, message.get("id"), message.get("kind")
        actions = {
            "point": lambda: state.click(message["x"], message["y"]),
            "paint": lambda: state.paint(
                message["points"], c["brush_px"].value, c["strength"].value, message["tool"], message["stroke"]
            ),
            "upload": lambda: state.load_upload(bytes(buffers[0]), message["name"], bool(message.get("reduced"))),
            "load": lambda: state.load_json(message["text"]),
            "undo": state.undo,
            "redo": state.redo,
            "reset": state.reset,
        }
        if kind == "ready":
            with self._turn, self._errors_shown(reply):
                self._greet(reply)
        elif kind == "ping":
            self.stack.send({"kind": "pong", "reply": reply})
        elif kind in actions:
            self._do(actions[kind], reply=reply, joins=kind == "paint")

    def _choose_dataset(self, dataset: str | None) -> None:
        if not dataset:
            raise StateError("there is no data set on this machine: `lesionkit fetch NAME` brings one")
        self._offer(dataset)
        self.state.choose_sample(dataset, self.controls["sample"].options[0])

    def _offer(self, dataset: str) -> None:
        """The data set's images as what can be chosen."""
        names, c = images.sample_names(dataset), self.controls
        with self._moving():
            if dataset not in c["dataset"].options:
                c["dataset"].options = (*c["dataset"].options, dataset)
            c["dataset"].value, c["sample"].options = dataset, names

    # --- from the state to the view -------------------------------------------------------------------

    @contextmanager
    def _moving(self) -> Iterator[None]:
        """Controls that move meanwhile follow the state: that is not taken for a person's action."""
        before, self._following = self._following, True
        try:
            yield
        finally:
            self._following = before

    def _follow(self) -> None:
        """Every control shows what the state says."""
        now, c = self.state.now, self.controls
        values = {"source": now.image.kind, "relief_factor": now.relief}
        values |= now.part(("threshold", "guidance", "other", "angle"))
        if isinstance(now.image, SceneImage):
            values |= vars(now.image)
        with self._moving():
            if isinstance(now.image, SampleImage):
                self._follow_sample(now.image)
            for name, value in values.items():
                if not _equal(c[name].value, value):
                    c[name].value = value
            for name, value in now.part(VIEW).items():
                setattr(self.stack, name, list(value) if name == "zoom" else value)
            for kind, box in c["boxes"].items():
                box.layout.display = "" if kind == now.image.kind else "none"

    def _follow_sample(self, image: SampleImage) -> None:
        sample = self.controls["sample"]
        if self.controls["dataset"].value != image.dataset or not sample.options:
            self._offer(image.dataset)
        if image.name not in sample.options:  # a saved state may be about one of the training part
            sample.options = (image.name, *sample.options)
        sample.value = image.name

    def _greet(self, reply: str | None) -> None:
        error, self._sent = self.error, {}
        self.stack.send(*messages.hello())
        self.stack.send({"kind": "busy"})
        self._show(reply)
        if error:  # from before there was anybody to tell
            self._fail(error)

    def _show(self, reply: str | None) -> None:
        """Sends what changed since the last time: a picture that is on the screen already is not sent again."""
        message, self._sent = messages.update(self.state, reply, self._sent)
        self.stack.send(*message)
        self.error = ""


def _equal(shown: Any, value: Any) -> bool:
    """Whether a control shows the value already. A browser's slider says 1.4000000000000004: to put that right would
    be a message of its own, which comes late and throws the handle back under the mouse."""
    return shown == value or (isinstance(shown, float) and round(shown, DECIMALS) == value)
