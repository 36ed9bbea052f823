"""Running the notebooks one after the other through papermill, and going on after an interruption, in one folder:

DIR/notebooks/   executed copies      DIR/figures/    pictures and the data they show
DIR/records/     one JSON each        DIR/artefacts/  what later notebooks use (weights, tables)
DIR/checkpoints/ the training of a notebook that did not end, for --resume
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import takewhile
from pathlib import Path

import click
import filelock
import nbformat
import papermill
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient.exceptions import CellControlSignal

from lesionkit import files
from lesionkit.runs import clean
from lesionkit.runs.parameters import NOTEBOOKS, ParameterError
from lesionkit.runs.planning import Plan
from lesionkit.runs.records import CHECKPOINT, read_record


class NotebookFailed(click.ClickException):
    """A notebook of the chain failed. The message is readable text, the traceback included."""


class OwnKernel(AsyncKernelManager):
    """A kernel of the interpreter that runs the kit, whatever another environment has registered as python3."""

    @property
    def kernel_spec(self) -> KernelSpec:
        return KernelSpec(**get_kernel_dict())


def execute(plan: Plan, echo: Callable[..., None] = click.echo) -> Path:
    """Run the notebooks of the plan, in order; return the folder of the run.

    `echo` works as click.echo does and gets one line per notebook, after a line for each note of the plan. Raises
    ParameterError when the folder is in use or cannot be written to, and NotebookFailed: then the later ones do not run
    and the executed copies stay.
    """
    for note in plan.notes:
        echo(f"note: {note}")
    with _claimed(plan.dir):
        skipped = finished(plan) if plan.resume else ()
        for name in skipped:
            echo(f"{name:<18} same inputs, skipped")
        todo = plan.names[len(skipped) :]
        # Results of an earlier run must not stand beside those of this one when it stops halfway.
        for path in (*map(plan.record, todo), *map(plan.copy, todo), *plan.left(todo).values()):
            path.unlink(missing_ok=True)
        for name in todo:
            start = time.monotonic()
            echo(f"{name:<18} ", nl=False)  # the reader sees what is at work
            try:
                _run_one(plan, name)
            except NotebookFailed:
                echo(f"FAILED {time.monotonic() - start:.0f} s")
                raise
            echo(f"ok {time.monotonic() - start:6.0f} s")
        if plan.update_notebooks:
            _write_back(plan, echo)
    return plan.dir


def _claimed(folder: Path) -> AbstractContextManager:
    """The folder, made and locked: two runs would take each other's weights. A killed process leaves no lock."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return filelock.FileLock(folder / ".lock", blocking=False).acquire()
    except filelock.Timeout:
        raise ParameterError(f"another run is writing into {folder}: wait for it, or give another --out") from None
    except OSError as error:
        raise ParameterError(f"{folder} cannot be written to ({error.strerror}): give another --out") from None


def _run_one(plan: Plan, name: str) -> None:
    plan.copy(name).parent.mkdir(exist_ok=True)
    # papermill formats what it is given
    source, copy = (str(path).replace("{", "{{").replace("}", "}}") for path in (plan.notebook(name), plan.copy(name)))
    mark = fingerprint(plan, name)
    with checkpoint(plan, name, mark):
        try:
            papermill.execute_notebook(
                source,
                copy,
                parameters=plan.parameters,
                kernel_name="python3",  # only a name: which Python that is, OwnKernel says
                kernel_manager_class=OwnKernel,
                cwd=str(plan.dir),  # what a notebook writes without thinking lands here, not beside the notebooks
                progress_bar=False,
                # ipykernel would warn of unencrypted TCP at each start, and print tracebacks on Ctrl-C.
                extra_arguments=["--log-level=50"],
            )
        except papermill.PapermillExecutionError as error:
            text = click.unstyle("\n".join(error.traceback)) or f"{error.ename}: {error.evalue}"
            where = f"{name} failed in cell [{error.exec_count}]; executed copy: {plan.copy(name)}"
            raise NotebookFailed(f"{where}\n{text}") from None
        except (RuntimeError, PermissionError, CellControlSignal) as error:  # a kernel that died, or never started
            why = f"its kernel died or never came ({error}): is there enough memory"
            raise NotebookFailed(f"{name} stopped, {why}, and is HOME set to a folder of your own?") from None
        stamp(plan, name, mark)


def fingerprint(plan: Plan, name: str) -> str:
    """One hash of the plan's inputs, of the notebook's cells without their outputs, and of what earlier ones left."""
    cells = [(cell.cell_type, cell.source) for cell in nbformat.read(plan.notebook(name), as_version=4).cells]
    left = plan.left(takewhile(lambda other: other != name, NOTEBOOKS))
    content = [plan.inputs, cells, {other: files.digest(path) for other, path in left.items()}]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def stamp(plan: Plan, name: str, mark: str) -> None:
    """Note in the record what made it; one without the mark is of a notebook that did not end."""
    if record := read_record(plan.record(name)):
        record["environment"]["fingerprint"] = mark
        files.write_json(plan.record(name), record)


def finished(plan: Plan) -> tuple[str, ...]:
    """The first of the planned notebooks, that need not run. After one that runs, all later ones run too."""

    def is_finished(name: str) -> bool:
        made = (read_record(plan.record(name)) or {"environment": {}})["environment"]
        left = [plan.copy(name), *(plan.dir / "artefacts" / artefact for artefact in made.get("artefacts", []))]
        return made.get("fingerprint") == fingerprint(plan, name) and all(path.exists() for path in left)

    return tuple(takewhile(is_finished, plan.names))


@contextmanager
def checkpoint(plan: Plan, name: str, mark: str) -> Iterator[None]:
    """While a notebook runs, `Run.checkpoint` is a file of this notebook and these inputs; it stays when the notebook
    fails or is killed. One that is there already is for --resume alone."""
    folder = plan.dir / "checkpoints" / name
    if not plan.resume:
        shutil.rmtree(folder, ignore_errors=True)
    os.environ[CHECKPOINT] = str(folder / f"{mark[:16]}.pt")  # kernels inherit it
    try:
        yield
    finally:
        del os.environ[CHECKPOINT]
    shutil.rmtree(folder, ignore_errors=True)


def _write_back(plan: Plan, echo: Callable[..., None]) -> None:
    """Replace the notebooks by their executed copies, but only those whose content changed."""
    for path, copy in ((plan.notebook(name), plan.copy(name)) for name in plan.names):
        text = nbformat.writes(clean.cleaned(nbformat.read(copy, as_version=4))) + "\n"
        if path.read_text(encoding="utf-8") != text:
            files.write_bytes(path, text.encode())
            echo(f"{path.stem:<18} written to {path}")
