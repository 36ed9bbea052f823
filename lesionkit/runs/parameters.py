"""The parameters of the notebooks, validated: nothing that comes from outside is believed."""

import ast
import difflib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lesionkit import datasets, devices
from lesionkit.runs.profiles import PROFILES, quick
from lesionkit.segmentation import GUIDANCE

NOTEBOOKS = ("01_data", "02_depth", "03_segmentation", "04_loss_ablation", "05_evaluation")
EXTRA_NOTEBOOKS = ("explore",)
PROFILE_VARIABLE = "LESIONKIT_PROFILE"  # the profile of notebooks that were given none: for their tests
MAX_SEED = 2**32 - 1  # what numpy's global generator takes


class ParameterError(ValueError):
    """A parameter that is unknown, ill-typed or impossible; one sentence that names what is allowed."""


@contextmanager
def refusals() -> Iterator[None]:
    """Within it, what the rooms of devices and data sets refuse is a ParameterError."""
    try:
        yield
    except (devices.DeviceError, datasets.DatasetError) as error:
        raise ParameterError(str(error)) from None


# --- one parameter: its name for the message, and its value ---------------------------------------------


def one_of(*allowed: str) -> Callable[[str, Any], str]:
    """A validator: the value is one of the `allowed` strings."""

    def check(name: str, value: Any) -> str:
        if value not in allowed:
            raise ParameterError(f"{name} is {value!r}, but must be one of {', '.join(allowed)}")
        return value

    return check


def check_seed(name: str, value: Any) -> int:
    """The seed, a whole number. A bool is an int in Python, and never meant as a seed."""
    if type(value) is not int or not 0 <= value <= MAX_SEED:
        raise ParameterError(f"{name} is {value!r}, but must be a whole number from 0 to {MAX_SEED}")
    return value


def check_device(name: str, value: Any) -> str:
    """The name of a device that this machine has."""
    with refusals():
        devices.resolve(value)
    return value


def check_dataset(name: str, value: Any) -> str:
    """The name of a data set that `open_dataset` opens."""
    open_dataset(name, value)
    return value


def open_dataset(name: str, value: Any) -> datasets.Dataset | None:
    """The data set called `value`, with every file of its split; None for `scenes`, which are rendered."""
    if not isinstance(value, str):
        raise ParameterError(f"{name} is {value!r}, but must be a name: scenes, one of the registry, or folder:PATH")
    if value in datasets.DEPTH_NAMES:
        raise ParameterError(
            f"{name} is {value!r}, which holds depth but no lesion masks to train and test on: choose one of scenes, "
            f"{', '.join(datasets.NAMES)} or folder:PATH"
        )
    with refusals():
        if datasets.check_name(value) == "scenes":
            return None
        opened = datasets.open_dataset(value)
        for part in datasets.PARTS:  # files are there, but perhaps not those of the split
            opened.part(part)
    return opened


def check_run_dir(name: str, value: Any) -> str:
    """A folder that exists or can be made; "" stands for the default."""
    if not isinstance(value, str):
        raise ParameterError(f'{name} is {value!r}, but must be a path as text, or "" for the default')
    if value and any(place.exists() and not place.is_dir() for place in (Path(value), *Path(value).parents)):
        raise ParameterError(f"{name} is {value!r}, but a file stands there: give the path of a folder")
    return value


VALIDATORS: dict[str, Callable[[str, Any], Any]] = {
    "profile": one_of(*PROFILES),
    "dataset": check_dataset,
    "seed": check_seed,
    "device": check_device,
    "run_dir": check_run_dir,
}
COMMON = tuple(VALIDATORS)  # what every notebook has
# Parameters that only one notebook has. Whatever stands here goes into that notebook's record.
EXTRAS: dict[str, dict[str, Callable[[str, Any], Any]]] = {
    "03_segmentation": {"guidance": one_of(*(name for name, kind in GUIDANCE.items() if kind.alone))}
}


# --- all parameters of a notebook -----------------------------------------------------------------------


def check_parameters(notebook: str, namespace: Mapping[str, Any]) -> dict[str, Any]:
    """The validated parameters of `notebook`, read from its `globals()`. Raises ParameterError."""
    if notebook not in NOTEBOOKS + EXTRA_NOTEBOOKS:
        raise ParameterError(f"notebook {notebook!r} is not one of {', '.join(NOTEBOOKS + EXTRA_NOTEBOOKS)}")
    validators = VALIDATORS | EXTRAS.get(notebook, {})
    given = _given(namespace.get("In", ()))
    for name in given:
        if name not in validators:
            near = difflib.get_close_matches(name, validators, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ParameterError(f"{notebook} has no parameter {name!r}{hint}; it has {', '.join(validators)}")
    missing = [name for name in validators if name not in namespace]
    if missing:
        raise ParameterError(f"{notebook} does not define {', '.join(missing)} in its parameters cell")
    values = {name: check(name, namespace[name]) for name, check in validators.items()}
    wanted = os.environ.get(PROFILE_VARIABLE)
    if wanted and "profile" not in given and values["profile"] == quick().name:
        values["profile"] = VALIDATORS["profile"](PROFILE_VARIABLE, wanted)
    return values


def _given(cells: Any) -> list[str]:
    """The names that papermill assigned in a cell of its own. Of unknown ones it only logs a warning, and goes on."""
    injected = [source for source in cells if isinstance(source, str) and source.lstrip().startswith("# Parameters")]
    nodes = [node for source in injected for node in ast.walk(ast.parse(source))]
    return [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
