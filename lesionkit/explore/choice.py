"""What a person can choose in the explorer, and as JSON."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from lesionkit.explore.checks import StateError, build, checked, chosen, number, one_of, pair, ranged, sequence
from lesionkit.explore.images import IMAGES, SceneImage
from lesionkit.explore.whatif import Stroke

# what feeds the attention, as it is written; "off": every weight is 1
GUIDANCES = {"own": "the image's own", "flat": "flattened", "other": "of another image", "off": "attention off"}
VIEW = ("under", "over", "opacity", "zoom")  # how it is looked at: saved, but not undone
PANELS = {
    "image": "image",
    "depth_first": "depth 1 global",
    "depth_second": "depth 2 local",
    "depth_third": "depth 3 sum",
    "depth_target": "depth 4 target",
    **{f"attention_{scale}": f"attention 1/{2**scale}" for scale in range(1, 6)},
    "depth_used": "depth used",
    **{name: name for name in ("probability", "change", "mask", "detection")},
}


def _image(name: str, value: object) -> Any:
    if isinstance(value, tuple(IMAGES.values())):
        value = {"kind": value.kind} | vars(value)
    if not isinstance(value, dict):
        raise StateError(f"{name} is {value!r}, but must be an object with a kind")
    kind = one_of("kind of image", value.get("kind"), tuple(IMAGES))
    return build(IMAGES[kind], {key: v for key, v in value.items() if key != "kind"}, "the state's image")


def _strokes(name: str, value: object) -> tuple[Stroke, ...]:
    strokes = sequence(name, value, "a list of strokes")
    return tuple(one if isinstance(one, Stroke) else build(Stroke, one, "a stroke") for one in strokes)


def _zoom(name: str, value: object) -> tuple[float, float, float]:
    magnification, x, y = sequence(name, value, "a magnification and two shares", 3)
    return number(name, magnification, 1, 40), number(name, x, 0, 1), number(name, y, 0, 1)


@dataclass(frozen=True)
class Choice:
    """Everything that a person can choose. Defaults are what the explorer opens with. Raises StateError."""

    image: Any = field(default_factory=SceneImage, metadata={"check": _image})  # one of IMAGES
    threshold: float = ranged(0, 1, 0.5)
    guidance: str = chosen(GUIDANCES, "own")
    other: int = ranged(1, 999, 1, int)  # which other image's depth, for guidance "other"
    relief: float = ranged(-3, 5, 1.0)  # factor on the local relief of the guiding depth
    strokes: tuple[Stroke, ...] = checked(_strokes, ())
    point: tuple[float, float] | None = checked(lambda name, value: None if value is None else pair(name, value), None)
    angle: float = ranged(-180, 180, 0.0)  # of the profile's line, degrees, 0 along x
    under: str = chosen(PANELS, "image")
    over: str = chosen(PANELS, "probability")
    opacity: float = ranged(0, 1, 0.0)
    zoom: tuple[float, float, float] = checked(_zoom, (1.0, 0.5, 0.5))  # magnification, centre as shares of the size

    def part(self, names: Iterable[str]) -> dict[str, Any]:
        """The values of these fields by name."""
        return {name: getattr(self, name) for name in names}


def from_json(text: str, default: Choice) -> Choice:
    """The choice that `to_json` wrote. Raises StateError."""
    try:
        given = json.loads(text)
    except ValueError as error:
        raise StateError(f"this is no saved state: it is not JSON ({error})") from None
    if not isinstance(given, dict):
        raise StateError("this is no saved state: a state is a JSON object")
    return build(Choice, vars(default) | given, "the state")


def to_json(choice: Choice, default: Choice, indent: int | None = None) -> str:
    """What of `choice` differs from `default`, as JSON."""
    kept = {name: value for name, value in vars(choice).items() if value != getattr(default, name)}
    if "image" in kept:
        image = choice.image
        usual = {f.name: f.default for f in fields(image)}  # of a field without a default: none that is equal
        kept["image"] = {"kind": image.kind} | {k: v for k, v in vars(image).items() if v != usual[k]}
    if "strokes" in kept:
        kept["strokes"] = [asdict(stroke) for stroke in choice.strokes]
    return json.dumps(kept, indent=indent, ensure_ascii=False)
