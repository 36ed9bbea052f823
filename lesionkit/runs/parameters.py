"""What may be asked of a run: profiles, which say how much is computed, and the other parameters, all validated."""

import ast
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from lesionkit import datasets, devices
from lesionkit.datasets.registry import not_utf8
from lesionkit.segmentation import GUIDANCE

NOTEBOOKS = ("01_data", "02_depth", "03_segmentation", "04_loss_ablation", "05_evaluation")
EXTRA_NOTEBOOKS = ("explore",)
# What notebooks leave for later ones; removed before they run again, so that nobody else's is taken for it.
ARTEFACTS = {"02_depth": "depth.safetensors", "03_segmentation": "reference.safetensors"}
PROFILE_VARIABLE = "LESIONKIT_PROFILE"  # the profile of notebooks that were given none: for their tests
MAX_SEED = 2**32 - 1  # what numpy's global generator takes


@dataclass(frozen=True)
class Profile:
    """How much a run computes. The defaults are the `quick` profile: what Run All in JupyterLab does."""

    name: str = "quick"
    size_px: int = 128  # edge of an image in the network: fit for a CPU, and lesions still span 10 to 40 px
    depth_px: int = 384  # edge to which the depth network sees it enlarged: relief needs pixels
    train_scenes: int = 320  # depth is learned from far fewer; masks gain up to here, then the clock decides
    validation_scenes: int = 64  # fixes thresholds; enough that a change of 0.02 in Dice is no accident
    test_scenes: int = 64  # reported, never looked at while anything is chosen
    depth_epochs: int = 8  # AbsRel 0.085 after these, 0.076 after twelve; the floor is 0.15
    segmentation_epochs: int = 9  # under two minutes on two CPU cores; the loss still falls slowly
    ablation_scenes: int = 128  # five pairs of losses and six arms train anew, so each gets fewer frames
    ablation_epochs: int = 3  # and fewer epochs: enough to tell them apart, too few to be good
    batch_size: int = 8  # for so few images steps count: 16 reached Dice 0.76 where 8 reaches 0.8 in the same time
    train_images: int = 240  # at most so many real training images (data sets other than `scenes`)
    test_images: int = 100  # at most so many real test images


def smoke() -> Profile:
    """For tests: every cell runs, the numbers mean nothing; at most 15 s a notebook."""
    scenes = dict(train_scenes=24, validation_scenes=8, test_scenes=8, ablation_scenes=12)
    images = dict(train_images=16, test_images=8)
    epochs = dict(depth_epochs=1, segmentation_epochs=1, ablation_epochs=1)
    # the smallest edge that still has a pixel at the encoder's last stage
    return Profile("smoke", size_px=64, depth_px=64, **scenes, **images, **epochs)


def quick() -> Profile:
    """The tutorial: at most two minutes a notebook on two CPU cores."""
    return Profile()


def full() -> Profile:
    """For a GPU: figures that may be quoted."""
    scenes = dict(train_scenes=2048, validation_scenes=256, test_scenes=512, ablation_scenes=1024)  # 9 GB as tensors
    images = dict(train_images=100_000, test_images=100_000)  # all of them
    epochs = dict(depth_epochs=40, segmentation_epochs=40, ablation_epochs=15)
    # the edge that the polyp literature reports at; a GPU takes more at once
    return Profile("full", size_px=352, batch_size=16, **scenes, **images, **epochs)


PROFILES: dict[str, Callable[[], Profile]] = {"smoke": smoke, "quick": quick, "full": full}


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
    if value not in allowed:
        raise ParameterError(f"{name} is {value!r}, but must be one of {', '.join(allowed)}")


def check_seed(name: str, value: Any) -> None:
    """The seed, a whole number. A bool is an int in Python, and never meant as a seed."""
    if type(value) is not int or not 0 <= value <= MAX_SEED:
        raise ParameterError(f"{name} is {value!r}, but must be a whole number from 0 to {MAX_SEED}")


def check_dataset(name: str) -> datasets.Dataset | None:
    """Return the data set called `name`, with every file of its split; None for `scenes`, which are rendered."""
    if datasets.check_name(name) == "scenes":
        return None
    opened = datasets.open_dataset(name)
    for part in datasets.PARTS:  # files are there, but perhaps not those of the split
        opened.part(part)
    return opened


def check_run_dir(name: str, value: Any) -> None:
    """A path; "" stands for the default."""
    if not isinstance(value, str):
        raise ParameterError(f'{name} is {value!r}, but must be a path as text, or "" for the default')
    if shown := not_utf8(value):
        raise ParameterError(f"{name} {shown} is no UTF-8: give another folder")


CHECKS: dict[str, Callable[[str, Any], Any]] = {  # of what every notebook has: name (for messages) and value
    "profile": partial(check_choice, tuple(PROFILES)),
    "dataset": lambda _, value: check_dataset(str(value)),
    "seed": check_seed,
    "device": lambda _, value: devices.resolve(value),
    "run_dir": check_run_dir,
}
# Parameters that only one notebook has. Whatever stands here goes into that notebook's record.
GUIDANCES = tuple(name for name, kind in GUIDANCE.items() if kind.alone)
EXTRAS = {"03_segmentation": {"guidance": partial(check_choice, GUIDANCES)}}


@refusals()
def check_parameters(notebook: str, namespace: Mapping[str, Any]) -> dict[str, Any]:
    """The validated parameters of `notebook`, read from its `globals()`. Raises ParameterError."""
    checks = CHECKS | EXTRAS.get(notebook, {})
    # What papermill assigned in a cell of its own: of unknown names it only logs a warning, and goes on.
    cells = [cell for cell in namespace.get("In", ()) if cell.startswith("# Parameters\n")]
    nodes = [node for cell in cells for node in ast.walk(ast.parse(cell))]
    given = [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    if unknown := [name for name in given if name not in checks]:
        raise ParameterError(f"{notebook} has no parameter {unknown[0]!r}; it has {', '.join(checks)}")
    if missing := [name for name in checks if name not in namespace]:
        raise ParameterError(f"{notebook} does not define {', '.join(missing)} in its parameters cell")
    values = {name: namespace[name] for name in checks}
    for name, value in values.items():
        checks[name](name, value)
    wanted = os.environ.get(PROFILE_VARIABLE)
    if wanted and "profile" not in given and values["profile"] == quick().name:
        checks["profile"](PROFILE_VARIABLE, wanted)
        values["profile"] = wanted
    return values
