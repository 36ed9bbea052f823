"""The run of one notebook: its parameters, the folder it writes to, and the record of what came out.

run = runs.begin("03_segmentation", globals())  # right after the parameters: validates and seeds
save_file(weights, run.artefact("depth.safetensors"))  # into DIR/artefacts/depth.safetensors
run.finish({"dice": 0.81})  # writes DIR/records/03_segmentation.json
"""

import hashlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from lesionkit import datasets, devices, files
from lesionkit.detector import Detector
from lesionkit.runs.parameters import ARTEFACTS, EXTRAS, PROFILES, ParameterError, Profile, check_parameters

CHECKPOINT = "LESIONKIT_CHECKPOINT"  # the variable by which `lesionkit run` tells a kernel the file


def notebooks_dir() -> Path:
    """The folder of the notebooks in the checkout that this package was installed from."""
    folder = Path(__file__).resolve().parents[2] / "notebooks"
    if not (folder.parent / "pyproject.toml").is_file():
        raise ParameterError("the notebooks are not here: clone the repository, `pip install -e .`")
    return folder


def default_dir(profile: str, dataset: str, seed: int) -> Path:
    """Where a run goes that was given no folder: below LESIONKIT_RUNS, else runs/ at the repository root."""
    if dataset.startswith(datasets.FOLDER):
        path = datasets.folder_of(dataset).resolve()
        # Two folders may have one name; the digest of the whole path keeps their runs apart.
        dataset = f"folder-{path.name}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:6]}"
    base = Path(os.environ.get("LESIONKIT_RUNS") or notebooks_dir().parent / "runs")
    return base.resolve() / f"{profile}-{dataset}-seed{seed}"


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
        path.parent.mkdir(parents=True, exist_ok=True)  # a reader may clear the run's folder under a live kernel
        return path

    @property
    def figures(self) -> Path:
        """DIR/figures, which exists."""
        folder = self.dir / "figures"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def checkpoint(self) -> Path | None:
        """Where a long training keeps its state after every epoch, so that `lesionkit run --resume` goes on from there.
        None elsewhere, in JupyterLab above all: whoever runs a cell again wants it anew."""
        path = os.environ.get(CHECKPOINT)
        return Path(path) if path else None

    def environment_line(self) -> str:
        """One line for the reader: Python, torch, kornia, device, threads."""
        parts = " · ".join(f"{name} {number}" for name, number in versions().items())
        return f"{parts} · device {self.device} · {torch.get_num_threads()} threads"

    def note(self, **facts: Any) -> None:
        """Keep facts that may differ between equal runs (seconds, where weights lay) under `environment`."""
        self._notes |= files.plain({key: str(fact) if isinstance(fact, Path) else fact for key, fact in facts.items()})

    def finish(self, results: dict[str, Any]) -> Path:
        """Write DIR/records/NOTEBOOK.json and return its path. `results` must be equal in every equal run.

        NaN and infinities become null; numpy and torch values become plain ones. Raises TypeError for what
        JSON cannot hold, and for paths, which belong under `environment` (see `note`).
        """
        environment = {
            "run_dir": str(self.dir),
            "dataset": self.dataset,
            "device": str(self.device),
            "threads": torch.get_num_threads(),
            "versions": versions(),
            "platform": platform.platform(),
            "started": datetime.fromtimestamp(self._started, UTC).isoformat(timespec="seconds"),
            "duration_s": round(time.time() - self._started, 2),
            "peak_memory_mb": _peak_memory_mb(),
            "artefacts": sorted(name for name in self._artefacts if (self.dir / "artefacts" / name).exists()),
            "notes": self._notes,
        }
        # the path of a folder:PATH is a matter of the machine
        dataset = "folder" if self.dataset.startswith(datasets.FOLDER) else self.dataset
        record = {
            "notebook": self.notebook,
            "parameters": {"profile": self.profile.name, "dataset": dataset, "seed": self.seed, **self.extras},
            "results": files.plain(results),
            "environment": environment,
        }
        return files.write_json(self.dir / "records" / f"{self.notebook}.json", record)


def begin(notebook: str, namespace: Mapping[str, Any]) -> Run:
    """Validate the parameters in `namespace` (the notebook's globals()), seed everything, make the folder.

    The profile of a notebook that was given none is that of the variable LESIONKIT_PROFILE, if it is set.
    Raises ParameterError for a parameter that is unknown, missing, ill-typed or impossible.
    """
    values = check_parameters(notebook, namespace)
    profile, dataset, seed = values["profile"], values["dataset"], values["seed"]
    folder = Path(values["run_dir"]).resolve() if values["run_dir"] else default_dir(profile, dataset, seed)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()  # it may be there, but another's
    except OSError as error:  # a checkout that belongs to somebody else
        advice = "give run_dir a folder of your own, or set LESIONKIT_RUNS to one before Jupyter starts"
        raise ParameterError(f"{folder} cannot be written to ({error.strerror}): {advice}") from None
    devices.seed_everything(seed)
    extras = {name: values[name] for name in EXTRAS.get(notebook, {})}
    return Run(notebook, PROFILES[profile](), dataset, seed, devices.resolve(values["device"]), folder, extras)


def run_detector(run: Run) -> tuple[Detector, str]:
    """The detector that 03_segmentation trained in this run, else the shipped one; and which it is, in words."""
    weights, which = run.artefact(ARTEFACTS["03_segmentation"]), "trained by 03_segmentation in this run"
    if not weights.exists():
        weights, which = "reference", "the shipped reference weights"
    run.note(detector=which)
    return Detector.from_pretrained(weights, str(run.device)), which


def read_record(path: Path) -> dict[str, Any] | None:
    """A notebook's record, or None where there is none, or a damaged one."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return record if {"parameters", "results", "environment"} <= record.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def versions() -> dict[str, str]:
    """Versions that numbers depend on: Python, torch, kornia."""
    return {"python": platform.python_version(), "torch": torch.__version__, "kornia": version("kornia")}


def _peak_memory_mb() -> float | None:
    """The most memory this process ever held, in MB; None on Windows, which has no `resource`."""
    if sys.platform == "win32":
        return None
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB on Linux
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)
