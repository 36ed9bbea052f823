"""lesionkit: depth-guided lesion segmentation in endoscopy images, a reproducible research kit."""

from importlib import import_module
from importlib.metadata import version

__version__ = version("lesionkit")
__all__ = ["Detection", "Detector", "__version__"]


def __getattr__(name: str) -> object:
    """`Detector` is imported when it is asked for: the command line's help should not wait for torch."""
    if name in ("Detector", "Detection"):
        return getattr(import_module("lesionkit.detector"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
