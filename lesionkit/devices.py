"""Which device computes, what not every device can, and the one place that seeds. Imports no other module: every one
may use it."""

import os
import random
import re

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


class DeviceError(ValueError):
    """A device that is unknown or that this machine does not have; one sentence."""


def resolve(name: object = "auto") -> torch.device:
    """The device called `name`; "auto" takes CUDA, then MPS, then the CPU; cpu:0 and mps:0 are cpu and mps. Raises
    DeviceError when the name is none of auto, cpu, cuda, cuda:N, mps (or no name at all), or the machine lacks the
    device."""
    if not isinstance(name, str) or not re.fullmatch(r"auto|(cpu|cuda|mps)(:\d+)?", name):
        raise DeviceError(f"device {name!r} is not known; give one of auto, cpu, cuda, cuda:N or mps")
    # device_count() can be 1 with a driver that torch cannot use; is_available() is the honest answer then
    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    here = {"cuda": cuda, "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    if name == "auto":
        name = next(kind for kind, count in here.items() if count)
    kind, _, index = name.partition(":")
    if int(index or 0) >= here[kind]:
        raise DeviceError(f"device {name!r} is not on this machine ({cuda} CUDA devices); give auto or cpu")
    return torch.device(name if kind == "cuda" else kind)


def area_mean(maps: Float[Tensor, "b c h w"], size_hw: tuple[int, int]) -> Float[Tensor, "b c y x"]:
    """Means over y × x parts of the area, as `adaptive_avg_pool2d` and the mode "area" have them; where the device has
    those for sizes that divide alone, by a matrix for each side: what the CPU makes of single pixels."""
    if not wants_even_parts(maps.device):
        return F.adaptive_avg_pool2d(maps, size_hw)
    sides = zip(maps.shape[2:], size_hw, strict=True)
    rows, columns = (F.adaptive_avg_pool1d(torch.eye(n), parts).to(maps) for n, parts in sides)
    return rows.T @ maps @ columns


def wants_even_parts(device: torch.device) -> bool:
    """Whether a device refuses to average over parts that are not all of one size, as torch 2.13 does on MPS."""
    return device.type == "mps"


def seed_everything(seed: int) -> None:
    """Seeds `random`, numpy and torch (every device) and asks torch for deterministic algorithms. An operation that
    has none warns instead of failing: a run on a GPU should finish."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (libraries still read the global generator)
    torch.manual_seed(seed)
    # without it cuBLAS is not deterministic; it is read when CUDA starts
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
