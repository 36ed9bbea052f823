"""What a run of the notebooks will do. Everything is validated before the first one starts, and nothing is made."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lesionkit import datasets, devices, files
from lesionkit.datasets.registry import at_home
from lesionkit.runs.parameters import ARTEFACTS, CHECKS, EXTRA_NOTEBOOKS, NOTEBOOKS, ParameterError, refusals
from lesionkit.runs.records import default_dir, notebooks_dir, read_record, versions

PACKAGE = Path(__file__).resolve().parents[1]
DEFAULTS = {"profile": "quick", "dataset": "scenes", "seed": 0}  # what the committed notebooks show


@dataclass(frozen=True)
class Plan:
    """Which notebooks run, with what, and where to."""

    names: tuple[str, ...]  # in the order of the chain
    parameters: dict[str, Any]  # the five that each of them gets
    source: Path  # the folder of the notebooks
    inputs: dict[str, Any]  # what decides the results of all of them
    resume: bool
    update_notebooks: bool
    notes: tuple[str, ...] = ()  # what `datasets.verify` found worth knowing

    @property
    def dir(self) -> Path:
        return Path(self.parameters["run_dir"])

    def notebook(self, name: str) -> Path:
        return self.source / f"{name}.ipynb"

    def copy(self, name: str) -> Path:
        return self.dir / "notebooks" / f"{name}.ipynb"

    def record(self, name: str) -> Path:
        return self.dir / "records" / f"{name}.json"

    def left(self, names: Iterable[str]) -> dict[str, Path]:
        """Where the notebooks called so leave what later ones take; not all of them do."""
        return {name: self.dir / "artefacts" / ARTEFACTS[name] for name in names if name in ARTEFACTS}


@refusals()
def plan_run(
    *,
    profile: str = DEFAULTS["profile"],
    dataset: str = DEFAULTS["dataset"],
    seed: int = DEFAULTS["seed"],
    device: str = "auto",
    out: str | Path | None = None,
    only: str | None = None,
    resume: bool = False,
    update_notebooks: bool = False,
    source: Path | None = None,
) -> Plan:
    """The plan of `lesionkit run`, whose options these are. `out` None means `default_dir`; `source`, the folder of the
    notebooks, None the checkout's. Raises ParameterError, one sentence, for a wrong value."""
    values = {"profile": profile, "seed": seed, "device": device}
    for name, value in values.items():
        CHECKS[name](name, value)
    at_home(Path.home)  # where kernels keep their connection files
    values["dataset"], samples, notes = _dataset(dataset)
    values["run_dir"] = str(default_dir(profile, dataset, seed) if out is None else Path(out).absolute())
    CHECKS["run_dir"]("--out", values["run_dir"])
    # The committed notebooks show the defaults, so only a run with the defaults may replace them.
    for name, default in DEFAULTS.items():
        if update_notebooks and values[name] != default:
            raise ParameterError(f"--update-notebooks needs the default {name} {default!r}: leave out --{name}")
    source = Path(source or notebooks_dir()).resolve()
    inputs = _inputs(values, samples, source)
    plan = Plan(select(only, update_notebooks), values, source, inputs, resume, update_notebooks, notes)
    _check(plan)
    return plan


def _dataset(name: str) -> tuple[str, tuple[datasets.Sample, ...], tuple[str, ...]]:
    """The data set's name as a kernel in another folder understands it, its samples, and notes. All files are looked
    at: what is wrong with one should not be met by the third notebook, minutes later."""
    opened = CHECKS["dataset"]("dataset", name)
    if opened is None:
        return name, (), ()
    report = datasets.verify(name)
    if report.problems:
        raise ParameterError(report.problems[0])
    place = f"{datasets.FOLDER}{opened.root}" if name.startswith(datasets.FOLDER) else name
    return place, opened.samples, report.notes


def select(only: str | None, update_notebooks: bool = False) -> tuple[str, ...]:
    """The notebooks that `--only` names, by number or name, with commas between, in the order of the chain."""
    every = NOTEBOOKS + EXTRA_NOTEBOOKS
    if only is None:
        return every if update_notebooks else NOTEBOOKS
    known = {key: name for name in every for key in (name, name.split("_")[0])}
    wanted = [item.strip().zfill(2) for item in only.split(",")]
    if unknown := [item for item in wanted if item not in known]:
        raise ParameterError(f"--only has {unknown[0]!r}, but must name some of {', '.join(every)}")
    return tuple(name for name in every if name in map(known.get, wanted))


def _inputs(values: dict[str, Any], samples: Iterable[datasets.Sample], source: Path) -> dict[str, Any]:
    """What decides the results of every notebook. Thousands of images are listed (bytes, time of change), not read."""
    paths = [path for sample in samples for path in (sample.image, sample.mask)]
    return {
        "parameters": {**values, "device": str(devices.resolve(values["device"])), "run_dir": None},  # decides nothing
        "versions": versions(),
        "package": files.digest(PACKAGE),
        "data": [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths],
        "transfer": files.digest(source.parent / "figures" / "depth_transfer.csv"),  # notebook 02 shows this table
    }


def _check(plan: Plan) -> None:
    """What other notebooks left in the folder, which those of the plan take, is of the same run."""
    for name in (name for name in NOTEBOOKS if name not in plan.names):
        if record := read_record(plan.record(name)):
            theirs = {**record["parameters"], "dataset": record["environment"].get("dataset")}
            for key in DEFAULTS:
                if theirs.get(key) != plan.parameters[key]:
                    other = f"{name} of a run with {key} {theirs.get(key)!r}, not {plan.parameters[key]!r}"
                    raise ParameterError(f"{plan.dir} holds {other}: give another --out, or run all notebooks")
