"""The explorer's controls, from ipywidgets: what there is to set, in which range, and under which title."""

from typing import Any

import ipywidgets as widgets

from lesionkit.explore import images as explorer_images
from lesionkit.explore.choice import GUIDANCES, RELIEF, Choice
from lesionkit.explore.images import PARIS, SCENE_RANGES, SceneImage

GUIDANCE_LABELS = {"own": "the image's own", "flat": "flattened", "other": "of another image", "off": "attention off"}
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


def make_controls(now: Choice, dataset: str) -> dict[str, Any]:
    """Every control by its name, at what `now` says; "boxes": those that belong to a kind of image."""
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
    titles = {"size_mm": "Size, mm", "relief": "Height ×", "contrast": "Colour", "light": "Light",
              "view_degrees": "View, °"}  # fmt: skip
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


def column(c: dict[str, Any]) -> widgets.VBox:
    """The controls below each other, under their titles."""

    def title(text: str) -> widgets.HTML:
        return widgets.HTML(f"<h4>{text}</h4>")

    children = [
        title("Image"), c["source"], *c["boxes"].values(),
        title("What if the depth were …"), c["guidance"], c["relief_factor"], c["other"], c["brush_px"], c["strength"],
        title("Read"), c["threshold"], c["angle"],
    ]  # fmt: skip
    found = widgets.VBox(children, layout=widgets.Layout(flex="0 0 auto", width="282px", overflow="visible"))
    found.add_class("lk-controls")
    return found
