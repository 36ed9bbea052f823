"""What a person can choose in the explorer, checked, and as JSON. Whatever comes from outside passes here."""

import json
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any

from lesionkit.explore import whatif
from lesionkit.explore.images import IMAGES, SceneImage, StateError, number, one_of, refuse_unknown
from lesionkit.explore.whatif import Stroke

GUIDANCES = ("own", "flat", "other", "off")  # what feeds the attention; "off": every weight is 1
RELIEF = (-3.0, 5.0)
STROKE_POINTS = 2000  # a stroke of more is cut: nobody draws that, a broken file may
VIEW = ("under", "over", "opacity", "zoom")  # how it is looked at: saved, but not undone
PANELS = {
    "image": "image",
    "depth_first": "depth 1 global",
    "depth_second": "depth 2 local",
    "depth_third": "depth 3 sum",
    "depth_target": "depth 4 target",
    "attention_1": "attention 1/2",
    "attention_2": "attention 1/4",
    "attention_3": "attention 1/8",
    "attention_4": "attention 1/16",
    "attention_5": "attention 1/32",
    "depth_used": "depth used",
    "probability": "probability",
    "change": "change",
    "mask": "mask",
    "detection": "detection",
}


@dataclass(frozen=True)
class Choice:
    """Everything that a person can choose. Defaults are what the explorer opens with."""

    image: Any = field(default_factory=SceneImage)  # one of IMAGES
    threshold: float = 0.5
    guidance: str = "own"  # one of GUIDANCES
    other: int = 1  # which other image's depth, for guidance "other"
    relief: float = 1.0  # factor on the local relief of the guiding depth
    strokes: tuple[Stroke, ...] = ()
    point: tuple[float, float] | None = None
    angle: float = 0.0  # of the profile's line, degrees, 0 along x
    under: str = "image"
    over: str = "probability"
    opacity: float = 0.0
    zoom: tuple[float, float, float] = (1.0, 0.5, 0.5)  # magnification and centre, as shares of width and height


# --- checking what comes from outside -----------------------------------------------------------------


def make_stroke(given: Any) -> Stroke:
    try:
        refuse_unknown(given, Stroke)
        far = 1e5  # a brush may leave the image
        points = tuple(_pair(point, -far, far) for point in given["points"])
        return Stroke(
            one_of("tool", given["tool"], whatif.TOOLS), number("radius_px", given["radius_px"], 1, 2000),
            number("strength", given["strength"], 0, 2), points[:STROKE_POINTS] or _no_points(),
        )  # fmt: skip
    except (TypeError, KeyError) as error:
        raise StateError(f"a stroke has tool, radius_px, strength and points; this one is broken ({error})") from None


def _no_points() -> tuple:
    raise StateError("a stroke needs at least one point")


def checked_view(given: dict[str, Any]) -> dict[str, Any]:
    zoom = given["zoom"]
    if not isinstance(zoom, (list, tuple)) or len(zoom) != 3:
        raise StateError(f"zoom is {zoom!r}, but must be a magnification and two shares")
    ranges = ((1, 40), (0, 1), (0, 1))
    return {
        "under": one_of("under", given["under"], tuple(PANELS)),
        "over": one_of("over", given["over"], tuple(PANELS)),
        "opacity": number("opacity", given["opacity"], 0, 1),
        "zoom": tuple(number("zoom", value, *span) for value, span in zip(zoom, ranges, strict=True)),
    }


def from_json(text: str, default: Choice) -> Choice:
    """The choice that `to_json` wrote, every value checked. Raises StateError."""
    try:
        given = json.loads(text)
    except ValueError as error:
        raise StateError(f"this is no saved state: it is not JSON ({error})") from None
    if not isinstance(given, dict):
        raise StateError("this is no saved state: a state is a JSON object")
    refuse_unknown(given, Choice)
    image = _parse_image(given.pop("image")) if "image" in given else default.image
    strokes = given.pop("strokes", ())
    if not isinstance(strokes, (list, tuple)):
        raise StateError("strokes is no list of strokes")
    values = {f.name: getattr(default, f.name) for f in fields(Choice)} | given
    return Choice(
        image=image, strokes=tuple(make_stroke(one) for one in strokes), point=_parse_point(values["point"]),
        threshold=number("threshold", values["threshold"], 0, 1),
        guidance=one_of("guidance", values["guidance"], GUIDANCES),
        other=int(number("other", values["other"], 1, 999)), relief=number("relief", values["relief"], *RELIEF),
        angle=number("angle", values["angle"], -180, 180), **checked_view({name: values[name] for name in VIEW}),
    )  # fmt: skip


def _parse_point(given: Any) -> tuple[float, float] | None:
    return None if given is None else _pair(given, 0, 1e5)


def _pair(given: Any, low: float, high: float) -> tuple[float, float]:
    if not isinstance(given, (list, tuple)) or len(given) != 2:
        raise StateError(f"point is {given!r}, but must be x and y")
    return number("x", given[0], low, high), number("y", given[1], low, high)


def _parse_image(given: Any) -> Any:
    if not isinstance(given, dict):
        raise StateError(f"image is {given!r}, but must be an object with a kind")
    given = dict(given)
    cls = IMAGES[one_of("kind of image", given.pop("kind", None), tuple(IMAGES))]
    refuse_unknown(given, cls)
    try:
        return cls(**given).checked()
    except TypeError as error:
        raise StateError(f"the state's image is incomplete ({error})") from None


def to_json(choice: Choice, default: Choice, indent: int | None = None) -> str:
    """What of `choice` differs from `default`, as JSON."""
    kept = {f.name: getattr(choice, f.name) for f in fields(Choice)}
    kept = {name: value for name, value in kept.items() if value != getattr(default, name)}
    if "image" in kept:
        kept["image"] = {"kind": choice.image.kind} | _differences(choice.image)
    if "strokes" in kept:
        kept["strokes"] = [asdict(stroke) for stroke in choice.strokes]
    return json.dumps(kept, indent=indent, ensure_ascii=False)


def _differences(image: Any) -> dict[str, Any]:
    """The fields that differ from their defaults; those without a default always."""
    values = {f.name: getattr(image, f.name) for f in fields(image)}
    return {f.name: values[f.name] for f in fields(image) if f.default is MISSING or values[f.name] != f.default}
