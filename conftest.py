"""What all tests share: checked shapes, a place for runs outside the checkout, and what happens when a GPU,
a browser or the real data are absent."""

import importlib.util
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import pytest
from jaxtyping import install_import_hook

# Before anything imports the package: beartype then checks every annotated shape, in this process only.
assert "lesionkit" not in sys.modules, "lesionkit was imported before its shapes could be checked"
# The "tower" is Python's own rule that an int will do where a float is asked for.
install_import_hook("lesionkit", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")
assert "torch" not in sys.modules, "torch was loaded before lesionkit could say how its threads wait"
import lesionkit  # noqa: E402, F401 (says it, to the kernels that nbval starts as well)

OPTIONAL = ("browser", "gpu", "realdata")  # markers of tests that need what a machine may lack
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


def pytest_configure(config: pytest.Config) -> None:
    """Notebooks run in `smoke` and into a temporary folder: kernels that nbval starts inherit both variables."""
    config.lesionkit_runs = tempfile.mkdtemp(prefix="lesionkit-runs-")
    os.environ["LESIONKIT_RUNS"] = config.lesionkit_runs
    os.environ.setdefault("LESIONKIT_PROFILE", "smoke")


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.lesionkit_runs, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker("notebooks")


def asked_for(marker: str, expression: str) -> bool:
    """Whether a `-m` expression asks for this marker: it is named, and not only to be left out."""
    return re.search(rf"(?<!\bnot )\b{marker}\b", expression) is not None


@pytest.fixture
def absent(request: pytest.FixtureRequest):
    """absent(reason): skip the test, or fail it when `-m` asked for it by its marker."""

    def end(reason: str) -> NoReturn:
        __tracebackhide__ = True
        expression = request.config.getoption("-m") or ""
        own = {mark.name for mark in request.node.iter_markers()} & set(OPTIONAL)
        if any(asked_for(name, expression) for name in own):
            pytest.fail(f"asked for with -m {expression!r}, but {reason}", pytrace=False)
        pytest.skip(reason)

    return end


@pytest.fixture
def real(absent) -> Path:
    """The folder of the real data sets."""
    if not os.environ.get("LESIONKIT_DATA"):
        absent("LESIONKIT_DATA is not set")
    from lesionkit import datasets

    root = datasets.data_root()
    if not root.is_dir():
        absent(f"the folder that LESIONKIT_DATA names does not exist: {root}")
    return root


@pytest.fixture
def gpu(absent):
    """The CUDA device."""
    import torch

    if not torch.cuda.is_available():
        absent("there is no CUDA device")
    return torch.device("cuda")


@pytest.fixture
def chromium(absent) -> str:
    """Path of a Chromium that playwright can drive with `executable_path`."""
    if importlib.util.find_spec("playwright") is None:
        absent("playwright is not installed: pip install -e .[test]")
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        absent("there is no Chromium: apt-get install chromium")
    return found
