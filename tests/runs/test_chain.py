"""The chain with small notebooks and real kernels: order, records, resume, failure, validation, write-back.

A kernel start takes a second or two, so each test runs as few notebooks as its fact needs.
"""

import json
import os
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import cv2
import filelock
import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from lesionkit import datasets, files, runs
from lesionkit.datasets import splits as splitting
from lesionkit.runs import chain, clean, planning, records
from lesionkit.runs.chain import NotebookFailed, execute

pytestmark = pytest.mark.pipeline

PARAMETERS = """profile: str = "quick"
dataset: str = "scenes"
seed: int = 0
device: str = "auto"
run_dir: str = \"\""""

BODY = """import random
chain = run.artefact("chain.txt")
before = chain.read_text() if chain.exists() else ""
chain.write_text(before + "NAME ")
path = run.finish({"before": before, "draw": random.random()})"""


def make_notebook(folder: Path, name: str, *bodies: str, parameters: str = PARAMETERS, begin: bool = True) -> None:
    start = [f'from lesionkit import runs\nrun = runs.begin("{name}", globals())'] if begin else []
    cells = [
        new_markdown_cell(f"# {name}"),
        new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        *(new_code_cell(source) for source in [*start, *bodies]),
    ]
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": spec}), folder / f"{name}.ipynb")


@pytest.fixture
def source(tmp_path):
    """Five notebooks; each appends its name to one artefact and records a random number."""
    folder = tmp_path / "repo" / "notebooks"
    folder.mkdir(parents=True)
    for name in runs.NOTEBOOKS:
        make_notebook(folder, name, BODY.replace("NAME", name))
    return folder


class Echo:
    """Collects what a terminal would show."""

    def __init__(self) -> None:
        self.text = ""

    def __call__(self, text: str = "", nl: bool = True) -> None:
        self.text += text + ("\n" if nl else "")


def planned(tmp_path: Path, source: Path, **changes) -> planning.Plan:
    given = {"profile": "smoke", "only": "02,03", "out": tmp_path / "out", "device": "cpu", "source": source}
    plan = planning.plan_run(**(given | changes))
    # Somebody may edit the package while its tests run; these are about other inputs.
    return replace(plan, inputs=plan.inputs | {"package": "the same"})


def record(folder: Path, name: str) -> dict:
    return json.loads((folder / "records" / f"{name}.json").read_text())


def without_environment(folder: Path, name: str) -> dict:
    return {key: part for key, part in record(folder, name).items() if key != "environment"}


def ran(echo: Echo) -> list[str]:
    return [line.split()[0] for line in echo.text.splitlines() if " ok " in line]


# --- a run that succeeds, and what --resume makes of it ---------------------------------------------------


def test_order_records_resume_and_seed(tmp_path, source):
    make_notebook(source, "03_segmentation", BODY.replace("NAME", "03_segmentation"),
                  parameters=PARAMETERS + '\nguidance: str = "depth"')  # fmt: skip
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    first = Echo()
    assert execute(planned(tmp_path, source, only="3, 02_depth"), first) == out
    assert ran(first) == ["02_depth", "03_segmentation"]
    assert record(out, "03_segmentation")["results"]["before"] == "02_depth "
    assert record(out, "03_segmentation")["parameters"]["guidance"] == "depth"
    assert (out / "notebooks" / "02_depth.ipynb").is_file()
    one = without_environment(out, "02_depth")

    again = Echo()
    execute(planned(tmp_path, source, resume=True), again)
    assert ran(again) == []
    assert again.text.count("skipped") == 2

    # another seed: everything runs anew; and the same seed in another folder gives the same record
    other = Echo()
    execute(planned(tmp_path, source, only="02", resume=True, out=tmp_path / "other"), other)
    assert ran(other) == ["02_depth"]
    assert without_environment(tmp_path / "other", "02_depth") == one
    execute(planned(tmp_path, source, only="02", resume=True, seed=1, out=tmp_path / "other"), other)
    assert ran(other) == ["02_depth", "02_depth"]
    assert record(tmp_path / "other", "02_depth")["results"]["draw"] != one["results"]["draw"]
    assert (out / "mine.txt").read_text() == "mine"


TRAINING = """import os
import torch
from pathlib import Path
from lesionkit.training import TrainConfig, fit
torch.manual_seed(run.seed)
lines = []
def log(line):
    lines.append(line)
    if DEADLY and len(lines) == 3 and not Path("../struck").exists():
        Path("../struck").touch()
        os._exit(9)
net = torch.nn.Linear(3, 1)
data = {"x": torch.randn(12, 3), "y": torch.randn(12, 1)}
history = fit(net, data, lambda model, batch: (model(batch["x"]) - batch["y"]).square().mean(),
              TrainConfig(5, batch_size=4, seed=run.seed), log=log, checkpoint=run.checkpoint)
run.note(epochs=lines)
path = run.finish({"loss": history.loss, "weights": net.weight})"""


def test_resume_goes_on_with_a_training_that_was_killed(tmp_path, source):
    """The kernel dies in the third epoch, as of a kill: two are kept, and the end is that of an unbroken run."""
    make_notebook(source, "02_depth", TRAINING.replace("DEADLY", "False"))
    execute(planned(tmp_path, source, only="02", out=tmp_path / "unbroken"), Echo())
    make_notebook(source, "02_depth", TRAINING.replace("DEADLY", "True"))
    with pytest.raises(NotebookFailed, match="its kernel died"):
        execute(planned(tmp_path, source, only="02"), Echo())
    out = tmp_path / "out"
    assert len(list((out / "checkpoints" / "02_depth").iterdir())) == 1
    execute(planned(tmp_path, source, only="02", resume=True), Echo())
    lines = record(out, "02_depth")["environment"]["notes"]["epochs"]
    assert [line[:12] for line in lines] == ["going on aft", "epoch 3/5  l", "epoch 4/5  l", "epoch 5/5  l"]
    assert record(out, "02_depth")["results"] == record(tmp_path / "unbroken", "02_depth")["results"]
    assert not (out / "checkpoints" / "02_depth").exists()


def test_only_an_own_checkpoint_of_the_same_inputs_is_gone_on_from(tmp_path, source):
    folder = tmp_path / "out" / "checkpoints"
    for name in ("03_segmentation", "mine"):
        (folder / name).mkdir(parents=True)
        (folder / name / f"{'a' * 16}.pt").write_bytes(b"not of this notebook's run")
    resuming, anew = (planned(tmp_path, source, resume=going_on) for going_on in (True, False))
    for plan, mark, kept in ((anew, "a", False), (resuming, "a", True), (resuming, "b", False), (anew, "b", False)):
        with suppress(NotebookFailed), chain.checkpoint(plan, "02_depth", mark * 64):
            path = Path(os.environ[records.CHECKPOINT])
            assert path.exists() is kept
            files.write_bytes(path, b"w")
            raise NotebookFailed("killed")
    assert records.CHECKPOINT not in os.environ
    with chain.checkpoint(resuming, "02_depth", "b" * 64):
        assert path.exists()
    assert sorted(path.name for path in folder.iterdir()) == ["03_segmentation", "mine"], "and nothing else is gone"


@pytest.mark.parametrize("name", ["02_depth", "03_segmentation"])
def test_the_long_trainings_keep_their_state(name):
    assert "checkpoint=run.checkpoint" in (runs.notebooks_dir() / f"{name}.ipynb").read_text(encoding="utf-8")


def test_resume_looks_at_notebook_package_artefacts_and_everything_after(tmp_path, source, monkeypatch):
    """No kernel: the record of a finished notebook is put in place, and `finished` is asked."""
    plan = planned(tmp_path, source, only="01,02", resume=True)
    for name in plan.names:
        run = runs.begin(name, {**plan.parameters})
        run.artefact(f"{name}.bin").write_bytes(b"w")
        run.finish({})
        plan.copy(name).parent.mkdir(exist_ok=True)
        plan.copy(name).write_text("{}")
        assert chain.finished(plan) == plan.names[: plan.names.index(name)]  # not stamped yet
        chain.stamp(plan, name, chain.fingerprint(plan, name))
    assert chain.finished(plan) == ("01_data", "02_depth")

    assert chain.finished(replace(plan, inputs=plan.inputs | {"package": "changed"})) == ()
    (plan.dir / "artefacts" / "02_depth.bin").unlink()
    assert chain.finished(plan) == ("01_data",)
    make_notebook(source, "01_data", "1 + 1")  # 02 is unchanged, but comes after a notebook that runs
    (plan.dir / "artefacts" / "02_depth.bin").write_bytes(b"w")
    assert chain.finished(plan) == ()


def test_resume_looks_at_what_earlier_notebooks_left(tmp_path, source):
    """03 that ran alone took the shipped depth network; once 02 has left one, it runs anew. 01 does not care."""
    plan = planned(tmp_path, source, only="01,03", resume=True)
    for name in plan.names:
        runs.begin(name, {**plan.parameters, "guidance": "depth"}).finish({})
        plan.copy(name).parent.mkdir(exist_ok=True)
        plan.copy(name).write_text("{}")
        chain.stamp(plan, name, chain.fingerprint(plan, name))
    assert chain.finished(plan) == ("01_data", "03_segmentation")
    weights = plan.dir / "artefacts" / "depth.safetensors"
    weights.parent.mkdir(exist_ok=True)
    weights.write_bytes(b"trained")
    assert chain.finished(plan) == ("01_data",)


def test_resume_looks_at_the_table_that_a_notebook_shows(tmp_path, source):
    plan = planned(tmp_path, source)
    (source.parent / "figures").mkdir()
    (source.parent / "figures" / "depth_transfer.csv").write_text("set,estimator\n")
    assert planned(tmp_path, source).inputs != plan.inputs


def test_the_digest_of_the_package_follows_every_file(tmp_path):
    (tmp_path / "assets").mkdir()
    for name in ("chain.py", "assets/weights.bin"):
        (tmp_path / name).write_bytes(b"one")
    before = files.digest(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "chain.pyc").write_bytes(b"x")
    assert files.digest(tmp_path) == before
    (tmp_path / "assets" / "weights.bin").write_bytes(b"two")
    assert files.digest(tmp_path) != before
    assert Path(files.__file__).parent == planning.PACKAGE


# --- failures ---------------------------------------------------------------------------------------------


def test_a_failing_notebook_stops_the_chain(tmp_path, source):
    make_notebook(source, "02_depth", "def deep():\n    return {}['missing key']", "deep()")
    out = tmp_path / "out"
    for name in ("02_depth", "03_segmentation"):  # of an earlier run: must not look like results of this one
        files.write_json(out / "records" / f"{name}.json", {})
    echo = Echo()
    with pytest.raises(NotebookFailed) as caught:
        execute(planned(tmp_path, source), echo)
    text = str(caught.value)
    assert "KeyError: 'missing key'" in text
    assert "deep()" in text
    assert "\x1b" not in text
    assert "FAILED" in echo.text
    assert ran(echo) == []
    kept = nbformat.read(out / "notebooks" / "02_depth.ipynb", as_version=4)
    assert any(each.get("ename") == "KeyError" for cell in kept.cells for each in cell.get("outputs", []))
    assert not (out / "notebooks" / "03_segmentation.ipynb").exists()
    assert list((out / "records").iterdir()) == []


def test_a_dead_kernel_is_a_failure(tmp_path, source):
    make_notebook(source, "02_depth", "import os\nos._exit(1)", begin=False)
    with pytest.raises(NotebookFailed, match="its kernel died"):
        execute(planned(tmp_path, source, only="02"), Echo())


def test_papermill_with_an_unknown_parameter_fails(tmp_path, source):
    """What a user types by hand: papermill logs a warning, `begin` makes it an error."""
    import papermill

    with pytest.raises(papermill.PapermillExecutionError) as caught:
        papermill.execute_notebook(
            str(source / "01_data.ipynb"),
            str(tmp_path / "out.ipynb"),
            parameters={"sead": 1, "run_dir": str(tmp_path / "run")},
            kernel_name="python3",
            progress_bar=False,
        )
    assert caught.value.ename == "ParameterError"
    assert "no parameter 'sead'; it has profile, dataset, seed" in caught.value.evalue
    assert not (tmp_path / "run").exists()


def test_a_kernel_called_python3_of_another_environment_is_not_taken(tmp_path, source, monkeypatch):
    """As `ipykernel install --user` leaves it, where the kit's own environment belongs to somebody else."""
    spec = {
        "argv": [str(tmp_path / "no" / "python"), "-f", "{connection_file}"],
        "display_name": "x",
        "language": "python",
    }
    files.write_json(tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json", spec)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    make_notebook(source, "02_depth", 'import sys\nrun.finish({"python": sys.executable})')
    execute(planned(tmp_path, source, only="02"), Echo())
    assert record(tmp_path / "out", "02_depth")["results"]["python"] == sys.executable


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied", "/.local"), RuntimeError("no home")])
def test_a_home_that_is_not_there_or_not_ones_own_is_one_line(tmp_path, source, monkeypatch, error):
    """Jupyter keeps its connection files there, and raises what it meets."""

    def homeless(self, **_):
        raise error

    monkeypatch.setattr(chain.OwnKernel, "write_connection_file", homeless)
    with pytest.raises(NotebookFailed, match=r"02_depth stopped, .*is HOME set to a folder of your own") as caught:
        execute(planned(tmp_path, source, only="02"), Echo())
    assert "\n" not in str(caught.value)


def test_notes_come_before_the_notebooks(tmp_path, source):
    echo = Echo()
    make_notebook(source, "02_depth", "1 / 0")
    with pytest.raises(NotebookFailed):
        execute(replace(planned(tmp_path, source, only="02"), notes=("a is odd", "b is odd")), echo)
    assert echo.text.startswith("note: a is odd\nnote: b is odd\n02_depth")


# --- validation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"profile": "fast"}, "smoke, quick, full"),
        ({"dataset": "kvasir"}, "kvasir-seg"),
        ({"dataset": "folder:does/not/exist"}, "does not exist"),
        ({"seed": -1}, "whole number"),
        ({"device": "tpu"}, "auto, cpu"),
        ({"only": "07"}, "01_data, 02_depth"),
        ({"only": ""}, "01_data, 02_depth"),
        ({"update_notebooks": True}, "leave out --profile"),
        ({"update_notebooks": True, "profile": "quick", "seed": 1}, "leave out --seed"),
    ],
)
def test_wrong_options_are_found_before_anything_is_made(tmp_path, source, change, words):
    with pytest.raises(runs.ParameterError, match=words):
        execute(planned(tmp_path, source, **change), Echo())
    assert not (tmp_path / "out").exists()


def test_out_must_not_be_a_file(tmp_path, source):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(runs.ParameterError, match=r"cannot be written to \(File exists\): give another --out"):
        execute(planned(tmp_path, source, out=tmp_path / "file"), Echo())


def test_a_folder_of_which_one_part_shows_no_lesion_is_refused_at_once(tmp_path, source):
    for kind in ("images", "masks"):
        (tmp_path / "own" / kind).mkdir(parents=True)
    parts = splitting.hash_parts("own", [f"{i}" for i in range(8)])
    for part, stems in parts.items():
        for stem in stems:
            picture = np.full((40, 40, 3), 30 * int(stem), np.uint8)  # which differ: copies are refused
            cv2.imwrite(str(tmp_path / "own" / "images" / f"{stem}.png"), picture)
            mask = np.full((40, 40), 255 * (part != "validation"), np.uint8)
            cv2.imwrite(str(tmp_path / "own" / "masks" / f"{stem}.png"), mask)
    with pytest.raises(runs.ParameterError, match=r"no image of the validation part of folder:.* shows a lesion"):
        planned(tmp_path, source, dataset=f"folder:{tmp_path / 'own'}")
    assert not (tmp_path / "out").exists()


def test_a_data_set_is_opened_once_and_its_files_decide(tmp_path, source, monkeypatch):
    for kind in ("images", "masks"):
        (tmp_path / "own" / kind).mkdir(parents=True)
        for i in range(8):  # pictures that differ: copies are refused
            level = 255 if kind == "masks" else 30 * i
            cv2.imwrite(str(tmp_path / "own" / kind / f"{i}.png"), np.full((40, 40, 3), level, np.uint8))
    opened, really = [], datasets.open_dataset
    monkeypatch.setattr(datasets, "open_dataset", lambda name: opened.append(name) or really(name))
    monkeypatch.chdir(tmp_path)
    plan = planned(tmp_path, source, dataset="folder:own")
    assert opened == ["folder:own"]
    assert plan.parameters["dataset"] == f"folder:{tmp_path / 'own'}"  # a kernel works in another folder
    assert planned(tmp_path, source, dataset="folder:own").inputs == plan.inputs
    os.utime(tmp_path / "own" / "masks" / "3.png", (1, 1))
    assert planned(tmp_path, source, dataset="folder:own").inputs != plan.inputs


def test_two_runs_do_not_write_into_one_folder(tmp_path, source):
    (tmp_path / "out").mkdir()
    with filelock.FileLock(tmp_path / "out" / ".lock"), pytest.raises(runs.ParameterError, match="another run is"):
        execute(planned(tmp_path, source), Echo())
    assert [path.name for path in (tmp_path / "out").iterdir()] in ([], [".lock"])


def test_a_folder_that_cannot_be_written_to_is_a_wrong_option(tmp_path, source, monkeypatch):
    def refused(self, *_, **__):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refused)  # root may write anywhere
    with pytest.raises(runs.ParameterError, match=r"cannot be written to \(Permission denied\): give another --out"):
        execute(planned(tmp_path, source), Echo())


def test_only_does_not_mix_two_runs(tmp_path, source):
    runs.begin("01_data", {**planned(tmp_path, source, seed=5).parameters}).finish({})
    with pytest.raises(runs.ParameterError, match="seed 5, not 0"):
        planned(tmp_path, source, only="02")
    assert planned(tmp_path, source, only="02", seed=5).names == ("02_depth",)
    assert planned(tmp_path, source, only=None).names == runs.NOTEBOOKS


def test_select_keeps_the_order_of_the_chain():
    assert planning.select("5,explore, 02_depth") == ("02_depth", "05_evaluation", "explore")
    assert planning.select(None) == runs.NOTEBOOKS
    assert planning.select(None, update_notebooks=True) == (*runs.NOTEBOOKS, "explore")


# --- --update-notebooks -----------------------------------------------------------------------------------


def test_update_notebooks_writes_back_clean_copies(tmp_path, source):
    show = 'from IPython.display import HTML\nprint("shown")\nHTML("<b>picture</b>")'
    make_notebook(source, "02_depth", BODY, show)
    before = nbformat.read(source / "02_depth.ipynb", as_version=4)
    untouched = (source / "01_data.ipynb").read_bytes()
    execute(planned(tmp_path, source, profile="quick", only="02", update_notebooks=True), Echo())
    assert record(tmp_path / "out", "02_depth")["parameters"]["profile"] == "quick"  # whatever LESIONKIT_PROFILE says
    after = nbformat.read(source / "02_depth.ipynb", as_version=4)

    assert [cell.source for cell in after.cells] == [cell.source for cell in before.cells]
    assert [cell.id for cell in after.cells] == [cell.id for cell in before.cells]
    code = [cell for cell in after.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2, 3, 4]
    assert code[-1].outputs[0].text == "shown\n"
    assert code[-1].outputs[1].data["text/html"] == "<b>picture</b>"
    assert code[-1].outputs[1].execution_count == 4
    assert set(after.metadata) == {"kernelspec", "language_info"}
    assert after.metadata.kernelspec == clean.KERNELSPEC
    assert [cell.metadata for cell in after.cells] == [{}, {"tags": ["parameters"]}, {}, {}, {}]
    assert str(tmp_path) not in (source / "02_depth.ipynb").read_text()
    assert (source / "01_data.ipynb").read_bytes() == untouched


def test_cleaning_drops_widget_state_but_keeps_the_text():
    data = {clean.WIDGET_VIEW: {"model_id": "1"}, "text/plain": "Explorer()"}
    cell = new_code_cell("w", execution_count=7, outputs=[nbformat.v4.new_output("display_data", data)])
    skipped = new_code_cell("never run")
    notebook = new_notebook(cells=[skipped, cell], metadata={"widgets": {"state": {}}, "papermill": {}})
    result = clean.cleaned(notebook)
    assert result.cells[1].outputs[0].data == {"text/plain": "Explorer()"}
    assert [each.execution_count for each in result.cells] == [None, 1]
    assert not {"widgets", "papermill"} & set(result.metadata)
