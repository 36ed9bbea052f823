"""Devices by their names, and the whole chain with what Apple's GPUs refuse, refused here as well."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import lesionkit
from lesionkit import devices, frames, losses, training
from lesionkit.detector import Detector
from lesionkit.devices import area_mean, resolve
from lesionkit.fitting import TrainConfig
from lesionkit.preprocess import resize


def test_every_name_that_torch_prints_is_known(monkeypatch):
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    names = {
        "cpu": "cpu",
        "cpu:0": "cpu",
        "mps": "mps",
        "mps:0": "mps",
        "cuda": "cuda",
        "cuda:1": "cuda:1",
        "auto": "cuda",
    }
    assert {name: str(resolve(name)) for name in names} == names
    for name in ("cpu:1", "mps:1", "cuda:2"):
        with pytest.raises(devices.DeviceError, match=f"{name}' is not on this machine"):
            resolve(name)
    for name in ("mps:", "cpu:-1", "mps:0:0", "gpu:0", "CPU", "", None):
        with pytest.raises(devices.DeviceError, match="give one of auto, cpu, cuda, cuda:N or mps"):
            resolve(name)


def test_a_device_that_is_not_here_is_no_unknown_name():
    if torch.backends.mps.is_available():
        pytest.skip("there is an Apple GPU")
    with pytest.raises(devices.DeviceError, match="'mps:0' is not on this machine"):
        resolve("mps:0")


# --- Apple's GPUs


class Mps(TorchDispatchMode):
    """Refuses, on the CPU, what torch 2.13 refuses on MPS: averages over parts of different sizes, double precision."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "adaptive_avg_pool2d." in func.__name__ and args[0].ndim == 4:  # the matrices of area_mean are the CPU's
            sizes = zip(args[0].shape[-2:], args[1], strict=True)
            if any(n % parts for n, parts in sizes):
                raise RuntimeError(f"{func}: sizes must divide")
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.dtype == torch.float64:
            raise RuntimeError(f"{func}: no double precision")
        return result


@pytest.fixture
def mps(monkeypatch):
    """Within it the kit goes the way that it goes on MPS, and what that lacks is refused."""
    monkeypatch.setattr(devices, "wants_even_parts", lambda device: True)
    return Mps()


def test_what_mps_refuses_is_refused_here():
    with Mps():
        F.adaptive_avg_pool2d(torch.rand(1, 1, 6, 6), 3)
        for refused in (
            lambda: F.adaptive_avg_pool2d(torch.rand(1, 1, 7, 6), 3),
            lambda: F.interpolate(torch.rand(1, 1, 7, 7), size=3, mode="area"),
            lambda: torch.rand(3).double(),
        ):
            with pytest.raises(RuntimeError, match=r"divide|double"):
                refused()


UNEVEN = [((11, 11), (2, 2)), ((11, 7), (4, 1)), ((1080, 1920), (352, 352)), ((187, 233), (64, 96)), ((8, 8), (4, 2))]


@pytest.mark.parametrize(("shape", "size_hw"), UNEVEN)
def test_the_mean_over_parts_is_the_same_by_matrices(monkeypatch, shape, size_hw):
    maps = torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(0), requires_grad=True)
    plain = area_mean(maps, size_hw)
    assert torch.equal(plain, F.interpolate(maps, size=size_hw, mode="area"))
    gradient = torch.autograd.grad(plain.square().sum(), maps)[0]
    monkeypatch.setattr(devices, "wants_even_parts", lambda device: True)
    by_matrices = area_mean(maps, size_hw)
    assert torch.allclose(by_matrices, plain, atol=2e-6, rtol=0)
    assert torch.allclose(torch.autograd.grad(by_matrices.square().sum(), maps)[0], gradient, atol=1e-5)


@pytest.mark.parametrize("size", [(187, 233), (64, 64), (40, 300)])
def test_resizing_is_what_it_was(size):
    maps = torch.rand(1, 3, *size)
    expected = F.interpolate(maps, size=(64, 64), mode="area") if min(size) >= 64 else None
    smaller = F.interpolate(maps, size=(64, 64), mode="bilinear", align_corners=False, antialias=True)
    assert torch.equal(resize(maps, 64), smaller if expected is None else expected)


def test_a_detection_needs_nothing_that_mps_lacks(mps):
    image = np.random.default_rng(0).integers(0, 256, (187, 233, 3), dtype=np.uint8)
    detector = Detector.from_pretrained("reference", device="cpu").fuse()
    with mps:
        assert detector(image).probability.shape == (187, 233)
        batch = torch.rand(2, 3, 130, 170)
        assert detector(batch, depth=1 + torch.rand(2, 1, 130, 170)).mask.shape == (2, 1, 130, 170)


def test_training_needs_nothing_that_mps_lacks(mps):
    """96 px leave 3 × 3 at the coarsest scale, which two parts do not divide. Scenes are the CPU's to make."""
    seen = frames.rendered_frames("train", 4, 96)
    config = TrainConfig(1, batch_size=4, seed=0)
    with mps:
        net, _ = training.train_depth(seen, config)
        depth = training.estimate_depth(net, seen.image)
        segmenter, history = training.train_segmenter(seen, depth, losses.binary_cross_entropy, config)
        assert np.isfinite(history.loss).all()
        assert training.segment(segmenter, seen.image, depth).shape == (4, 1, 96, 96)


# --- busy machines


def loaded(code, **environment):
    """What a process says on both channels whose libgomp shows its settings when torch loads it."""
    kept = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    shown = {**kept, "OMP_DISPLAY_ENV": "VERBOSE", **environment}
    done = subprocess.run([sys.executable, "-c", code], env=shown, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="torch brings libgomp on Linux alone")
def test_the_threads_of_torch_are_told_how_long_to_spin():
    code = "import lesionkit.devices, os; print(os.environ['PYTORCH_ENABLE_MPS_FALLBACK'])"
    told = loaded(code, PYTORCH_ENABLE_MPS_FALLBACK="0")
    assert f"GOMP_SPINCOUNT = '{lesionkit.SPINS}'" in told
    assert told.startswith("0\n")  # what the user says stays
    assert "GOMP_SPINCOUNT = '77'" in loaded(code, GOMP_SPINCOUNT="77")
    assert "GOMP_SPINCOUNT = '0'" in loaded(code, OMP_WAIT_POLICY="PASSIVE")


def test_this_process_and_its_kernels_are_told():
    """conftest.py says it before torch is loaded, whatever order the tests come in."""
    assert "GOMP_SPINCOUNT" in os.environ or "OMP_WAIT_POLICY" in os.environ
