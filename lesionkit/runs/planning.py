"""What a run of the notebooks will do, from what it was asked for: everything is validated before the first one starts,
and nothing is made."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lesionkit.datasets import samples as datasets
from lesionkit.runs import parameters
from lesionkit.runs import records as runs
from lesionkit.runs.parameters import EXTRA_NOTEBOOKS, NOTEBOOKS, ParameterError


@dataclass(frozen=True)
class RunOptions:
    """What `lesionkit run` was asked for; nothing in it is validated yet."""

    profile: str = "quick"
    dataset: str = "scenes"
    seed: int = 0
    out: str | Path | None = None  # None: runs.default_dir
    only: str | None = None  # numbers or names, separated by commas; None: all
    resume: bool = False
    device: str = "auto"
    update_notebooks: bool = False
    notebooks_dir: Path | None = None  # None: the checkout's own; tests put theirs here


@dataclass(frozen=True)
class Plan:
    """Validated options: which notebooks run with what, and where to."""

    names: tuple[str, ...]
    parameters: dict[str, Any]
    source: Path
    dir: Path
    resume: bool
    update_notebooks: bool

    def notebook(self, name: str) -> Path:
        return self.source / f"{name}.ipynb"

    def copy(self, name: str) -> Path:
        return self.dir / "notebooks" / f"{name}.ipynb"

    def record(self, name: str) -> Path:
        return self.dir / "records" / f"{name}.json"


def validate_options(options: RunOptions) -> Plan:
    """The plan of a run. Raises ParameterError, one sentence, for the first option that is wrong."""
    source = Path(options.notebooks_dir or runs.notebooks_dir()).resolve()
    given = {
        "profile": options.profile,
        "dataset": options.dataset,
        "seed": options.seed,
        "device": options.device,
    }
    values = {name: parameters.VALIDATORS[name](name, value) for name, value in given.items()}
    _check_files(values["dataset"])
    if values["dataset"].startswith(datasets.FOLDER):
        # The kernel works in another directory, so a relative path would mean another folder there.
        values["dataset"] = f"{datasets.FOLDER}{datasets.folder_of(values['dataset'])}"
    if options.out is None:
        folder = runs.default_dir(values["profile"], values["dataset"], values["seed"])
    else:
        folder = Path(options.out).absolute()
    values["run_dir"] = parameters.check_run_dir("--out", str(folder))
    _check_update(options)
    names = select(options.only, source, options.update_notebooks)
    plan = Plan(names, values, source, folder, options.resume, options.update_notebooks)
    for name in names:
        _check_notebook(plan.notebook(name))
    _check_other_results(plan)
    return plan


def _check_files(dataset: str) -> None:
    """A mask of another size or a file that is cut off should not be met by the third notebook, minutes later."""
    if dataset == "scenes":
        return
    try:
        opened = datasets.open_dataset(dataset)
        datasets.check_files(opened.samples)
        for part in datasets.PARTS:
            if not any(datasets.read_mask(sample.mask).any() for sample in opened.part(part)):
                raise ParameterError(
                    f"no image of the {part} part of {dataset} shows a lesion, so nothing could be learned or measured "
                    "on it: add images with lesions; parts are dealt by the names"
                )
    except datasets.DatasetError as error:
        raise ParameterError(str(error)) from None


def select(only: str | None, source: Path, update_notebooks: bool = False) -> tuple[str, ...]:
    """The notebooks that `--only` names, by number or name, in the order of the chain."""
    extra = tuple(name for name in EXTRA_NOTEBOOKS if (source / f"{name}.ipynb").is_file())
    if only is None:
        return NOTEBOOKS + (extra if update_notebooks else ())
    known = {name.split("_")[0]: name for name in NOTEBOOKS} | {name: name for name in NOTEBOOKS + extra}
    wanted = set()
    for item in (item.strip() for item in only.split(",")):
        name = known.get(item.removesuffix(".ipynb")) or known.get(item.zfill(2))
        if name is None:
            raise ParameterError(f"--only has {item!r}, but must name some of {', '.join(NOTEBOOKS + extra)}")
        wanted.add(name)
    return tuple(name for name in NOTEBOOKS + extra if name in wanted)


def _check_update(options: RunOptions) -> None:
    """The committed notebooks show the defaults, so only a run with the defaults may replace them."""
    if not options.update_notebooks:
        return
    for name in ("profile", "dataset", "seed"):
        default = getattr(RunOptions, name)
        if getattr(options, name) != default:
            raise ParameterError(f"--update-notebooks needs the default {name} {default!r}: leave out --{name}")
    if options.resume:
        raise ParameterError("--update-notebooks runs every notebook anew: leave out --resume")


def _check_notebook(path: Path) -> None:
    """The notebook exists and takes the five parameters: papermill would only warn, and go on."""
    import papermill

    if not path.is_file():
        raise ParameterError(f"the notebook {path} does not exist: restore it, or choose others with --only")
    missing = [name for name in parameters.COMMON if name not in papermill.inspect_notebook(str(path))]
    if missing:
        raise ParameterError(f"{path} has no parameter {', '.join(missing)} in the cell tagged `parameters`")


def _check_other_results(plan: Plan) -> None:
    """A notebook takes what earlier ones left in the folder: do not mix two runs by way of --only."""
    for name in (name for name in NOTEBOOKS if name not in plan.names):
        record = read_record(plan.record(name))
        if record is not None:
            theirs = {**record["parameters"], "dataset": record["environment"].get("dataset")}
            for key in ("profile", "dataset", "seed"):
                if theirs.get(key) != plan.parameters[key]:
                    raise ParameterError(
                        f"{plan.dir} holds {name} of a run with {key} {theirs.get(key)!r}, not "
                        f"{plan.parameters[key]!r}: give another --out, or run all notebooks"
                    )


def read_record(path: Path) -> dict[str, Any] | None:
    """A notebook's record, or None where there is none, or a damaged one."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return record if {"parameters", "results", "environment"} <= record.keys() else None
    except (OSError, ValueError, AttributeError):
        return None
