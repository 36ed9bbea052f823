"""What a notebook's run is made of: its parameters, the folder it writes to, and the record of what came out.

    run = runs.begin("03_segmentation", globals())  # right after the parameters: validates and seeds
    save_file(weights, run.artefact("depth.safetensors"))  # into DIR/artefacts/depth.safetensors
    run.finish({"dice": 0.81})  # writes DIR/records/03_segmentation.json

`lesionkit.parameters` says what may be asked of a run, `lesionkit.chain` runs the notebooks in order.
"""

import hashlib
import os
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from lesionkit import devices
from lesionkit.datasets import samples as datasets
from lesionkit.depth import DepthNet
from lesionkit.detector import Detector, load_depth
from lesionkit.files import plain, write_bytes, write_json
from lesionkit.runs.parameters import (
    EXTRA_NOTEBOOKS,
    EXTRAS,
    NOTEBOOKS,
    PROFILES,
    ParameterError,
    Profile,
    check_parameters,
    full,
    quick,
    smoke,
)

__all__ = [
    "CHECKPOINT",
    "EXTRAS",
    "EXTRA_NOTEBOOKS",
    "NOTEBOOKS",
    "PROFILES",
    "ParameterError",
    "Profile",
    "Run",
    "begin",
    "default_dir",
    "depth_network",
    "full",
    "notebooks_dir",
    "plain",
    "quick",
    "run_detector",
    "smoke",
    "write_bytes",
    "write_json",
]


CHECKPOINT = "LESIONKIT_CHECKPOINT"  # the variable by which `lesionkit run` tells a kernel the file

# --- places --------------------------------------------------------------------------------------------


def notebooks_dir() -> Path:
    """The folder of the notebooks in the checkout that this package was installed from."""
    folder = Path(__file__).resolve().parents[2] / "notebooks"
    if not (folder.parent / "pyproject.toml").is_file() or not folder.is_dir():
        raise ParameterError(
            "the notebooks are not part of the installed package: "
            "clone the repository and install it with `pip install -e .`"
        )
    return folder


def default_dir(profile: str, dataset: str, seed: int) -> Path:
    """Where a run goes that was given no folder: below LESIONKIT_RUNS, else runs/ at the repository root."""
    if dataset.startswith("folder:"):
        path = datasets.folder_of(dataset).resolve()
        # Two folders may have one name; the digest of the whole path keeps their runs apart.
        dataset = f"folder-{path.name}-{hashlib.sha256(str(path).encode()).hexdigest()[:6]}"
    root = os.environ.get("LESIONKIT_RUNS")
    base = Path(root) if root else notebooks_dir().parent / "runs"
    return base.resolve() / f"{profile}-{dataset}-seed{seed}"


# --- the run of one notebook ---------------------------------------------------------------------------


@dataclass
class Run:
    """One notebook at work. `dir` is the whole run's folder: earlier notebooks left their artefacts in it."""

    notebook: str
    profile: Profile
    dataset: str
    seed: int
    device: torch.device
    dir: Path
    extras: dict[str, Any] = field(default_factory=dict)
    _notes: dict[str, Any] = field(default_factory=dict, repr=False)
    _artefacts: set[str] = field(default_factory=set, repr=False)
    _started: float = field(default_factory=time.time, repr=False)

    def artefact(self, name: str) -> Path:
        """DIR/artefacts/`name`, to read or to write; its folder exists."""
        self._artefacts.add(name)
        path = self.dir / "artefacts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def checkpoint(self) -> Path | None:
        """Where a long training keeps its state after every epoch, so that `lesionkit run --resume` goes on from there.
        None elsewhere, in JupyterLab above all: whoever runs a cell again wants it anew."""
        path = os.environ.get(CHECKPOINT)
        return Path(path) if path else None

    @property
    def figures(self) -> Path:
        """DIR/figures, which exists."""
        path = self.dir / "figures"
        path.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters that decide the results. The path of a folder:PATH is a matter of the machine."""
        dataset = "folder" if self.dataset.startswith("folder:") else self.dataset
        return {"profile": self.profile.name, "dataset": dataset, "seed": self.seed, **self.extras}

    def environment_line(self) -> str:
        """One line for the reader: Python, torch, kornia, device, threads."""
        parts = " · ".join(f"{name} {number}" for name, number in versions().items())
        return f"{parts} · device {self.device} · {torch.get_num_threads()} threads"

    def note(self, **facts: Any) -> None:
        """Keep facts that may differ between equal runs (seconds, where weights lay) under `environment`."""
        self._notes |= plain(
            {key: str(fact) if isinstance(fact, Path) else fact for key, fact in facts.items()}
        )

    def finish(self, results: dict[str, Any]) -> Path:
        """Write DIR/records/NOTEBOOK.json and return its path. `results` must be equal in every equal run.

        NaN and infinities become null; numpy and torch values become plain ones. Raises TypeError for what
        JSON cannot hold, and for paths, which belong under `environment` (see `note`).
        """
        record = {
            "notebook": self.notebook,
            "parameters": self.parameters,
            "results": plain(results),
            "environment": self._environment(),
        }
        return write_json(self.dir / "records" / f"{self.notebook}.json", record)

    def _environment(self) -> dict[str, Any]:
        here = self.dir / "artefacts"
        return {
            "run_dir": str(self.dir),
            "dataset": self.dataset,
            "device": str(self.device),
            "threads": torch.get_num_threads(),
            "versions": versions(),
            "platform": platform.platform(),
            "started": datetime.fromtimestamp(self._started, UTC).isoformat(timespec="seconds"),
            "duration_s": round(time.time() - self._started, 2),
            "peak_memory_mb": _peak_memory_mb(),
            "artefacts": sorted(name for name in self._artefacts if (here / name).exists()),
            "notes": self._notes,
        }


def begin(notebook: str, namespace: Mapping[str, Any]) -> Run:
    """Validate the parameters in `namespace` (the notebook's globals()), seed everything, make the folders.

    Raises ParameterError for a parameter that is unknown, missing, ill-typed or impossible.
    """
    values = check_parameters(notebook, namespace)
    profile, dataset, seed = values["profile"], values["dataset"], values["seed"]
    folder = Path(values["run_dir"]).resolve() if values["run_dir"] else default_dir(profile, dataset, seed)
    for name in ("artefacts", "figures", "records"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    devices.seed_everything(seed)
    return Run(
        notebook=notebook,
        profile=PROFILES[profile](),
        dataset=dataset,
        seed=seed,
        device=devices.resolve(values["device"]),
        dir=folder,
        extras={name: values[name] for name in EXTRAS.get(notebook, {})},
    )


# --- what earlier notebooks left -----------------------------------------------------------------------


def depth_network(run: Run) -> tuple[DepthNet, str]:
    """The depth network that 02_depth trained in this run, else the shipped one; and which it is, in words."""
    path = run.artefact("depth.safetensors")
    own = path.exists()
    net = load_depth(path) if own else Detector.from_pretrained("reference", str(run.device)).depth_net
    which = "trained by 02_depth in this run" if own else "the shipped reference network"
    return net, _noted(run, "depth_network", which)


def run_detector(run: Run) -> tuple[Detector, str]:
    """The detector that 03_segmentation trained in this run, else the shipped one; and which it is, in words."""
    path = run.artefact("reference.safetensors")
    own = path.exists()
    which = "trained by 03_segmentation in this run" if own else "the shipped reference weights"
    return Detector.from_pretrained(path if own else "reference", str(run.device)), _noted(run, "detector", which)


def _noted(run: Run, what: str, which: str) -> str:
    run.note(**{what: which})
    return which


# --- records -------------------------------------------------------------------------------------------


def versions() -> dict[str, str]:
    """Versions that numbers depend on: Python, torch, kornia."""
    return {"python": platform.python_version(), "torch": torch.__version__, "kornia": version("kornia")}


def _peak_memory_mb() -> float | None:
    """The most memory this process ever held, in MB; None on Windows, which has no `resource`."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6, 1)  # bytes there, KiB on Linux
