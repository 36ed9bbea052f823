"""lesionkit: depth-guided lesion segmentation in endoscopy images, a reproducible research kit."""

from importlib import import_module
from importlib.metadata import version
from pkgutil import iter_modules

__all__ = ["Detection", "Detector", "__version__"]

__version__ = version("lesionkit")
MODULES = {module.name for module in iter_modules(__path__)}


def __getattr__(name: str) -> object:
    """`Detector` and the modules (`lesionkit.scenes`, …) are imported when they are asked for: the command line's help
    should not wait for torch."""
    if name in ("Detector", "Detection"):
        return getattr(import_module("lesionkit.detector"), name)
    if name in MODULES:
        return import_module(f"lesionkit.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *MODULES})
