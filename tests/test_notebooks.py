"""The rules of the committed notebooks: teaching texts that were executed in order, small, and of no machine."""

import ast
import re
import sys
from pathlib import Path

import nbformat
import pytest

from lesionkit import runs
from lesionkit.runs.parameters import CHECKS

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
FOUND = sorted(FOLDER.glob("*.ipynb"))
TAUGHT = [path for path in FOUND if path.stem in runs.NOTEBOOKS]
MACHINE = re.compile(r"(?<![\w.~$/])/(root|home|work|tmp|Users|mnt|var)/\w")
LARGEST_BYTES, LONGEST_CELL, MOST_PARAMETERS = 700_000, 30, 8

every = pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
taught = pytest.mark.parametrize("path", TAUGHT, ids=lambda path: path.stem)


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def prose(path: Path) -> list[str]:
    return [cell.source for cell in read(path).cells if cell.cell_type == "markdown"]


def outputs(path: Path) -> list[nbformat.NotebookNode]:
    return [output for cell in code(path) for output in cell.outputs]


def parameters(path: Path) -> str:
    tagged = [cell.source for cell in code(path) if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1, "exactly one cell is tagged `parameters`"
    return tagged[0]


def test_the_five_notebooks_and_nothing_else():
    assert [path.stem for path in TAUGHT] == list(runs.NOTEBOOKS)
    assert {path.stem for path in FOUND} <= {*runs.NOTEBOOKS, *runs.EXTRA_NOTEBOOKS}


@every
def test_lesionkit_is_imported_before_torch(path):
    """It says how torch's threads wait for each other, which torch reads once, when it is loaded."""
    nodes = [node for cell in code(path) for node in ast.walk(ast.parse(cell.source)) if hasattr(node, "names")]
    names = [getattr(node, "module", None) or node.names[0].name for node in nodes if hasattr(node.names[0], "name")]
    foreign = {name.split(".")[0] for name in names[: names.index("lesionkit")]}
    assert foreign <= sys.stdlib_module_names


# --- parameters and bookkeeping


@taught
def test_parameters_are_few_annotated_and_commented(path):
    source = parameters(path)
    lines = [line for line in source.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    statements = ast.parse(source).body
    assert all(isinstance(one, ast.AnnAssign) for one in statements)
    assert [one.target.id for one in statements][:5] == list(CHECKS)
    assert len(statements) <= MOST_PARAMETERS
    assert [line for line in lines if "#" not in line] == []


@taught
def test_the_defaults_are_the_quick_profile_on_scenes(path):
    defaults = {one.target.id: ast.literal_eval(one.value) for one in ast.parse(parameters(path)).body}
    assert {name: defaults[name] for name in CHECKS} == {
        "profile": "quick", "dataset": "scenes", "seed": 0, "device": "auto", "run_dir": ""
    }  # fmt: skip


@taught
def test_the_run_is_begun_and_its_record_written_near_the_end(path):
    sources = [cell.source for cell in code(path)]
    assert f'runs.begin("{path.stem}", globals())' in "\n".join(sources)
    finishing = [i for i, source in enumerate(sources) if "run.finish(" in source]
    assert len(finishing) == 1
    assert finishing[0] == len(sources) - 1, "the record is what the last code cell writes"


# --- cells


@every
def test_cells_are_short(path):
    assert [cell.source[:60] for cell in code(path) if len(cell.source.splitlines()) > LONGEST_CELL] == []


@every
def test_cells_were_executed_in_order(path):
    counts = [cell.execution_count for cell in code(path) if cell.source.strip()]
    assert counts == list(range(1, len(counts) + 1))


@every
def test_nothing_failed_or_warned(path):
    assert [out.ename for out in outputs(path) if out.output_type == "error"] == []
    assert [out.text[:80] for out in outputs(path) if out.get("name") == "stderr"] == []


@taught
def test_few_outputs_are_compared(path):
    assert sum("NBVAL_CHECK_OUTPUT" in cell.source for cell in code(path)) <= 2


@every
def test_no_notebook_progress_bars(path):
    assert "tqdm.notebook" not in "\n".join(cell.source for cell in code(path))


# --- the teaching


@taught
def test_it_opens_with_a_question(path):
    first = read(path).cells[0]
    assert first.cell_type == "markdown"
    assert "?" in first.source


@taught
def test_there_are_pictures(path):
    kinds = {"image/png", "image/jpeg", "image/svg+xml"}
    pictures = [out for out in outputs(path) if kinds & set(out.get("data", {}))]
    assert len(pictures) >= 3


@taught
def test_the_reader_predicts(path):
    assert any("predict" in text.lower() for text in prose(path))


@taught
def test_a_check_is_made_of_asserts(path):
    cells = read(path).cells
    headings = [
        i for i, cell in enumerate(cells)
        if cell.cell_type == "markdown" and re.search(r"^(#+.*\bCheck\b|\*\*Check)", cell.source, re.M)
    ]  # fmt: skip
    assert headings, "a **Check** heading"
    following = [next(cell for cell in cells[i:] if cell.cell_type == "code") for i in headings]
    assert all(re.search(r"^\s*assert ", cell.source, re.M) for cell in following)


@taught
def test_it_ends_with_what_was_learned_and_exercises_with_folded_solutions(path):
    text = "\n".join(prose(path))
    assert "what we learned" in text.lower()
    assert "exercise" in text.lower()
    assert text.count("<details>") == text.count("</details>") >= 1


# --- the file


@every
def test_the_file_is_small(path):
    assert path.stat().st_size < LARGEST_BYTES


@every
def test_metadata_are_clean(path):
    metadata = read(path).metadata
    assert metadata.kernelspec.name == "python3"
    assert not {"widgets", "papermill"} & set(metadata)
    assert not any("papermill" in cell.metadata for cell in read(path).cells)


@every
def test_no_path_of_a_machine(path):
    shown = [str(out.get("text", "")) + str({k: v for k, v in out.get("data", {}).items() if k.startswith("text/")})
             for out in outputs(path)]  # fmt: skip
    for text in (*(cell.source for cell in read(path).cells), *shown):
        assert MACHINE.search(text) is None, text[:200]
