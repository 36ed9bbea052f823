"""What --resume goes on from: records that carry a mark of what made them, and the state of a training."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile

import nbformat

from lesionkit import files
from lesionkit.runs.parameters import NOTEBOOKS
from lesionkit.runs.planning import Plan
from lesionkit.runs.records import CHECKPOINT, read_record


def fingerprint(plan: Plan, name: str) -> str:
    """One hash of the plan's inputs, of the notebook's cells without their outputs, and of what earlier ones left."""
    cells = [(cell.cell_type, cell.source) for cell in nbformat.read(plan.notebook(name), as_version=4).cells]
    earlier = NOTEBOOKS[: NOTEBOOKS.index(name)] if name in NOTEBOOKS else NOTEBOOKS
    left = {other: files.digest(path) for other, path in plan.left(earlier).items()}
    return hashlib.sha256(json.dumps([plan.inputs, cells, left], sort_keys=True).encode()).hexdigest()


def stamp(plan: Plan, name: str, mark: str) -> bool:
    """Note in the record what made it; one without the mark is of a notebook that did not end. False: no record."""
    record = read_record(plan.record(name))
    if record is None:
        return False
    record["environment"]["fingerprint"] = mark
    files.write_json(plan.record(name), record)
    return True


def finished(plan: Plan) -> tuple[str, ...]:
    """The first of the planned notebooks, that need not run. After one that runs, all later ones run too."""
    return tuple(takewhile(lambda name: _is_finished(plan, name), plan.names))


def _is_finished(plan: Plan, name: str) -> bool:
    record = read_record(plan.record(name))
    if record is None or not plan.copy(name).is_file():
        return False
    made = record["environment"]
    left = [plan.dir / "artefacts" / artefact for artefact in made.get("artefacts", [])]
    return made.get("fingerprint") == fingerprint(plan, name) and all(path.exists() for path in left)


@contextmanager
def checkpoint(plan: Plan, name: str, mark: str) -> Iterator[None]:
    """While a notebook runs, `Run.checkpoint` is a file of this notebook and these inputs; it stays when the notebook
    fails or is killed. One that is there already is for --resume alone."""
    folder = plan.dir / "checkpoints"
    path = folder / f"{name}-{mark[:16]}.pt"
    if not plan.resume:
        path.unlink(missing_ok=True)
    os.environ[CHECKPOINT] = str(path)  # kernels inherit it
    try:
        yield
    finally:
        del os.environ[CHECKPOINT]
    for left in folder.glob(f"{name}-{'[0-9a-f]' * 16}.pt"):  # of other inputs too; whatever else is there stays
        left.unlink()
    with suppress(OSError):
        folder.rmdir()
