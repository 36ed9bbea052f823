"""lesionkit: depth-guided lesion segmentation in endoscopy images, a reproducible research kit."""

import os
from importlib import import_module
from importlib.metadata import version
from pkgutil import iter_modules

__all__ = ["Detection", "Detector", "__version__"]

__version__ = version("lesionkit")

# torch reads these once, when it is loaded, and kernels inherit them; what a user has set stays.
# A thread of torch's that waits for the others spins so often before it sleeps. libgomp's own 300,000 are milliseconds,
# in which a waiting thread holds the core that the awaited one needs, if another program has the second; with none it
# would be woken at every step. benchmarks/busy.py measures both.
SPINS = 10_000
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))
os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")  # what MPS lacks the CPU does, and torch says so in a line

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
