"""Running the notebooks one after the other through papermill, into one folder:

DIR/notebooks/   executed copies      DIR/figures/    pictures and the data they show
DIR/records/     one JSON each        DIR/artefacts/  what later notebooks use (weights, tables)
DIR/checkpoints/ the training of a notebook that did not end, for --resume
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click
import filelock
import nbformat

from lesionkit import devices
from lesionkit.datasets import samples as datasets
from lesionkit.runs import clean, parameters
from lesionkit.runs import records as runs
from lesionkit.runs.parameters import EXTRA_NOTEBOOKS, NOTEBOOKS, ParameterError
from lesionkit.runs.planning import Plan, RunOptions, read_record, validate_options

__all__ = ["NotebookFailed", "ParameterError", "RunOptions", "execute", "validate_options"]

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class NotebookFailed(RuntimeError):
    """A notebook of the chain failed. The message is readable text, the traceback included."""


# --- the chain -----------------------------------------------------------------------------------------


def execute(options: RunOptions, echo: Callable[..., None] = click.echo) -> Path:
    """Run the notebooks that `options` selects, in order; return the folder of the run.

    `echo` works as click.echo does and gets one line per notebook. Raises ParameterError for a wrong option,
    before anything is made, and NotebookFailed: then the later ones do not run and the executed copies stay.
    """
    plan = validate_options(options)
    lock = _claimed(plan.dir)
    try:
        return _execute(plan, echo)
    finally:
        lock.release()


def _claimed(folder: Path) -> filelock.BaseFileLock:
    """The folder, made and locked: two runs would take each other's weights. A killed process leaves no lock."""
    lock = filelock.FileLock(folder / ".lock", blocking=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout:
        raise ParameterError(f"another run is writing into {folder}: wait for it, or give another --out") from None
    except OSError as error:
        raise ParameterError(f"{folder} cannot be written to ({error.strerror}): give another --out") from None
    return lock


def _execute(plan: Plan, echo: Callable[..., None]) -> Path:
    inputs = _inputs(plan)
    skipped = _finished(plan, inputs) if plan.resume else ()
    for name in skipped:
        echo(f"{name:<18} same inputs, skipped")
    todo = plan.names[len(skipped) :]
    for name in todo:  # results of an earlier run must not stand beside those of this one when it stops halfway
        plan.record(name).unlink(missing_ok=True)
        plan.copy(name).unlink(missing_ok=True)
        for artefact in parameters.ARTEFACTS.get(name, ()):
            (plan.dir / "artefacts" / artefact).unlink(missing_ok=True)
    plan.copy("").parent.mkdir(parents=True, exist_ok=True)
    for name in todo:
        _run_one(plan, name, inputs, echo)
    if plan.update_notebooks:
        _write_back(plan, echo)
    return plan.dir


def _run_one(plan: Plan, name: str, inputs: Mapping[str, Any], echo: Callable[..., None]) -> None:
    start = time.monotonic()
    echo(f"{name:<18} ", nl=False)  # the reader sees what is at work
    mark = fingerprint(plan, name, inputs)
    try:
        with _checkpoint(plan, name, mark):
            _papermill(plan, name)
            _stamp(plan, name, mark)
    except NotebookFailed:
        echo(f"FAILED {time.monotonic() - start:.0f} s")
        raise
    echo(f"ok {time.monotonic() - start:6.0f} s")


def _papermill(plan: Plan, name: str) -> None:
    import papermill
    from jupyter_client.kernelspec import NoSuchKernel
    from nbclient.exceptions import CellControlSignal

    try:
        papermill.execute_notebook(
            str(plan.notebook(name)).replace("{", "{{").replace("}", "}}"),  # papermill formats paths
            str(plan.copy(name)).replace("{", "{{").replace("}", "}}"),
            parameters=plan.parameters,
            kernel_name="python3",
            cwd=str(plan.dir),  # what a notebook writes without thinking lands here, not beside the notebooks
            progress_bar=False,
            log_output=False,
            # ipykernel would warn of unencrypted TCP at each start, and print tracebacks on Ctrl-C.
            extra_arguments=["--log-level=50"],
        )
    except papermill.PapermillExecutionError as error:
        text = ANSI.sub("", "\n".join(error.traceback)) or f"{error.ename}: {error.evalue}"
        raise NotebookFailed(
            f"{name} failed in cell [{error.exec_count}]; executed copy: {plan.copy(name)}\n{text}"
        ) from None
    except (RuntimeError, CellControlSignal, NoSuchKernel) as error:  # a kernel that died, or never started
        raise NotebookFailed(
            f"{name} stopped, its kernel died or never came: {error}; is there enough memory?"
        ) from None


@contextmanager
def _checkpoint(plan: Plan, name: str, mark: str) -> Iterator[None]:
    """While a notebook runs, `Run.checkpoint` is a file of this notebook and these inputs; it stays when the notebook
    fails or is killed. One that is there already is for --resume alone."""
    folder = plan.dir / "checkpoints"
    path = folder / f"{name}-{mark[:16]}.pt"
    if not plan.resume:
        path.unlink(missing_ok=True)
    os.environ[runs.CHECKPOINT] = str(path)  # kernels inherit it
    try:
        yield
    finally:
        del os.environ[runs.CHECKPOINT]
    for left in folder.glob(f"{name}-{'[0-9a-f]' * 16}.pt"):  # of other inputs too; whatever else is there stays
        left.unlink()
    with suppress(OSError):
        folder.rmdir()


# --- what made a record: for --resume ------------------------------------------------------------------


def _inputs(plan: Plan) -> dict[str, Any]:
    """Everything that decides the results of every notebook of the run."""
    values = {key: value for key, value in plan.parameters.items() if key != "run_dir"}
    return {
        "parameters": {**values, "device": str(devices.resolve(values["device"]))},
        "versions": runs.versions(),
        "package": _package_digest(),
        "data": _data_listing(values["dataset"]),
        "transfer": _digest(plan.source.parent / "figures" / "depth_transfer.csv"),  # notebook 02 shows this table
    }


def _package_digest() -> str:
    digest = hashlib.sha256()
    here = Path(__file__).resolve().parents[1]
    for path in sorted(path for path in here.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        digest.update(f"{path.relative_to(here)} {path.stat().st_size}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _data_listing(name: str) -> list[tuple[str, int, int]]:
    """Name, bytes and time of change of every file: thousands of images are listed, not read."""
    if name == "scenes":
        return []
    samples = datasets.open_dataset(name).samples
    paths = [path for sample in samples for path in (sample.image, sample.mask)]
    return [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]


def fingerprint(plan: Plan, name: str, inputs: Mapping[str, Any]) -> str:
    """One hash of `inputs`, of the notebook's own cells (without their outputs) and of what earlier ones left."""
    notebook = nbformat.read(plan.notebook(name), as_version=4)
    cells = [(cell.cell_type, cell.source) for cell in notebook.cells]
    earlier = NOTEBOOKS[: NOTEBOOKS.index(name)] if name in NOTEBOOKS else NOTEBOOKS
    left = {artefact: _digest(plan.dir / "artefacts" / artefact)
            for other in earlier for artefact in parameters.ARTEFACTS.get(other, ())}  # fmt: skip
    return hashlib.sha256(json.dumps([inputs, cells, left], sort_keys=True).encode()).hexdigest()


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _finished(plan: Plan, inputs: Mapping[str, Any]) -> tuple[str, ...]:
    """The first of the selected notebooks that need not run. After one that runs, all later ones run too."""
    done = []
    for name in plan.names:
        record = read_record(plan.record(name))
        if record is None or not plan.copy(name).is_file():
            break
        left = [plan.dir / "artefacts" / artefact for artefact in record["environment"].get("artefacts", [])]
        same = record["environment"].get("fingerprint") == fingerprint(plan, name, inputs)
        if not same or not all(path.exists() for path in left):
            break
        done.append(name)
    return tuple(done)


def _stamp(plan: Plan, name: str, mark: str) -> None:
    """Note in the record what made it: a record without the mark is of a notebook that did not end."""
    record = read_record(plan.record(name))
    if record is None:
        if name in EXTRA_NOTEBOOKS:
            return
        raise NotebookFailed(f"{name} ended without a record in {plan.dir}: its last cell must call run.finish")
    record["environment"]["fingerprint"] = mark
    runs.write_json(plan.record(name), record)


# --- back into the repository --------------------------------------------------------------------------


def _write_back(plan: Plan, echo: Callable[..., None]) -> None:
    """Replace the notebooks by their executed copies, all or none, and only those whose content changed."""
    private = [str(plan.dir), str(plan.source.parent)]
    texts = {name: _cleaned_text(plan.copy(name), private) for name in plan.names}
    for name, text in texts.items():
        if plan.notebook(name).read_text(encoding="utf-8") != text:
            runs.write_bytes(plan.notebook(name), text.encode())
            echo(f"{name:<18} written to {plan.notebook(name)}")


def _cleaned_text(path: Path, private: list[str]) -> str:
    notebook = clean.cleaned(nbformat.read(path, as_version=4))
    problems = clean.problems(notebook, private)
    if problems:
        raise NotebookFailed(f"{path} must not be committed: {problems[0]}; no notebook was replaced")
    return nbformat.writes(notebook) + "\n"
