"""Running the notebooks one after the other through papermill, into one folder:

DIR/notebooks/   executed copies      DIR/figures/    pictures and the data they show
DIR/records/     one JSON each        DIR/artefacts/  what later notebooks use (weights, tables)
DIR/checkpoints/ the training of a notebook that did not end, for --resume
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import click
import filelock
import nbformat
import papermill
from jupyter_client.kernelspec import NoSuchKernel
from nbclient.exceptions import CellControlSignal

from lesionkit import files
from lesionkit.runs import clean, resume
from lesionkit.runs.parameters import EXTRA_NOTEBOOKS, ParameterError
from lesionkit.runs.planning import Plan, literal


class NotebookFailed(click.ClickException):
    """A notebook of the chain failed. The message is readable text, the traceback included."""


def execute(plan: Plan, echo: Callable[..., None] = click.echo) -> Path:
    """Run the notebooks of the plan, in order; return the folder of the run.

    `echo` works as click.echo does and gets one line per notebook. Raises ParameterError when the folder is in use or
    cannot be written to, and NotebookFailed: then the later ones do not run and the executed copies stay.
    """
    with _claimed(plan.dir):
        skipped = resume.finished(plan) if plan.resume else ()
        for name in skipped:
            echo(f"{name:<18} same inputs, skipped")
        todo = plan.names[len(skipped) :]
        # Results of an earlier run must not stand beside those of this one when it stops halfway.
        for path in (*map(plan.record, todo), *map(plan.copy, todo), *plan.left(todo).values()):
            path.unlink(missing_ok=True)
        for name in todo:
            _run_one(plan, name, echo)
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


def _run_one(plan: Plan, name: str, echo: Callable[..., None]) -> None:
    start = time.monotonic()
    echo(f"{name:<18} ", nl=False)  # the reader sees what is at work
    mark = resume.fingerprint(plan, name)
    try:
        with resume.checkpoint(plan, name, mark):
            _papermill(plan, name)
            if not resume.stamp(plan, name, mark) and name not in EXTRA_NOTEBOOKS:
                raise NotebookFailed(f"{name} ended without a record in {plan.dir}: its last cell must call run.finish")
    except NotebookFailed:
        echo(f"FAILED {time.monotonic() - start:.0f} s")
        raise
    echo(f"ok {time.monotonic() - start:6.0f} s")


def _papermill(plan: Plan, name: str) -> None:
    plan.copy(name).parent.mkdir(exist_ok=True)
    try:
        papermill.execute_notebook(
            literal(plan.notebook(name)),
            literal(plan.copy(name)),
            parameters=plan.parameters,
            kernel_name="python3",
            cwd=str(plan.dir),  # what a notebook writes without thinking lands here, not beside the notebooks
            progress_bar=False,
            log_output=False,
            # ipykernel would warn of unencrypted TCP at each start, and print tracebacks on Ctrl-C.
            extra_arguments=["--log-level=50"],
        )
    except papermill.PapermillExecutionError as error:
        text = click.unstyle("\n".join(error.traceback)) or f"{error.ename}: {error.evalue}"
        raise NotebookFailed(
            f"{name} failed in cell [{error.exec_count}]; executed copy: {plan.copy(name)}\n{text}"
        ) from None
    except (RuntimeError, CellControlSignal, NoSuchKernel) as error:  # a kernel that died, or never started
        raise NotebookFailed(
            f"{name} stopped, its kernel died or never came: {error}; is there enough memory?"
        ) from None


def _write_back(plan: Plan, echo: Callable[..., None]) -> None:
    """Replace the notebooks by their executed copies, all or none, and only those whose content changed."""
    private = [str(plan.dir), str(plan.source.parent)]
    texts = {name: _cleaned_text(plan.copy(name), private) for name in plan.names}
    for name, text in texts.items():
        if plan.notebook(name).read_text(encoding="utf-8") != text:
            files.write_bytes(plan.notebook(name), text.encode())
            echo(f"{name:<18} written to {plan.notebook(name)}")


def _cleaned_text(path: Path, private: list[str]) -> str:
    notebook = clean.cleaned(nbformat.read(path, as_version=4))
    problems = clean.problems(notebook, private)
    if problems:
        raise NotebookFailed(f"{path} must not be committed: {problems[0]}; no notebook was replaced")
    return nbformat.writes(notebook) + "\n"
