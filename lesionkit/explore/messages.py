"""What the explorer tells the browser about its state: plain dictionaries, whose texts are written as a person reads
them, and the bytes of pictures that go with them."""

from typing import Any

import numpy as np

from lesionkit.explore import pictures
from lesionkit.explore.choice import PANELS, VIEW, Choice
from lesionkit.explore.pictures import MapPicture
from lesionkit.explore.readings import in_box
from lesionkit.explore.state import ExplorerState
from lesionkit.segmentation import GUIDANCE

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

Message = tuple[dict[str, Any], list[bytes]]  # and its buffers


def hello() -> Message:
    """What never changes: the panels, the colour tables, and the view that a saved state leaves out."""
    tables = [pictures.table(name).tobytes() for name in pictures.TABLES]
    message = {"kind": "hello", "panels": PANELS, "tables": list(pictures.TABLES), "view": Choice().part(VIEW)}
    return message, tables


def update(state: ExplorerState, reply: str | None, sent: dict[str, Any]) -> tuple[Message, dict[str, Any]]:
    """All texts of the state, and of its pictures those that are not on the screen yet. sent: what each kind of picture
    there was made from; what is returned beside the message is that for the next time."""
    what_if = state.what_if
    shows = {"image": state.now.image, "what_if": what_if, "detection": (what_if, state.now.threshold)}
    new = {kind for kind, source in shows.items() if sent.get(kind) != source}
    maps, jpegs = _new_maps(state, new), _new_jpegs(state, new)
    message: dict[str, Any] = {"kind": "update", "reply": reply}
    if "image" in new:
        (height, width), box = state.shown.size_hw, state.shown.prepared.box
        message["frame"] = {"width": width, "height": height, "box": list(box), "label": state.shown.loaded.label}
    message["maps"] = [{"side": side} | m.header for side, m in maps]
    message["jpegs"] = [{"side": side, "name": name} for side, name, _ in jpegs]
    message |= {"numbers": number_rows(state), "profile": _profile(state), "note": note(state)}
    message |= {"json": state.to_json(1), "line": state.python_line()}
    message |= {"can_undo": state.can_undo, "can_redo": state.can_redo, "runs": state.runs}
    return (message, [m.bytes.tobytes() for _, m in maps] + [pictures.jpeg(p) for *_, p in jpegs]), shows


def _new_maps(state: ExplorerState, new: set[str]) -> list[tuple[str, MapPicture]]:
    """Maps and where they belong: "now", "before", or "both" while nothing was asked yet."""
    found, same = [], state.is_original
    if "image" in new:
        found += [("now", m) for m in pictures.image_maps(state)]
        found += [("both" if same else "before", m) for m in pictures.outcome_maps(state, state.shown.original)]
    if "what_if" in new and not (same and "image" in new):
        found += [("now", m) for m in pictures.outcome_maps(state, state.outcome)]
    return found


def _new_jpegs(state: ExplorerState, new: set[str]) -> list[tuple[str, str, np.ndarray]]:
    found = [("now", "image", state.shown.loaded.image)] if "image" in new else []
    if "detection" in new and state.is_original:
        found.append(("both", "detection", pictures.detection(state)))
    elif "detection" in new:
        sides = {"now": False, "before": True}
        found += [(side, "detection", pictures.detection(state, original)) for side, original in sides.items()]
    return found


def note(state: ExplorerState) -> str:
    """What should be known about the present choice, in words; empty when there is nothing to say."""
    now, shown, kind = state.now, state.shown, state.detector.config.guidance
    notes, bent = [shown.loaded.note], now.relief != 1 or now.strokes
    if now.point is not None and not in_box(*now.point, shown.prepared.box):
        notes.append("The point lies in the black margin: depth and attention are those of the nearest tissue.")
    if GUIDANCE[kind].needs != "depth" and (bent or now.guidance in ("flat", "other")):
        notes.append(
            f"This model's attention is fed by {kind!r}, not by depth: a changed depth cannot change its answer."
        )
        notes.append("Switching the attention off still can.")
    elif now.guidance == "off" and bent:
        notes.append("The attention is off: relief and paint have no effect until depth guides it again.")
    elif now.guidance == "flat" and now.relief != 1:
        notes.append("A flat depth has no relief to scale; paint on it to give it some.")
    return " ".join(one for one in notes if one)


def number_rows(state: ExplorerState) -> list[dict[str, Any]]:
    """The table of numbers, as texts."""
    rows = []
    for name, values in state.numbers().items():
        label, kind, meaning = NUMBERS[name]
        now, original = values["now"], values["original"]
        texts = {"now": written(now, kind), "original": written(original, kind), "change": change(now, original, kind)}
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


def change(now: float | None, original: float | None, kind: str) -> str:
    """The difference of the two numbers as they are written, so that a reader who subtracts finds the same."""
    factor, digits, _ = WRITTEN[kind]
    if now is None or original is None:
        return written(None, kind)
    return written((round(factor * now, digits) - round(factor * original, digits)) / factor, kind, "+")


def _profile(state: ExplorerState) -> dict[str, Any] | None:
    """The profile through the point that was clicked; None without one."""
    found = state.profile_at_click()
    if found is None:
        return None
    rounded = {k: [round(v, 4) for v in vs] if isinstance(vs, list) else vs for k, vs in found.items()}
    return rounded | {"changed": not state.is_original}
