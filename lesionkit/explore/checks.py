"""Values from outside, checked: a field of a dataclass says beside its default what it takes, and `build` checks it."""

from dataclasses import MISSING, field, fields
from typing import Any

DECIMALS = 4  # of every number that a person chooses; a browser's slider says 12.000000000000002


class StateError(ValueError):
    """Something that the explorer cannot do or show; one sentence for the person who asked."""


def takes(what: Any, default: Any = MISSING) -> Any:
    """A field. what: see `check`."""
    return field(default=default, metadata={"takes": what})


def build(cls: type, given: Any, what: str) -> Any:
    """A `cls` of checked values. given: the values by name; what: its name in errors. Raises StateError."""
    require(isinstance(given, dict), what, given, "an object")
    known = {f.name: f for f in fields(cls)}
    needed = {f.name for f in fields(cls) if f.default is MISSING}
    if wrong := (given.keys() - known.keys()) | (needed - given.keys()):
        raise StateError(f"{', '.join(wrong)} is unknown or missing: {what} has {', '.join(known)}")
    values = dict(given)
    for name, value in given.items():
        if value is not known[name].default:
            values[name] = check(name, value, known[name].metadata["takes"], known[name].type)
    return cls(**values)


def check(name: str, value: Any, takes: Any, kind: Any = float) -> Any:
    """The value as it is kept, rounded or read from JSON. takes: the lowest and the highest number, a list of words, a
    dict of several numbers' ranges by their names, str, or a function of name and value. kind: float or int."""
    if takes is str:
        return require(isinstance(value, str), name, value, "text")
    if callable(takes):
        return takes(name, value)
    if isinstance(takes, list):
        return require(value in takes, name, value, f"one of {', '.join(takes)}")
    if isinstance(takes, dict):
        fits = isinstance(value, (list, tuple)) and len(value) == len(takes)
        require(fits, name, value, f"a list of {', '.join(takes)}")
        return tuple(check(part, one, takes[part]) for part, one in zip(takes, value, strict=True))
    low, high = takes
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
    return kind(round(require(fits, name, value, f"a number from {low:g} to {high:g}"), DECIMALS))


def require(fits: bool, name: str, value: Any, wanted: str) -> Any:
    if not fits:
        raise StateError(f"{name} is {value!r}, but must be {wanted}")
    return value
