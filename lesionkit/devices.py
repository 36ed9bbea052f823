"""Which device computes, and the one place that seeds. Imports no other room: every room may use it."""

import os
import random
import re

import numpy as np
import torch

ALLOWED = "auto, cpu, cuda, cuda:N or mps"


class DeviceError(ValueError):
    """A device that is unknown or that this machine does not have; one sentence."""


def resolve(name: object = "auto") -> torch.device:
    """The device called `name`; "auto" takes CUDA, then MPS, then the CPU. Checks values from outside, of any type.

    Raises DeviceError when the name is none of auto, cpu, cuda, cuda:N, mps, or the machine lacks the device.
    """
    if not isinstance(name, str) or not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", name):
        raise DeviceError(f"device {name!r} is not known; give one of {ALLOWED}")
    if name == "auto":
        return torch.device(_best())
    if name.startswith("cuda") and _cuda_index(name) >= _cuda_count():
        raise DeviceError(f"device {name!r} is not on this machine ({_cuda_count()} CUDA devices); give auto or cpu")
    if name == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("device 'mps' is not on this machine; give auto or cpu")
    return torch.device(name)


def _best() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _cuda_count() -> int:
    # device_count() can be 1 with a driver that torch cannot use; is_available() is the honest answer then.
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _cuda_index(name: str) -> int:
    return int(name.partition(":")[2] or 0)


def seed_everything(seed: int) -> None:
    """Seed `random`, numpy and torch (every device) and ask torch for deterministic algorithms.

    An operation that has no deterministic form warns instead of failing: a run on a GPU should finish.
    """
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (libraries still read the global generator)
    torch.manual_seed(seed)
    # Without this variable cuBLAS is not deterministic; it is read when CUDA starts, so set before that.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
