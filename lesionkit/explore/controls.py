"""The explorer's controls, from ipywidgets: what there is to set, in which range, and under which title."""

from typing import Any

import ipywidgets as widgets

from lesionkit.explore import images
from lesionkit.explore.checks import range_of
from lesionkit.explore.choice import GUIDANCES, Choice
from lesionkit.explore.images import PARIS, SceneImage

SOURCES = [("rendered scene", "scene"), ("data set", "sample"), ("own file", "upload")]
SCENE_SLIDERS = {  # title, step, and what the title does not say
    "size_mm": ("Size, mm", 0.5, ""),
    "relief": ("Height ×", 0.05, "Height of the lesion itself"),
    "contrast": ("Colour", 0.05, "How much the lesion's colour differs from the wall's"),
    "light": ("Light", 0.05, ""),
    "view_degrees": ("View, °", 1, ""),
}
LOOK = {"style": {"description_width": "92px"}, "layout": widgets.Layout(width="270px")}


def _slider(title: str, value: float, low: float, high: float, step: float, tip: str = "") -> widgets.FloatSlider:
    digits = ".2f" if step < 0.1 else ".1f"
    texts = {"description": title, "tooltip": tip or title, "readout_format": digits}
    return widgets.FloatSlider(value=value, min=low, max=high, step=step, **texts, **LOOK)


def _dropdown(title: str, options: Any, value: Any) -> widgets.Dropdown:
    return widgets.Dropdown(options=options, value=value, description=title, **LOOK)


def _whole(title: str, value: int, low: int, high: int) -> widgets.BoundedIntText:
    return widgets.BoundedIntText(value, min=low, max=high, description=title, **LOOK)


def make_controls(now: Choice, dataset: str) -> dict[str, Any]:
    """Every control by its name, at what `now` says; "boxes": those that belong to a kind of image."""
    guidances = [(label, name) for name, label in GUIDANCES.items()]
    relief, scene, sample = range_of(Choice, "relief"), _scene_controls(), _sample_controls(dataset)
    own = {"": widgets.HTML("Use <b>open…</b> above the image, or drop a file onto it.")}
    boxes = {"scene": scene, "sample": sample, "upload": own}
    return {
        "source": _dropdown("Image", SOURCES, "scene"),
        "threshold": _slider("Threshold", now.threshold, 0.01, 1, 0.01, "Probability above which it is called lesion"),
        "guidance": _dropdown("Depth", guidances, now.guidance),
        "relief_factor": _slider("Relief ×", now.relief, *relief, 0.1, "1 as it is, 0 smoothed, below 0 inverted"),
        "other": _whole("Other image", now.other, 1, 999),
        "brush_px": _slider("Brush, px", 16, 3, 60, 1, "Radius of the brush in pixels of the image"),
        "strength": _slider("Brush force", 0.4, 0.05, 1.0, 0.05, "Change of the depth's logarithm under the brush"),
        "angle": _slider("Line, °", now.angle, -90, 90, 1, "Direction of the profile's line"),
        "boxes": {kind: widgets.VBox(list(controls.values())) for kind, controls in boxes.items()},
        **scene,
        **sample,
    }


def _scene_controls() -> dict[str, Any]:
    first = SceneImage()
    controls = {"seed": _whole("Scene", first.seed, 0, 9999), "paris": _dropdown("Paris class", PARIS, first.paris)}
    for name, (title, *rest) in SCENE_SLIDERS.items():
        controls[name] = _slider(title, getattr(first, name), *range_of(SceneImage, name), *rest)
    return controls


def _sample_controls(dataset: str) -> dict[str, Any]:
    names = images.available_datasets()
    if dataset != "scenes" and dataset not in names:
        names = [dataset, *names]
    chosen = dataset if dataset in names else (names or [None])[0]
    return {"dataset": _dropdown("Data set", names, chosen), "sample": _dropdown("Sample", [], None)}


def column(c: dict[str, Any]) -> widgets.VBox:
    """The controls below each other, under their titles."""
    titled = {
        "Image": [c["source"], *c["boxes"].values()],
        "What if the depth were …": [c[n] for n in ("guidance", "relief_factor", "other", "brush_px", "strength")],
        "Read": [c["threshold"], c["angle"]],
    }
    children = [part for title, parts in titled.items() for part in (widgets.HTML(f"<h4>{title}</h4>"), *parts)]
    found = widgets.VBox(children, layout=widgets.Layout(flex="0 0 auto", width="282px", overflow="visible"))
    found.add_class("lk-controls")
    return found
