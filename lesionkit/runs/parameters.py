"""The parameters of the notebooks, validated: nothing that comes from outside is believed."""

import ast
import difflib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from lesionkit import datasets, devices
from lesionkit.runs.profiles import PROFILES, quick
from lesionkit.segmentation import GUIDANCE

NOTEBOOKS = ("01_data", "02_depth", "03_segmentation", "04_loss_ablation", "05_evaluation")
EXTRA_NOTEBOOKS = ("explore",)
# What notebooks leave for later ones; removed before they run again, so that nobody else's is taken for it.
ARTEFACTS = {"02_depth": "depth.safetensors", "03_segmentation": "reference.safetensors"}
PROFILE_VARIABLE = "LESIONKIT_PROFILE"  # the profile of notebooks that were given none: for their tests
MAX_SEED = 2**32 - 1  # what numpy's global generator takes


class ParameterError(ValueError):
    """A parameter that is unknown, ill-typed or impossible; one sentence that names what is allowed."""


@contextmanager
def refusals() -> Iterator[None]:
    """Within it (or a function it decorates), what devices and data sets refuse is a ParameterError."""
    try:
        yield
    except (devices.DeviceError, datasets.DatasetError) as error:
        raise ParameterError(str(error)) from None


def check_choice(allowed: tuple[str, ...], name: str, value: Any) -> None:
    """The value is one of the `allowed` strings."""
    if value not in allowed:
        raise ParameterError(f"{name} is {value!r}, but must be one of {', '.join(allowed)}")


def check_seed(name: str, value: Any) -> None:
    """The seed, a whole number. A bool is an int in Python, and never meant as a seed."""
    if type(value) is not int or not 0 <= value <= MAX_SEED:
        raise ParameterError(f"{name} is {value!r}, but must be a whole number from 0 to {MAX_SEED}")


def check_dataset(name: str, value: Any) -> datasets.Dataset | None:
    """Return the data set called `value`, with every file of its split; None for `scenes`, which are rendered."""
    if not isinstance(value, str):
        raise ParameterError(f"{name} is {value!r}, but must be a name: scenes, one of the registry, or folder:PATH")
    if value in datasets.DEPTH_NAMES:
        choice = f"choose one of scenes, {', '.join(datasets.NAMES)} or folder:PATH"
        raise ParameterError(
            f"{name} is {value!r}, which holds depth but no lesion masks to train and test on: {choice}"
        )
    if datasets.check_name(value) == "scenes":
        return None
    opened = datasets.open_dataset(value)
    for part in datasets.PARTS:  # files are there, but perhaps not those of the split
        opened.part(part)
    return opened


def check_run_dir(name: str, value: Any) -> None:
    """A folder that exists or can be made; "" stands for the default."""
    if not isinstance(value, str):
        raise ParameterError(f'{name} is {value!r}, but must be a path as text, or "" for the default')
    if value and any(place.exists() and not place.is_dir() for place in (Path(value), *Path(value).parents)):
        raise ParameterError(f"{name} is {value!r}, but a file stands there: give the path of a folder")


Check = Callable[[str, Any], Any]  # of a value, whose name is for the message
CHECKS: dict[str, Check] = {  # of what every notebook has
    "profile": partial(check_choice, tuple(PROFILES)),
    "dataset": check_dataset,
    "seed": check_seed,
    "device": lambda _, value: devices.resolve(value),
    "run_dir": check_run_dir,
}
# Parameters that only one notebook has. Whatever stands here goes into that notebook's record.
GUIDANCES = tuple(name for name, kind in GUIDANCE.items() if kind.alone)
EXTRAS: dict[str, dict[str, Check]] = {"03_segmentation": {"guidance": partial(check_choice, GUIDANCES)}}


@refusals()
def check_parameters(notebook: str, namespace: Mapping[str, Any]) -> dict[str, Any]:
    """The validated parameters of `notebook`, read from its `globals()`. Raises ParameterError."""
    if notebook not in NOTEBOOKS + EXTRA_NOTEBOOKS:
        raise ParameterError(f"notebook {notebook!r} is not one of {', '.join(NOTEBOOKS + EXTRA_NOTEBOOKS)}")
    checks = CHECKS | EXTRAS.get(notebook, {})
    given = _given(namespace.get("In", ()))
    for name in given:
        if name not in checks:
            near = difflib.get_close_matches(name, checks, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ParameterError(f"{notebook} has no parameter {name!r}{hint}; it has {', '.join(checks)}")
    missing = [name for name in checks if name not in namespace]
    if missing:
        raise ParameterError(f"{notebook} does not define {', '.join(missing)} in its parameters cell")
    values = {name: namespace[name] for name in checks}
    for name, value in values.items():
        checks[name](name, value)
    wanted = os.environ.get(PROFILE_VARIABLE)
    if wanted and "profile" not in given and values["profile"] == quick().name:
        checks["profile"](PROFILE_VARIABLE, wanted)
        values["profile"] = wanted
    return values


def _given(cells: Any) -> list[str]:
    """The names that papermill assigned in a cell of its own. Of unknown ones it only logs a warning, and goes on."""
    injected = [source for source in cells if isinstance(source, str) and source.lstrip().startswith("# Parameters")]
    nodes = [node for source in injected for node in ast.walk(ast.parse(source))]
    return [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
