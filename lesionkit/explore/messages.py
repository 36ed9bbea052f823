"""What the explorer tells the browser about its state: plain dictionaries, whose texts are written as a person reads
them. The pictures that go with them are made in `explorer_pictures`."""

from typing import Any

from lesionkit.explore.images import SceneImage
from lesionkit.explore.pictures import MapPicture
from lesionkit.explore.state import ExplorerState

NUMBERS = {  # label, how it is written, what it means
    "probability_area": ("probability area", "percent", "mean probability over the image"),
    "mask_area": ("mask area", "percent", "share of the image above the threshold"),
    "lesions": ("lesions marked", "count", "connected regions of the mask"),
    "sensitivity": ("sensitivity", "percent", "share of the true lesion's pixels that is marked"),
    "false_positives": ("false positives", "count", "regions that touch no true lesion"),
    "false_area": ("falsely marked area", "percent", "share of the image marked outside the true lesion"),
    "dice": ("Dice", "ratio", "overlap with the truth; not defined without a lesion"),
}


def frame(state: ExplorerState) -> dict[str, Any]:
    """The image shown: its size, the box that the networks see, its label."""
    (height, width), box = state.shown.size_hw, state.shown.prepared.box
    return {"width": width, "height": height, "box": list(box), "label": state.shown.loaded.label}


def header(side: str, m: MapPicture) -> dict[str, Any]:
    """What the browser needs beside the bytes of a map; side: where it belongs, "now", "before" or "both"."""
    height, width = m.bytes.shape
    size, values = {"width": width, "height": height}, {"low": m.low, "high": m.high, "log": m.log}
    return {"side": side, "name": m.name, "table": m.table} | size | values


def texts(state: ExplorerState) -> dict[str, Any]:
    """All of the state that is no picture."""
    return {
        "numbers": number_rows(state), "profile": profile(state), "note": state.note(), "json": state.to_json(1),
        "line": state.python_line(), "can_undo": state.can_undo, "can_redo": state.can_redo, "runs": state.runs,
    }  # fmt: skip


DIGITS = {"percent": 3, "count": 0, "ratio": 2}  # of the value that are shown; as a percentage two less


def number_rows(state: ExplorerState) -> list[dict[str, Any]]:
    """The table of numbers, as texts."""
    rows = []
    for name, values in state.numbers().items():
        label, kind, meaning = NUMBERS[name]
        texts = {side: _written(values[side], kind) for side in ("now", "original")}
        texts["change"] = _written(_shown_change(values, kind), kind, signed=True)
        rows.append({"name": name, "label": label, "help": meaning, **texts, "changed": texts["change"][0] in "+−"})
    return rows


def _shown_change(values: dict[str, float | None], kind: str) -> float | None:
    """The difference of the two numbers as they are written, so that a reader who subtracts finds the same."""
    now, original = values["now"], values["original"]
    return None if None in (now, original) else round(now, DIGITS[kind]) - round(original, DIGITS[kind])


def _written(value: float | None, kind: str, signed: bool = False) -> str:
    if value is None:
        return "—"
    sign = "+" if signed else ""
    digits = DIGITS[kind]
    text = f"{100 * value:{sign}.{digits - 2}f} %" if kind == "percent" else f"{value:{sign}.{digits}f}"
    if signed and not text.strip("+-0. %"):  # what rounds to nothing has no sign
        text = text.lstrip("+-")
    return text.replace("-", "−")


def profile(state: ExplorerState) -> dict[str, Any] | None:
    """The profile through the point that was clicked; None without one."""
    found = state.profile_at_click()
    if found is None:
        return None
    unit = "mm" if isinstance(state.now.image, SceneImage) else "relative"
    rounded = {k: [round(v, 4) for v in vs] if isinstance(vs, list) else vs for k, vs in found.items()}
    return rounded | {"unit": unit, "changed": not state.is_original}
