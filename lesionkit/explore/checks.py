"""Values from outside, checked: a field of a dataclass says beside its default how, and `build` does it."""

from collections.abc import Callable, Iterable
from dataclasses import MISSING, field, fields
from typing import Any

DECIMALS = 4  # of every number that a person chooses; a browser's slider says 12.000000000000002


class StateError(ValueError):
    """Something that the explorer cannot do or show; one sentence for the person who asked."""


def checked(check: Callable[[str, Any], Any], default: Any = MISSING, **metadata: Any) -> Any:
    """A field of which `check` takes name and value; what it returns, rounded or read from JSON, is kept."""
    return field(default=default, metadata={"check": check, **metadata})


def ranged(low: float, high: float, default: Any = MISSING, kind: type = float) -> Any:
    """A field for a number from `low` to `high`; kind: float or int."""
    return checked(lambda name, value: kind(number(name, value, low, high)), default, range=(low, high))


def chosen(allowed: Iterable[str], default: Any = MISSING) -> Any:
    """A field for one of the `allowed` words."""
    return checked(lambda name, value: one_of(name, value, tuple(allowed)), default)


def number(name: str, value: object, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise StateError(f"{name} is {value!r}, but must be a number from {low:g} to {high:g}")
    return round(float(value), DECIMALS)


def one_of(name: str, value: object, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise StateError(f"{name} is {value!r}, but must be one of {', '.join(allowed)}")
    return value


def text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise StateError(f"{name} is {value!r}, but must be text")
    return value


def sequence(name: str, value: object, parts: str, count: int | None = None) -> tuple:
    """A list or tuple, of `count` values if that is given; parts: what it holds, for the error."""
    if not isinstance(value, (list, tuple)) or (count is not None and len(value) != count):
        raise StateError(f"{name} is {value!r}, but must be {parts}")
    return tuple(value)


def pair(name: str, value: object, low: float = 0, high: float = 1e5) -> tuple[float, float]:
    x, y = sequence(name, value, "x and y", 2)
    return number("x", x, low, high), number("y", y, low, high)


def range_of(cls: type, name: str) -> tuple[float, float]:
    """Lowest and highest value of a field made by `ranged`."""
    return cls.__dataclass_fields__[name].metadata["range"]


def build(cls: type, given: object, what: str) -> Any:
    """A `cls` of checked values. what: its name in errors. Raises StateError, also for unknown and missing names."""
    if not isinstance(given, dict):
        raise StateError(f"{what} is {given!r}, but must be an object")
    checks = {f.name: f.metadata["check"] for f in fields(cls)}
    for name in given:
        if name not in checks:
            raise StateError(f"{name!r} is not known here: use {', '.join(checks)}")
    missing = [f.name for f in fields(cls) if f.default is f.default_factory is MISSING and f.name not in given]
    if missing:
        raise StateError(f"{what} lacks {', '.join(missing)}")
    return cls(**{name: checks[name](name, value) for name, value in given.items()})
