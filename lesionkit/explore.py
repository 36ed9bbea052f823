"""The explorer's view: controls from ipywidgets, one anywidget for the image stack. Thin: it hands what a person does
to `ExplorerState` and shows what follows.

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

from lesionkit import explorer_images, explorer_pictures
from lesionkit.detector import Detector, ImageError
from lesionkit.explorer_choice import GUIDANCES, PANELS, RELIEF, VIEW, Choice
from lesionkit.explorer_images import DECIMALS, PARIS, SCENE_RANGES, SampleImage, SceneImage, StateError
from lesionkit.explorer_pictures import TABLES, MapPicture
from lesionkit.explorer_state import ExplorerState
from lesionkit.preprocess import PreprocessError

__all__ = ["Explorer", "ImageStack"]

ASSETS = Path(__file__).parent / "assets"
PAUSE_S = 1.0  # a slider that rested this long begins a new step to undo
GUIDANCE_LABELS = {"own": "the image's own", "flat": "flattened", "other": "of another image", "off": "attention off"}
NUMBERS = {  # label, how it is written, what it means
    "probability_area": ("probability area", "percent", "mean probability over the image"),
    "mask_area": ("mask area", "percent", "share of the image above the threshold"),
    "lesions": ("lesions marked", "count", "connected regions of the mask"),
    "sensitivity": ("sensitivity", "percent", "share of the true lesion's pixels that is marked"),
    "false_positives": ("false positives", "count", "regions that touch no true lesion"),
    "false_area": ("falsely marked area", "percent", "share of the image marked outside the true lesion"),
    "dice": ("Dice", "ratio", "overlap with the truth; not defined without a lesion"),
}


class ImageStack(anywidget.AnyWidget):
    """The stage and the linked panels (assets/explorer.js). Its traits are small; pictures are messages."""

    _esm = ASSETS / "explorer.js"
    _css = ASSETS / "explorer.css"
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
        self.controls = _make_controls(self.state.now, dataset)
        children = [_column(self.controls), self.stack]
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
            message["frame"] = _frame(state)
        maps, jpegs = self._new_maps(), self._new_jpegs()
        message["maps"] = [_header(side, m) for side, m in maps]
        message["jpegs"] = [{"side": side, "name": name} for side, name, _ in jpegs]
        message |= {
            "numbers": _number_rows(state), "profile": _profile(state), "note": state.note(), "json": state.to_json(1),
            "line": state.python_line(), "can_undo": state.can_undo, "can_redo": state.can_redo, "runs": state.runs,
        }  # fmt: skip
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


# --- what the messages hold ---------------------------------------------------------------------------


def _frame(state: ExplorerState) -> dict[str, Any]:
    (height, width), box = state.shown.size_hw, state.shown.prepared.box
    return {"width": width, "height": height, "box": list(box), "label": state.shown.loaded.label}


def _header(side: str, m: MapPicture) -> dict[str, Any]:
    height, width = m.bytes.shape
    return {
        "side": side,
        "name": m.name,
        "width": width,
        "height": height,
        "low": m.low,
        "high": m.high,
        "log": m.log,
        "table": m.table,
    }


def _number_rows(state: ExplorerState) -> list[dict[str, Any]]:
    rows = []
    for name, values in state.numbers().items():
        label, kind, meaning = NUMBERS[name]
        texts = {side: _written(values[side], kind, signed=side == "change") for side in ("now", "original", "change")}
        rows.append({"name": name, "label": label, "help": meaning, **texts, "changed": texts["change"][0] in "+−"})
    return rows


def _written(value: float | None, kind: str, signed: bool) -> str:
    if value is None:
        return "—"
    sign = "+" if signed else ""
    text = {"percent": f"{100 * value:{sign}.1f} %", "count": f"{value:{sign}.0f}", "ratio": f"{value:{sign}.2f}"}[kind]
    if signed and not text.strip("+-0. %"):  # what rounds to nothing has no sign
        text = text.lstrip("+-")
    return text.replace("-", "−")


def _profile(state: ExplorerState) -> dict[str, Any] | None:
    profile = state.profile_at_click()
    if profile is None:
        return None
    unit = "mm" if isinstance(state.now.image, SceneImage) else "relative"
    rounded = {k: [round(v, 4) for v in vs] if isinstance(vs, list) else vs for k, vs in profile.items()}
    return rounded | {"unit": unit, "changed": not state.is_original}


# --- controls -----------------------------------------------------------------------------------------

SOURCES = [("rendered scene", "scene"), ("data set", "sample"), ("own file", "upload")]
STYLE = {"description_width": "92px"}
WIDTH = widgets.Layout(width="270px")


def _slider(
    description: str, value: float, low: float, high: float, step: float, tooltip: str = ""
) -> widgets.FloatSlider:
    return widgets.FloatSlider(
        value=value, min=low, max=high, step=step, description=description, tooltip=tooltip or description,
        style=STYLE, layout=WIDTH, readout_format=".2f" if step < 0.1 else ".1f",
    )  # fmt: skip


def _dropdown(description: str, options: Any, value: Any) -> widgets.Dropdown:
    return widgets.Dropdown(options=options, value=value, description=description, style=STYLE, layout=WIDTH)


def _whole(description: str, value: int, low: int, high: int) -> widgets.BoundedIntText:
    return widgets.BoundedIntText(value, min=low, max=high, description=description, style=STYLE, layout=WIDTH)


def _make_controls(now: Any, dataset: str) -> dict[str, Any]:
    c: dict[str, Any] = {
        "source": _dropdown("Image", SOURCES, "scene"),
        "threshold": _slider("Threshold", now.threshold, 0.01, 1, 0.01, "Probability above which it is called lesion"),
        "guidance": _dropdown("Depth", [(GUIDANCE_LABELS[kind], kind) for kind in GUIDANCES], now.guidance),
        "relief_factor": _slider("Relief ×", now.relief, *RELIEF, 0.1, "1 as it is, 0 smoothed, below 0 inverted"),
        "other": _whole("Other image", now.other, 1, 999),
        "brush_px": _slider("Brush, px", 16, 3, 60, 1, "Radius of the brush in pixels of the image"),
        "strength": _slider("Brush force", 0.4, 0.05, 1.0, 0.05, "Change of the depth's logarithm under the brush"),
        "angle": _slider("Line, °", now.angle, -90, 90, 1, "Direction of the profile's line"),
    }  # fmt: skip
    c |= _scene_controls() | _sample_controls(dataset)
    own = widgets.HTML("Use <b>open…</b> above the image, or drop a file onto it.")
    scene = [c[name] for name in ("seed", "paris", *SCENE_RANGES)]
    boxes = {"scene": scene, "sample": [c["dataset"], c["sample"]], "upload": [own]}
    return c | {"boxes": {kind: widgets.VBox(children) for kind, children in boxes.items()}}


def _scene_controls() -> dict[str, Any]:
    first = SceneImage()
    titles = {
        "size_mm": "Size, mm",
        "relief": "Height ×",
        "contrast": "Colour",
        "light": "Light",
        "view_degrees": "View, °",
    }
    tips = {"contrast": "How much the lesion's colour differs from the wall's", "relief": "Height of the lesion itself"}
    steps = {"size_mm": 0.5, "view_degrees": 1}
    sliders = {
        name: _slider(titles[name], getattr(first, name), *span, steps.get(name, 0.05), tips.get(name, ""))
        for name, span in SCENE_RANGES.items()
    }
    paris = _dropdown("Paris class", list(PARIS), first.paris)
    return {"seed": _whole("Scene", first.seed, 0, 9999), "paris": paris, **sliders}


def _sample_controls(dataset: str) -> dict[str, Any]:
    names = explorer_images.available_datasets()
    if dataset != "scenes" and dataset not in names:
        names = [dataset, *names]
    chosen = dataset if dataset in names else (names or [None])[0]
    return {"dataset": _dropdown("Data set", names, chosen), "sample": _dropdown("Sample", [], None)}


def _column(c: dict[str, Any]) -> widgets.VBox:
    def title(text: str) -> widgets.HTML:
        return widgets.HTML(f"<h4>{text}</h4>")

    children = [
        title("Image"), c["source"], *c["boxes"].values(),
        title("What if the depth were …"), c["guidance"], c["relief_factor"], c["other"], c["brush_px"], c["strength"],
        title("Read"), c["threshold"], c["angle"],
    ]  # fmt: skip
    column = widgets.VBox(children, layout=widgets.Layout(flex="0 0 auto", width="282px", overflow="visible"))
    column.add_class("lk-controls")
    return column
