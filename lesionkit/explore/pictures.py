"""What the explorer shows of its state: maps as bytes with a colour table, panels put together from them, and the
messages that bring both to the browser, with texts as a person reads them.

The browser draws from the same bytes and tables, so what a still figure shows is what the screen shows. Colour tables
are perceptually uniform and read without colour vision: viridis for depth (near is bright), magma for attention,
cividis for probability, and for what has a sign too: grey is none, yellow more, blue less. Diverging tables are equally
dark at both ends, so that without colour more and less would look the same.
"""

import io
from collections.abc import Sequence
from functools import cache
from typing import Any

import cv2
import numpy as np
from IPython.display import Image as Displayed
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import Tensor

from lesionkit import fusion
from lesionkit.explore.state import PANELS, VIEW, Choice, ExplorerState
from lesionkit.explore.whatif import Outcome, in_box
from lesionkit.segmentation import GUIDANCE, strongest_channels

TABLES = {"depth": "viridis_r", "attention": "magma", "probability": "cividis", "signed": "cividis"}
CHANGE_SPAN = 0.5  # the change of probability that has the full colour
IMAGE_MAPS = 4  # the first of all maps; they depend on the image alone
NUMBERS = {  # label, how it is written, what it means
    "probability_area": ("probability area", "percent", "mean probability over the image"),
    "mask_area": ("mask area", "percent", "share of the image above the threshold"),
    "lesions": ("lesions marked", "count", "connected regions of the mask"),
    "sensitivity": ("sensitivity", "percent", "share of the true lesion's pixels that is marked"),
    "false_positives": ("false positives", "count", "regions that touch no true lesion"),
    "false_area": ("falsely marked area", "percent", "share of the image marked outside the true lesion"),
    "dice": ("Dice", "ratio", "overlap with the truth; not defined without a lesion"),
}
WRITTEN = {"percent": (100, 1, " %"), "count": (1, 0, ""), "ratio": (1, 2, "")}  # factor, digits, unit


@cache
def table(name: str) -> np.ndarray:
    """256×3 uint8 colours of one of TABLES."""
    return (colormaps[TABLES[name]](np.linspace(0, 1, 256))[:, :3] * 255).round().astype(np.uint8)


def quantised(name: str, values: Tensor, low: float, high: float, kind: str) -> tuple[dict, np.ndarray]:
    """What the browser needs to know of a map, and its bytes, uint8 h×w. kind: one of TABLES. low, high: the values of
    the bytes 0 and 255; of a depth, its logarithm's: a far lumen would take all colours from the wall."""
    array, log = values[0, 0].float().cpu().numpy(), kind == "depth"
    if log:
        array, low, high = np.log(array), np.log(low), np.log(high)
    level = ((array - low) / max(high - low, 1e-9) * 255).round().clip(0, 255).astype(np.uint8)
    (height, width), scale = level.shape, {"low": float(low), "high": float(high), "log": log}
    return {"name": name, "table": kind, "width": width, "height": height} | scale, level


def maps(state: ExplorerState, outcome: Outcome) -> list[tuple[dict, np.ndarray]]:
    """The maps of the image, IMAGE_MAPS of them, and those of an outcome, on the scales of the original: a change of
    colour is a change of value. Maps in one unit share one scale."""
    depths, original = state.shown.depths, state.original
    # nearly the whole range, without its rarest values
    low, high = np.quantile(depths.target.cpu().numpy(), [0.005, 0.995])
    mm = (low, max(high, low * 1.01), "depth")
    span = max(float(depths.second.abs().max()), 1e-3)
    picked = strongest_channels(original.weights)
    strongest = [w[:, c : c + 1] for w, c in zip(outcome.weights, picked, strict=True)]
    top = max(2.0, *(float(w[:, c].max()) for w, c in zip(original.weights, picked, strict=True)))
    reach = max(0.1, *(float((w - 1).abs().max()) for w in original.attention))  # means lie closer to 1
    change = outcome.probability - original.probability
    values = {
        "depth_first": (depths.first, *mm),
        "depth_second": (depths.second, -span, span, "signed"),
        "depth_third": (depths.third, *mm),
        "depth_target": (depths.target, *mm),
        **{f"attention_{i}": (w, 1 - reach, 1 + reach, "attention") for i, w in enumerate(outcome.attention, 1)},
        **{f"strongest_{i}": (w, 0, top, "attention") for i, w in enumerate(strongest, 1)},
        "depth_used": (outcome.depth, *mm),
        "probability": (outcome.probability, 0, 1, "probability"),
        "change": (change, -CHANGE_SPAN, CHANGE_SPAN, "signed"),
    }
    return [quantised(name, *row) for name, row in values.items()]


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
    x, y, width, height = state.shown.box
    mask = (state.probability() > state.now.threshold)[..., None].repeat(3, axis=2).astype(np.uint8) * 255
    shown = {"image": state.shown.loaded.image, "mask": mask, "detection": detection(state)}
    for header, level in maps(state, state.outcome):
        how = cv2.INTER_NEAREST if header["table"] == "attention" else cv2.INTER_LINEAR  # attention shows its cells
        frame = shown[header["name"]] = np.full((*state.shown.size_hw, 3), 128, np.uint8)
        crop = cv2.resize(table(header["table"])[level], (width, height), interpolation=how)
        frame[y : y + height, x : x + width] = crop
    return {name: shown[name] for name in PANELS}


def still(state: ExplorerState, names: Sequence[str] = tuple(PANELS), columns: int = 5) -> Displayed:
    """Panels side by side with their names, as a JPEG that every Jupyter front end shows without a kernel."""
    shown, rows = panels(state), -(-len(names) // columns)
    height, width = state.shown.size_hw
    figure = Figure(figsize=(10, rows * (10 / columns * height / width + 0.25)), layout="constrained")
    for number, name in enumerate(names, 1):
        axes = figure.add_subplot(rows, columns, number)
        axes.imshow(shown[name])
        axes.set_title(PANELS[name], fontsize=8, pad=2)
        axes.axis("off")
    file = io.BytesIO()
    figure.savefig(file, format="jpeg", dpi=92, pil_kwargs={"quality": 82, "subsampling": 0})
    return Displayed(file.getvalue())


def hello() -> tuple[dict, list[bytes]]:
    """A message of what never changes, the panels and the view that a saved state leaves out, and its buffers, the
    colour tables."""
    tables = [table(name).tobytes() for name in TABLES]
    return {"kind": "hello", "panels": PANELS, "tables": list(TABLES), "view": Choice().part(VIEW)}, tables


def update(state: ExplorerState, reply: str | None, sent: dict[str, Any]) -> tuple[dict, list[bytes]]:
    """All texts of the state, and of its pictures those that are not on the screen yet, each for the side "now",
    "before", or "both" while nothing was asked. sent: what each kind of picture there was made from; is updated."""
    now, original, shown = state.outcome, state.original, state.shown
    sides = {"both": now} if now is original else {"now": now, "before": original}
    shows = {"image": state.now.image, "maps": now, "detection": (now, state.now.threshold)}
    new = {kind for kind, source in shows.items() if sent.get(kind) != source}
    message: dict[str, Any] = {"kind": "update", "reply": reply}
    drawn, photographs = [], []
    if "image" in new:
        (height, width), label = shown.size_hw, shown.loaded.label
        message["frame"] = {"width": width, "height": height, "box": list(shown.box), "label": label}
        photographs.append(("now", "image", shown.loaded.image))
        drawn += [("now", one) for one in maps(state, now)[:IMAGE_MAPS]]
        drawn += [(side, one) for side, outcome in sides.items() for one in maps(state, outcome)[IMAGE_MAPS:]]
    elif "maps" in new:
        drawn += [("now", one) for one in maps(state, now)[IMAGE_MAPS:]]
    if "detection" in new:
        photographs += [(side, "detection", detection(state, outcome is original)) for side, outcome in sides.items()]
    buffers = [level.tobytes() for _, (_, level) in drawn]
    for *_, picture in photographs:
        buffers.append(cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    message["maps"] = [{"side": side} | header for side, (header, _) in drawn]
    message["jpegs"] = [{"side": side, "name": name} for side, name, _ in photographs]
    message |= {"numbers": number_rows(state), "profile": state.profile_at_click(), "note": note(state)}
    message |= {"json": state.to_json(1), "line": state.python_line(), "runs": state.runs}
    sent.update(shows)
    return message | {"can_undo": state.can_undo, "can_redo": state.can_redo}, buffers


def note(state: ExplorerState) -> str:
    """What should be known about the present choice, in words; empty when there is nothing to say."""
    now, source = state.now, state.detector.config.guidance
    asked = now.relief != 1 or now.strokes or now.guidance in ("flat", "other")
    deaf = GUIDANCE[source].needs != "depth" and asked
    margin = now.point is not None and not in_box(*now.point, state.shown.box)
    notes = {
        state.shown.loaded.note: True,
        "The point lies in the black margin: depth and attention are those of the nearest tissue.": margin,
        f"This model's attention is fed by {source!r}, not by depth, which cannot change its answer.": deaf,
    }
    return " ".join(text for text, holds in notes.items() if holds and text)


def number_rows(state: ExplorerState) -> list[dict[str, Any]]:
    """The table of numbers, as texts."""
    rows = []
    for name, values in state.numbers().items():
        label, kind, meaning = NUMBERS[name]
        texts = {which: written(value, kind, "+" if which == "change" else "") for which, value in values.items()}
        rows.append({"name": name, "label": label, "help": meaning, **texts, "changed": texts["change"][0] in "+−"})
    return rows


def written(value: float | None, kind: str, sign: str = "") -> str:
    """A number as a person reads it; kind: one of WRITTEN; sign "+": also for what is positive, but not for what rounds
    to nothing."""
    if value is None:
        return "—"
    factor, digits, unit = WRITTEN[kind]
    value = round(factor * value, digits) + 0.0  # no negative zero
    return f"{value:{sign if value else ''}.{digits}f}{unit}".replace("-", "−")
