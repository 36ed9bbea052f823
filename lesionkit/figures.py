"""Every plot of the kit. Pictures first: galleries of images and maps; then curves, bars and intervals.

Each kind of map has one look in all of them: depth is viridis with near bright, as under the lamp; probabilities are
magma from 0 to 1; weights and signed maps diverge (purple to orange, which needs no red–green vision) around the value
that means "no change". Outlines: blue is the truth, green what was found.
"""

import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image
from scipy.ndimage import maximum_filter, minimum_filter
from torch import Tensor

from lesionkit.fusion import FOUND_RGB, TRUTH_RGB
from lesionkit.metrics.statistics import Interval

INK, GRID = "#333333", "#dddddd"
TRUTH, FOUND = (tuple(level / 255 for level in rgb) for rgb in (TRUTH_RGB, FOUND_RGB))
Numbers = Sequence | np.ndarray | pd.Series
SERIES = ("#3b6ea8", "#d9822b", "#7a5195", "#2f9e78", "#b5485d", "#6b6b6b", "#c2a83e", "#4aa3c7")
WIDTH_IN, DPI = 9.0, 92
LOOKS = {
    "depth": {"cmap": "viridis_r"},
    "signed": {"cmap": "PuOr_r", "centre": 0.0},
    "weight": {"cmap": "PuOr_r", "centre": 1.0},
    "probability": {"cmap": "magma", "vmin": 0.0, "vmax": 1.0},
    "mask": {"cmap": "gray", "vmin": 0.0, "vmax": 1.0},
    "error": {"cmap": "inferno"},
    "plain": {"cmap": "gray"},
    "image": {"cmap": None, "vmin": 0.0, "vmax": 1.0},  # has its colours
}


@dataclass(frozen=True)
class Row:
    """One row of a gallery: n images b×3×h×w, or n maps b×1×h×w (or lists of h×w) of a kind in LOOKS.

    truth and found: masks to outline. inside: where the maps mean something; the rest is left blank. limits: the same
    colour range for the whole row ("row"), each its own, or that of other maps of the kind, one a column. notes: a few
    characters to write onto each. Depth is drawn by its logarithm.
    """

    label: str
    maps: Tensor | Sequence[np.ndarray | Tensor]
    kind: str = "image"
    truth: Tensor | Sequence[np.ndarray] | None = None
    found: Tensor | Sequence[np.ndarray] | None = None
    inside: Tensor | Sequence[np.ndarray] | None = None
    limits: str | Tensor = "own"
    notes: Sequence[str] = ()


def gallery(rows: Sequence[Row], titles: Sequence[str] | None = None, width_in: float = WIDTH_IN) -> Figure:
    """Rows of images and maps under each other; column i shows the same frame in every row."""
    columns = max(len(row.maps) for row in rows)
    side = (width_in - 0.45) / columns
    how = {
        "figsize": (width_in, side * len(rows) + (0.5 if titles else 0.3)),
        "layout": "constrained",
        "squeeze": False,
    }
    bare = {"xticks": [], "yticks": [], "frame_on": False}
    fig, axes = plt.subplots(len(rows), columns, subplot_kw=bare, **how)
    fig.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.01, hspace=0.01)
    for line, row in zip(axes, rows, strict=True):
        _draw_row(line, row)
    for axis, title in zip(axes[0], titles or (), strict=False):
        axis.set_title(title, fontsize=8, color=INK)
    return fig


def _draw_row(axes: np.ndarray, row: Row) -> None:
    arrays = [_values(row, row.maps[i], i) for i in range(len(row.maps))]
    ranges = arrays
    if isinstance(row.limits, Tensor):
        ranges = [_values(row, row.limits[i], i) for i in range(len(arrays))]
    elif row.limits == "row":
        ranges = [np.stack(arrays)] * len(arrays)
    for i, (axis, array) in enumerate(zip(axes, arrays, strict=False)):
        low, high = _limits(ranges[i], LOOKS[row.kind])
        axis.imshow(array, LOOKS[row.kind]["cmap"], vmin=low, vmax=high)
        if row.kind == "mask":  # white on white has no border of its own
            axis.set_frame_on(True)
            axis.spines[:].set(color="0.6", linewidth=0.6)
        for masks, colour in ((row.truth, TRUTH), (row.found, FOUND)):
            if masks is not None and pixels(masks[i]).any():
                axis.contour(pixels(masks[i]) > 0.5, levels=[0.5], colors=colour, linewidths=1.0)
    for axis, note in zip(axes, row.notes, strict=False):
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0}
        axis.text(0.03, 0.04, note, fontsize=6.5, color=INK, transform=axis.transAxes, bbox=box)
    axes[0].set_ylabel(row.label, fontsize=8, color=INK)


def _values(row: Row, one: np.ndarray | Tensor, i: int) -> np.ndarray:
    array = pixels(one)
    if row.kind == "depth":  # 0 is no depth: the corners that a warp opened
        array = np.log(np.where(array > 0, array, np.nan))
    if row.inside is None or row.kind == "image":
        return array
    return np.where(pixels(row.inside[i]) > 0.5, array, np.nan)


def _limits(values: np.ndarray, look: dict) -> tuple[float, float]:
    if "vmin" in look:
        return look["vmin"], look["vmax"]
    low, high = np.nanpercentile(values, [1, 99])
    if "centre" in look:  # as far to one side as to the other, or the neutral colour would mean nothing
        reach = max(abs(low - look["centre"]), abs(high - look["centre"]), 1e-3)
        return look["centre"] - reach, look["centre"] + reach
    return low, max(high, low + 1e-6)


def pixels(one: np.ndarray | Tensor) -> np.ndarray:
    """A tensor c×h×w or h×w, or an array, as matplotlib wants it: h×w×3 in [0, 1], or h×w."""
    array = one.detach().cpu().float().numpy() if isinstance(one, Tensor) else np.asarray(one)
    if array.ndim == 3 and array.shape[0] == 3:
        return array.transpose(1, 2, 0).clip(0, 1)
    return array[0] if array.ndim == 3 and array.shape[0] == 1 else array


def lines(
    curves: Mapping[str, Numbers], x: Numbers | None, x_label: str, y_label: str, mark: float | tuple | None = None
) -> Figure:
    """Curves over a common x (1, 2, 3 … when None), each labelled; `mark`: a vertical line, or a span to shade."""
    fig, axis = plt.subplots(figsize=(5.2, 2.7), layout="constrained")
    dots = {"marker": "o", "markersize": 3} if max(map(len, curves.values())) < 25 else {}
    thinner = np.linspace(4.0, 1.0, len(curves)) if len(curves) > 4 else [1.7] * len(curves)  # one may hide another
    for (name, values), colour, width in zip(curves.items(), itertools.cycle(SERIES), thinner, strict=False):
        steps = range(1, len(values) + 1) if x is None else x
        axis.plot(steps, values, color=colour, label=name, linewidth=width, **dots)
    if isinstance(mark, tuple):
        axis.axvspan(*mark, color=GRID, alpha=0.6, linewidth=0)
    elif mark is not None:
        axis.axvline(mark, color=INK, linewidth=0.8, linestyle=":")
    _finish(axis, x_label, y_label, legend=len(curves) > 1)
    return fig


def intervals(values: Mapping[str, Interval], x_label: str, zero: bool = False, highlight: str | None = None) -> Figure:
    """One line per name: the mean as a dot, its 95 % interval as a bar. `zero` draws the line of no difference."""
    fig, axis = plt.subplots(figsize=(6.4, 0.32 * len(values) + 0.9), layout="constrained")
    for y, (name, one) in enumerate(values.items()):
        colour = SERIES[1] if name == highlight else SERIES[0]
        axis.plot([one.low, one.high], [y, y], color=colour, linewidth=2.2, solid_capstyle="butt")
        axis.plot(one.mean, y, "o", color=colour, markersize=5)
    if zero:
        axis.axvline(0, color=INK, linewidth=0.8)
    axis.set_yticks(range(len(values)), list(values), fontsize=8)
    axis.invert_yaxis()
    _finish(axis, x_label, "")
    return fig


def points(x: Numbers, groups: Mapping[str, Numbers], x_label: str, y_label: str, log: bool = False) -> Figure:
    """Scatter plots side by side, one per group, over the same x."""
    size = (min(WIDTH_IN, 3.1 * len(groups)), 2.8)
    fig, axes = plt.subplots(1, len(groups), figsize=size, sharey=True, layout="constrained", squeeze=False)
    for axis, (name, values), colour in zip(axes[0], groups.items(), itertools.cycle(SERIES), strict=False):
        axis.scatter(x, values, s=4, alpha=0.25, color=colour, edgecolors="none")
        axis.set_title(name, fontsize=9, color=INK)
        axis.set_xscale("log" if log else "linear")
        _finish(axis, x_label, y_label if axis is axes[0][0] else "")
    return fig


def bars(values: Mapping[str, Numbers], ticks: Sequence[str], x_label: str, y_label: str) -> Figure:
    """Grouped bars: one group per tick, one bar in it per name."""
    fig, axis = plt.subplots(figsize=(6.4, 2.7), layout="constrained")
    heights = pd.DataFrame({name: np.asarray(of) for name, of in values.items()}, index=list(ticks))
    heights.plot.bar(ax=axis, rot=0, width=0.8, color=SERIES, edgecolor="white", legend=False)
    _finish(axis, x_label, y_label, legend=len(values) > 1)
    return fig


def surface(image: Tensor, depth: Tensor, inside: Tensor, title: str = "") -> Figure:
    """The depth map as a surface in space, painted with the image; near the viewer is near the lens. Outside
    `inside` nothing is drawn; nor is the farthest tenth, as the end of the lumen would leave no room for the rest, nor
    what would join a near edge to the wall far behind it."""
    image, z, inside = (pixels(one)[::2, ::2] for one in (image, depth, inside))  # every second pixel is fine enough
    seen = inside > 0.5
    seen &= z <= np.quantile(z[seen], 0.9)
    seen &= maximum_filter(z, 3) < 1.25 * minimum_filter(z, 3)
    h, w = z.shape
    space = (np.linspace(-1, 1, w) * z, z, -np.linspace(-1, 1, h)[:, None] * z)
    fig, axis = plt.subplots(figsize=(5.0, 3.9), layout="constrained", subplot_kw={"projection": "3d"})
    plain = {"rstride": 1, "cstride": 1, "shade": False, "linewidth": 0, "antialiased": False}
    axis.plot_surface(*space, facecolors=np.dstack([image, seen]), **plain)  # the fourth channel is opacity
    limits = [(along[seen].min(), along[seen].max()) for along in space]
    axis.set(xlim=limits[0], ylim=limits[1], zlim=limits[2], xticks=[], zticks=[])
    axis.set_box_aspect([high - low for low, high in limits], zoom=1.1)
    axis.view_init(elev=25, azim=-60)
    axis.set_ylabel("depth, mm", fontsize=8)
    axis.tick_params(labelsize=6, colors=INK)
    axis.set_title(title, fontsize=9, color=INK)
    return fig


def _finish(axis: plt.Axes, x_label: str, y_label: str, legend: bool = False) -> None:
    axis.set_xlabel(x_label, fontsize=8, color=INK)
    axis.set_ylabel(y_label, fontsize=8, color=INK)
    axis.tick_params(labelsize=7, colors=INK)
    axis.grid(color=GRID, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    if legend:
        axis.legend(fontsize=7, frameon=False)


def show(fig: Figure, folder: Path, name: str, data: pd.DataFrame | None = None) -> None:
    """Writes folder/NAME.png, and NAME.csv with the figures it shows; then displays the figure in the notebook and
    closes it. Plots are smallest as PNG with a palette, photographs as JPEG; 24-bit PNG throughout would make a
    notebook of several megabytes, which nobody opens on the web."""
    from IPython import display

    folder.mkdir(parents=True, exist_ok=True)
    if data is not None:
        data.to_csv(folder / f"{name}.csv", float_format="%.6g")
    fig.savefig(folder / f"{name}.png", dpi=2 * DPI)
    raw, plot, photograph = io.BytesIO(), io.BytesIO(), io.BytesIO()
    fig.savefig(raw, dpi=DPI)
    plt.close(fig)
    picture = Image.open(raw).convert("RGB")
    picture.quantize(200, dither=Image.Dither.NONE).save(plot, "PNG", optimize=True)
    picture.save(photograph, "JPEG", quality=82, subsampling=0, optimize=True)
    # a photograph looks better as JPEG, so the palette must save a good deal to be taken
    chosen = min((plot, photograph), key=lambda one: len(one.getvalue()) * (1.6 if one is plot else 1))
    display.display(display.Image(chosen.getvalue(), alt=name.replace("_", " ")))
