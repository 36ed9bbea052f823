"""What may be asked of a run: the profiles (how much work) and the parameters of the notebooks, validated.

Values from outside, papermill's parameters and the command line's options, pass here before anything starts.
"""

import ast
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lesionkit import devices
from lesionkit.datasets import depth as depth_datasets
from lesionkit.datasets import samples as datasets

NOTEBOOKS = ("01_data", "02_depth", "03_segmentation", "04_loss_ablation", "05_evaluation")
EXTRA_NOTEBOOKS = ("explore",)
COMMON = ("profile", "dataset", "seed", "device", "run_dir")
MAX_SEED = 2**32 - 1  # what numpy's global generator takes


class ParameterError(ValueError):
    """A parameter that is unknown, ill-typed or impossible; one sentence that names what is allowed."""


# --- profiles: how much work a run does ----------------------------------------------------------------


@dataclass(frozen=True)
class Profile:
    """How much a run computes. The defaults are the `quick` profile: what Run All in JupyterLab does."""

    name: str = "quick"
    size_px: int = 128  # edge of an image in the network: fit for a CPU, and lesions still span 10 to 40 px
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
    return Profile(
        name="smoke",
        size_px=64,  # the smallest edge that still has a pixel at the encoder's last stage
        train_scenes=24,
        ablation_scenes=12,
        validation_scenes=8,
        test_scenes=8,
        depth_epochs=1,
        segmentation_epochs=1,
        ablation_epochs=1,
        batch_size=8,
        train_images=16,
        test_images=8,
    )


def quick() -> Profile:
    """The tutorial: at most two minutes a notebook on two CPU cores."""
    return Profile()


def full() -> Profile:
    """For a GPU: figures that may be quoted."""
    return Profile(
        name="full",
        size_px=352,  # the edge that the polyp literature reports at
        train_scenes=2048,  # 9 GB as tensors
        ablation_scenes=1024,
        validation_scenes=256,
        test_scenes=512,
        depth_epochs=40,
        segmentation_epochs=40,
        ablation_epochs=15,
        batch_size=16,  # a GPU takes more at once
        train_images=100_000,  # all of them
        test_images=100_000,
    )


PROFILES: dict[str, Callable[[], Profile]] = {"smoke": smoke, "quick": quick, "full": full}


# --- parameters: nothing that comes from outside is believed -------------------------------------------


def one_of(*allowed: str) -> Callable[[str, Any], str]:
    """A validator: the value is one of the `allowed` strings."""

    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise ParameterError(f"{name} is {value!r}, but must be one of {', '.join(allowed)}")
        return value

    return check


def check_seed(name: str, value: Any) -> int:
    """The seed, a whole number. A bool is an int in Python, and never meant as a seed."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_SEED:
        raise ParameterError(f"{name} is {value!r}, but must be a whole number from 0 to {MAX_SEED}")
    return value


def check_device(name: str, value: Any) -> str:
    """The name of a device that this machine has."""
    try:
        devices.resolve(value)
    except devices.DeviceError as error:
        raise ParameterError(str(error)) from None
    return value


def check_dataset(name: str, value: Any) -> str:
    """A data set that exists; one other than `scenes` must be on this machine and be readable."""
    if not isinstance(value, str):
        raise ParameterError(
            f"{name} is {value!r}, but must be a name: scenes, one of the registry, or folder:PATH"
        )
    if value in depth_datasets.NAMES:
        raise ParameterError(
            f"{name} is {value!r}, which holds depth but no lesion masks to train and test on: choose one of scenes, "
            f"{', '.join(datasets.NAMES)} or folder:PATH"
        )
    try:
        datasets.check_name(value)
        if value != "scenes":
            opened = datasets.open_dataset(value)
            for part in datasets.PARTS:  # files are there, but perhaps not those of the split
                opened.part(part)
    except datasets.DatasetError as error:
        raise ParameterError(str(error)) from None
    return value


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
# What a notebook leaves for later ones; removed before it runs again, so that nobody else's is taken for it.
ARTEFACTS = {"02_depth": ("depth.safetensors",), "03_segmentation": ("reference.safetensors",)}
# Parameters that only one notebook has. Whatever stands here goes into that notebook's record.
EXTRAS: dict[str, dict[str, Callable[[str, Any], Any]]] = {
    "03_segmentation": {"guidance": one_of("depth", "none", "learned", "luminance")},
}


def check_parameters(notebook: str, namespace: Mapping[str, Any]) -> dict[str, Any]:
    """The validated parameters of `notebook`, read from its `globals()`. Raises ParameterError."""
    if notebook not in NOTEBOOKS + EXTRA_NOTEBOOKS:
        raise ParameterError(f"notebook {notebook!r} is not one of {', '.join(NOTEBOOKS + EXTRA_NOTEBOOKS)}")
    validators = VALIDATORS | EXTRAS.get(notebook, {})
    _refuse_unknown(notebook, tuple(validators), namespace.get("In", ()))
    missing = [name for name in validators if name not in namespace]
    if missing:
        raise ParameterError(f"{notebook} does not define {', '.join(missing)} in its parameters cell")
    return {name: check(name, namespace[name]) for name, check in validators.items()}


def _refuse_unknown(notebook: str, declared: tuple[str, ...], cells: Any) -> None:
    """Find what papermill injected: of an unknown parameter it only logs a warning, and goes on."""
    for source in cells:
        if isinstance(source, str) and source.lstrip().startswith("# Parameters"):
            for name in _assigned(source):
                if name not in declared:
                    near = difflib.get_close_matches(name, declared, n=1)
                    hint = f" (did you mean {near[0]}?)" if near else ""
                    raise ParameterError(
                        f"{notebook} has no parameter {name!r}{hint}; it has {', '.join(declared)}"
                    )


def _assigned(source: str) -> list[str]:
    names = []
    for statement in ast.parse(source).body:
        single = [getattr(statement, "target", None)]
        targets = statement.targets if isinstance(statement, ast.Assign) else single
        names += [target.id for target in targets if isinstance(target, ast.Name)]
    return names
