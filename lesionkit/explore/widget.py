"""The explorer's view: controls from ipywidgets, and one anywidget for the image stack. It hands what a person does to
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

from lesionkit import datasets
from lesionkit.detector import Detector
from lesionkit.explore import pictures
from lesionkit.explore.checks import DECIMALS, StateError
from lesionkit.explore.images import PARIS, SampleImage, SceneImage, open_dataset
from lesionkit.explore.state import GUIDANCES, VIEW, VIEWS, ExplorerState
from lesionkit.preprocess import ImageError

PAUSE_S = 1.0  # a slider that rested this long begins a new step to undo
SENTENCES = (StateError, datasets.DatasetError, ImageError)  # errors that a person can read as they are
SLIDERS = {  # title, lowest and highest value, step, and what the title does not say
    "size_mm": ("Size, mm", 3, 25, 0.5, ""),
    "relief": ("Height ×", 0, 2.5, 0.05, "Height of the lesion itself"),
    "contrast": ("Colour", 0, 0.9, 0.05, "How much the lesion's colour differs from the wall's"),
    "light": ("Light", 0.5, 1.7, 0.05, ""),
    "view_degrees": ("View, °", 80, 140, 1, ""),
    "relief_factor": ("Relief ×", -3, 5, 0.1, "1 as it is, 0 smoothed, below 0 inverted"),
    "brush_px": ("Brush, px", 3, 60, 1, "Radius of the brush in pixels of the image"),
    "strength": ("Brush force", 0.05, 1, 0.05, "Change of the depth's logarithm under the brush"),
    "threshold": ("Threshold", 0.01, 1, 0.01, "Probability above which it is called lesion"),
    "angle": ("Line, °", -90, 90, 1, "Direction of the profile's line"),
}
LISTS = {
    "source": ("Image", [("rendered scene", "scene"), ("data set", "sample"), ("own file", "upload")]),
    "view": ("View", [(label, name) for name, label in VIEWS.items()]),
    "paris": ("Paris class", PARIS),
    "screen": ("On a screen", ["no", "yes"]),
    "dataset": ("Data set", ()),
    "sample": ("Sample", ()),
    "guidance": ("Depth", [(label, name) for name, label in GUIDANCES.items()]),
}
WHOLE = {"seed": ("Scene", 0, 9999), "other": ("Other image", 1, 999)}
BOXES = {  # what belongs to a kind of image
    "scene": ("seed", "paris", "size_mm", "relief", "contrast", "light", "view_degrees", "screen"),
    "sample": ("dataset", "sample"),
    "upload": ("hint",),
}
LOADING = (  # shown until the script says that it runs, which no error of its own could do
    "The pictures are being loaded. If this line stays, the browser was not allowed to run the explorer's script: "
    "whoever runs this server must allow <code>blob:</code> in <code>script-src</code> of its Content-Security-Policy."
)
FIELDS = {name: name for name in ("threshold", "guidance", "other", "angle", "view")} | {"relief_factor": "relief"}


class ImageStack(anywidget.AnyWidget):
    """The stage and the linked panels (explorer.js). Its traits are small; pictures are messages."""

    _esm = Path(__file__).with_name("explorer.js")
    _css = Path(__file__).with_name("explorer.css")
    _html = traitlets.Unicode(Path(__file__).with_name("explorer.html").read_text("utf-8")).tag(sync=True)
    under = traitlets.Unicode("image").tag(sync=True)
    over = traitlets.Unicode("probability").tag(sync=True)
    opacity = traitlets.Float(0.0).tag(sync=True)
    threshold = traitlets.Float(0.5).tag(sync=True)
    brush_px = traitlets.Float(16.0).tag(sync=True)
    zoom = traitlets.List(traitlets.Float(), [1.0, 0.5, 0.5]).tag(sync=True)


def make_controls() -> dict[str, Any]:
    """Every control by its name; "boxes": those that belong to a kind of image; "column": all below each other."""
    look = {"style": {"description_width": "92px"}, "layout": widgets.Layout(width="270px")}
    c: dict[str, Any] = {"hint": widgets.HTML("Use <b>open…</b> above the image, or drop a file onto it.")}
    for name, (title, low, high, step, tip) in SLIDERS.items():
        texts = {"description": title, "tooltip": tip or title, "readout_format": ".2f" if step < 0.1 else ".1f"}
        c[name] = widgets.FloatSlider(min=low, max=high, step=step, **texts, **look)
    for name, (title, options) in LISTS.items():
        c[name] = widgets.Dropdown(options=options, description=title, **look)
    for name, (title, low, high) in WHOLE.items():
        c[name] = widgets.BoundedIntText(min=low, max=high, description=title, **look)
    c["brush_px"].value, c["strength"].value = 16, 0.4
    c["dataset"].options = [row["name"] for row in datasets.status() if row["present"] and row["kind"] == "masks"]
    c["boxes"] = {kind: widgets.VBox([c[name] for name in names]) for kind, names in BOXES.items()}
    titles = [widgets.HTML(f"<h4>{text}</h4>") for text in ("Image", "What if the depth were …", "Read")]
    what_if = [c[name] for name in ("guidance", "relief_factor", "other", "brush_px", "strength")]
    image = [c["source"], *c["boxes"].values(), c["view"]]
    parts = [titles[0], *image, titles[1], *what_if, titles[2], c["threshold"], c["angle"]]
    c["column"] = widgets.VBox(parts, layout=widgets.Layout(flex="0 0 auto", width="282px", overflow="visible"))
    c["column"].add_class("lk-controls")
    return c


class Explorer(widgets.HBox):
    """Put a finger on the image and see what depth does. Show it as the last expression of a cell.

    detector: any `Detector`. dataset: a data set to choose images of, beside rendered scenes and own files; it begins
    with its first one, unless `image` or `state` says another. state: JSON that an explorer saved; upload: the bytes of
    the own image that it is about. options: of `ExplorerState`, weights="…" and image, such as SceneImage(seed=7).
    Raises StateError for a state that is none, DatasetError for images that are not here.
    """

    def __init__(
        self,
        detector: Detector,
        dataset: str = "scenes",
        state: str | None = None,
        upload: bytes | None = None,
        **options,
    ):
        self.state = ExplorerState(detector, **options)
        if state is not None:
            self.state = ExplorerState.from_json(detector, state, upload, **options)
        self._acting, self._changed_at, self._sent = False, 0.0, {}
        # JupyterLab handles the messages of widgets in a thread of their own, beside the cell that runs: one at a time
        self._turn = RLock()
        self.stack = ImageStack(layout=widgets.Layout(flex="1 1 560px", min_width="0"))
        self.loading = widgets.HTML(LOADING)
        self.controls = make_controls()
        layout = widgets.Layout(display="flex", flex_flow="row wrap", width="100%", overflow="visible")
        super().__init__([self.loading, self.controls["column"], self.stack], layout=layout)
        self.add_class("lesionkit-explorer")
        if dataset != "scenes":
            self._offer(dataset) if state or options.get("image") else self._choose_dataset(dataset)
        self._follow()
        self._connect()

    def _connect(self) -> None:
        c, state = self.controls, self.state
        sources = {"scene": state.choose_scene, "sample": self._choose_dataset, "upload": state.choose_upload}
        self.stack.on_msg(self._on_message)
        # threshold and brush act in the browser at once; the kernel hears of them as well
        self._links = [widgets.jslink((c[n], "value"), (self.stack, n)) for n in ("threshold", "brush_px")]
        self.stack.observe(lambda new: self._do(lambda: state.change(**{new.name: new.new}), joins=True), list(VIEW))
        actions = {
            **{name: lambda value, name=name: state.choose_scene(**{name: value}) for name in BOXES["scene"]},
            **{name: lambda value, to=to: state.change(to, **{to: value}) for name, to in FIELDS.items()},
            "other": lambda value: state.set_guidance("other", other=value),
            "source": lambda kind: sources[kind](),
            "dataset": self._choose_dataset,
            "sample": lambda name: name and state.change(image=SampleImage(c["dataset"].value, name)),
        }
        for name, action in actions.items():
            c[name].observe(lambda new, action=action: self._do(lambda: action(new.new)), "value")

    def _on_message(self, _widget: Any, message: dict, buffers: list) -> None:
        state, c, reply, kind = self.state, self.controls, message.get("id"), message.get("kind")
        actions = {
            "ready": lambda: self.stack.send(*pictures.hello()),
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
            self._sent.clear()  # a new view has no pictures yet
            self.loading.layout.display = "none"
        if kind in actions:
            self._do(actions[kind], reply, joins=kind == "paint")

    def _do(self, action: Callable[[], Any], reply: str | None = None, joins: bool = False) -> None:
        """A person's action: change the state, follow it, show it; errors become a sentence in the view. joins: it may
        belong to the step before, however long ago that was (a brush that rested)."""
        with self._turn:
            if self._acting:  # the control moved because the state did
                return
            self._acting = True
            try:
                if not joins and monotonic() - self._changed_at > PAUSE_S:
                    self.state.step = None
                self.stack.send({"kind": "busy"})
                action()
                self._follow()
                self.stack.send(*pictures.update(self.state, reply, self._sent))
                self._changed_at = monotonic()
            except Exception as error:  # a callback has nobody to raise to: without this the view would stay silent
                text = f"that did not work: {type(error).__name__}, {error}. The rest still works."
                text = str(error) if isinstance(error, SENTENCES) else text
                self._sent.clear()  # nobody knows what of it arrived: the next picture is sent whole
                self._follow()
                self.stack.send({"kind": "error", "text": text[0].upper() + text[1:], "reply": reply})
            finally:
                self._acting = False

    def _choose_dataset(self, dataset: str | None = None) -> None:
        dataset = dataset or self.controls["dataset"].value
        if not dataset:
            raise StateError("there is no data set on this machine: `lesionkit fetch NAME` brings one")
        self._offer(dataset)
        self.state.change(image=SampleImage(dataset, self.controls["sample"].options[0]))

    def _offer(self, dataset: str) -> None:
        """The data set's images as what can be chosen."""
        names, c = [sample.name for sample in open_dataset(dataset).part("test")], self.controls
        if dataset not in c["dataset"].options:
            c["dataset"].options = (*c["dataset"].options, dataset)
        c["dataset"].value, c["sample"].options = dataset, names

    def _follow(self) -> None:
        """Every control shows what the state says."""
        now, c, image = self.state.now, self.controls, self.state.now.image
        values = {"source": image.kind} | {name: getattr(now, field) for name, field in FIELDS.items()}
        if isinstance(image, SceneImage):
            values |= {name: getattr(image, name) for name in BOXES["scene"]}
        elif isinstance(image, SampleImage):
            if c["dataset"].value != image.dataset or not c["sample"].options:
                self._offer(image.dataset)
            if image.name not in c["sample"].options:  # a saved state may be about one of the training part
                c["sample"].options = (image.name, *c["sample"].options)
            values["sample"] = image.name
        for name, value in values.items():
            shown = c[name].value
            # A browser's slider says 1.4000000000000004: to put that right would be a message of its own, which
            # comes late and throws the handle back under the mouse.
            if (round(shown, DECIMALS) if isinstance(shown, float) else shown) != value:
                c[name].value = value
        for name, value in now.part(VIEW).items():
            setattr(self.stack, name, value)
        for kind, box in c["boxes"].items():
            box.layout.display = "" if kind == image.kind else "none"
