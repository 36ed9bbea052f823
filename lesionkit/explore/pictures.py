"""The explorer's state as pictures: maps reduced to bytes with a colour table, and panels put together from them.

The browser draws from the same bytes and tables, so what a still figure shows is what the screen shows. Colour tables
are perceptually uniform and read without colour vision: viridis for depth (near is bright), magma for attention,
cividis for probability, and for what has a sign too: grey is none, yellow more, blue less. Diverging tables are equally
dark at both ends, so that without colour more and less would look the same.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure

from lesionkit import fusion
from lesionkit.explore.choice import PANELS
from lesionkit.explore.state import ExplorerState
from lesionkit.explore.whatif import Outcome

TABLES = {"depth": "viridis_r", "attention": "magma", "probability": "cividis", "signed": "cividis"}
CHANGE_SPAN = 0.5  # the change of probability that has the full colour


@dataclass(frozen=True)
class MapPicture:
    """A map of the image's crop as bytes: value = low + byte / 255 · (high − low), of a depth its logarithm, or a far
    lumen would take all colours from the wall; table: one of TABLES."""

    name: str
    bytes: np.ndarray  # uint8 h×w at the map's own resolution
    low: float
    high: float
    table: str

    @property
    def header(self) -> dict[str, Any]:
        """What the browser needs beside the bytes."""
        (height, width), log = self.bytes.shape, self.table == "depth"
        header = {"name": self.name, "table": self.table, "width": width, "height": height}
        return header | {"low": self.low, "high": self.high, "log": log}


@cache
def table(name: str) -> np.ndarray:
    """256×3 uint8 colours of one of TABLES."""
    return (colormaps[TABLES[name]](np.linspace(0, 1, 256))[:, :3] * 255).round().astype(np.uint8)


def quantised(name: str, maps: torch.Tensor, low: float, high: float, kind: str) -> MapPicture:
    values = maps[0, 0].float().cpu().numpy()
    if kind == "depth":
        values, low, high = np.log(values), np.log(low), np.log(high)
    level = (values - low) / max(high - low, 1e-9) * 255
    level = np.ascontiguousarray(level.round().clip(0, 255).astype(np.uint8))
    return MapPicture(name, level, float(low), float(high), kind)


def image_maps(state: ExplorerState) -> list[MapPicture]:
    """The maps that depend on the image alone: four depth maps; those in one unit share one scale."""
    depths = state.shown.prepared.depths
    low, high = depth_range(state)
    span = max(float(depths.second.abs().max()), 1e-3)
    in_mm = {"depth_first": depths.first, "depth_third": depths.third, "depth_target": depths.target}
    maps = [quantised(name, depth, low, high, "depth") for name, depth in in_mm.items()]
    return [*maps, quantised("depth_second", depths.second, -span, span, "signed")]


def outcome_maps(state: ExplorerState, outcome: Outcome) -> list[MapPicture]:
    """The maps that follow the what-if, on the scales of the original: a change of colour is a change of value."""
    low, high = depth_range(state)
    original = state.shown.original
    top = max(2.0, *(float(w.max()) for w in original.attention))
    change = outcome.probability - original.probability
    maps = [quantised(f"attention_{i}", w, 0, top, "attention") for i, w in enumerate(outcome.attention, 1)]
    maps.append(quantised("depth_used", outcome.depth, low, high, "depth"))
    maps.append(quantised("probability", outcome.probability, 0, 1, "probability"))
    return [*maps, quantised("change", change, -CHANGE_SPAN, CHANGE_SPAN, "signed")]


def depth_range(state: ExplorerState) -> tuple[float, float]:
    """The scale of all depth maps of an image: nearly the whole range of the target, without its rarest values."""
    low, high = np.quantile(state.shown.prepared.depths.target.cpu().numpy(), [0.005, 0.995])
    return float(low), float(max(high, low * 1.01))


def detection(state: ExplorerState, original: bool = False) -> np.ndarray:
    """The fused picture as `detect` draws it, and the true outline as a thin blue line where it is known."""
    loaded = state.shown.loaded
    drawn = fusion.overlay(loaded.image, state.probability(original) > state.now.threshold)
    if loaded.truth is not None:
        outline, _ = cv2.findContours(loaded.truth.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(drawn, outline, -1, fusion.TRUTH_RGB, 1, cv2.LINE_8)
    return drawn


def panels(state: ExplorerState) -> dict[str, np.ndarray]:
    """Every panel by its name in PANELS, uint8 h×w×3 of the image's size; outside the field of view maps are grey."""
    size_hw, box = state.shown.size_hw, state.shown.prepared.box
    pictures = {m.name: _placed(m, box, size_hw) for m in (*image_maps(state), *outcome_maps(state, state.outcome))}
    mask = (state.probability() > state.now.threshold)[..., None].repeat(3, axis=2).astype(np.uint8) * 255
    pictures |= {"image": state.shown.loaded.image, "mask": mask, "detection": detection(state)}
    return {name: pictures[name] for name in PANELS}


def _placed(map_: MapPicture, box: tuple[int, int, int, int], size_hw: tuple[int, int]) -> np.ndarray:
    x, y, width, height = box
    how = cv2.INTER_NEAREST if map_.table == "attention" else cv2.INTER_LINEAR  # attention shows its cells
    frame = np.full((*size_hw, 3), 128, np.uint8)
    frame[y : y + height, x : x + width] = cv2.resize(table(map_.table)[map_.bytes], (width, height), interpolation=how)
    return frame


def jpeg(picture: np.ndarray, quality: int = 90) -> bytes:
    return cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


class Still(Figure):
    """A figure that every Jupyter front end shows by itself, without pyplot and its backends; photographs as JPEG."""

    def _repr_jpeg_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="jpeg", dpi=92, pil_kwargs={"quality": 82, "subsampling": 0})
        return buffer.getvalue()


def still(state: ExplorerState, names: Sequence[str] = tuple(PANELS), columns: int = 5, width: float = 10.0) -> Still:
    """Panels side by side with their names: the view for readers without a kernel. Attached to no window."""
    shown, rows = panels(state), -(-len(names) // columns)
    height, wide = state.shown.size_hw
    size = (width, rows * (width / columns * height / wide + 0.25))
    figure = Still(figsize=size, dpi=72, layout="constrained")
    for number, name in enumerate(names, 1):
        axes = figure.add_subplot(rows, columns, number)
        axes.imshow(shown[name])
        axes.set_title(PANELS[name], fontsize=8, pad=2)
        axes.axis("off")
    return figure
