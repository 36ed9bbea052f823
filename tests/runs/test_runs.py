"""begin: what it refuses, what it seeds. Run: what a record holds, and that equal runs give equal records."""

import json
import random
import shutil
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch

from lesionkit import devices, runs
from lesionkit.runs import records
from lesionkit.segmentation import GUIDANCE

GOOD = {"profile": "smoke", "dataset": "scenes", "seed": 3, "device": "cpu"}


@pytest.fixture(autouse=True)
def _torch_as_before():
    yield
    torch.use_deterministic_algorithms(False)


def begin(tmp_path: Path, notebook: str = "02_depth", **changes) -> runs.Run:
    return runs.begin(notebook, GOOD | {"run_dir": str(tmp_path / "run")} | changes)


def test_begin_gives_the_profile_and_makes_the_folder(tmp_path):
    run = begin(tmp_path)
    assert run.profile == runs.smoke()
    assert (run.dataset, run.seed, str(run.device)) == ("scenes", 3, "cpu")
    assert run.artefact("a.bin") == tmp_path / "run" / "artefacts" / "a.bin"
    assert run.dir == tmp_path / "run"
    assert run.figures.is_dir()
    assert f"torch {torch.__version__}" in run.environment_line()
    assert "\n" not in run.environment_line()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"profile": "fast"}, "smoke, quick, full"),
        ({"profile": 3}, "smoke, quick, full"),
        ({"seed": "1"}, "whole number from 0"),
        ({"seed": True}, "whole number from 0"),
        ({"seed": -1}, "whole number from 0"),
        ({"seed": 1.0}, "whole number from 0"),
        ({"device": "gpu"}, "auto, cpu, cuda"),
        ({"device": "cuda:99"}, "not on this machine"),
        ({"device": 0}, "auto, cpu, cuda"),
        ({"dataset": "kvasir"}, "kvasir-seg"),
        ({"dataset": 7}, "scenes"),
        ({"run_dir": 5}, "path as text"),
    ],
)
def test_begin_names_what_is_allowed(tmp_path, change, words):
    with pytest.raises(runs.ParameterError, match=words) as caught:
        begin(tmp_path, **change)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_is_kept_only_where_the_chain_says(tmp_path, monkeypatch):
    monkeypatch.delenv(records.CHECKPOINT, raising=False)
    assert begin(tmp_path).checkpoint is None  # JupyterLab: a cell that is run again begins anew
    monkeypatch.setenv(records.CHECKPOINT, str(tmp_path / "net.pt"))
    assert begin(tmp_path).checkpoint == tmp_path / "net.pt"


def test_begin_refuses_a_data_set_that_is_not_here(tmp_path, monkeypatch):
    monkeypatch.setenv("LESIONKIT_DATA", str(tmp_path / "nothing"))
    with pytest.raises(runs.ParameterError, match="lesionkit fetch kvasir-seg"):
        begin(tmp_path, dataset="kvasir-seg")


def test_begin_refuses_a_file_as_run_dir(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(runs.ParameterError, match=r"cannot be written to \(Not a directory\)"):
        begin(tmp_path, run_dir=str(tmp_path / "file" / "below"))
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("there", [False, True])
def test_a_checkout_that_cannot_be_written_to_says_what_to_set(tmp_path, monkeypatch, there):
    """Somebody else's, on which a notebook is opened; its folder of runs may be there already."""

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    if there:
        begin(tmp_path)
        monkeypatch.setattr("tempfile.TemporaryFile", refused)  # root may write anywhere
    else:
        monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(
        runs.ParameterError, match=r"cannot be written to \(Permission denied\): give run_dir .*LESIONKIT_RUNS"
    ):
        begin(tmp_path)


def test_only_notebook_three_has_guidance(tmp_path):
    assert begin(tmp_path, "03_segmentation", guidance="learned").extras == {"guidance": "learned"}
    assert begin(tmp_path, guidance="learned").extras == {}
    alone = ", ".join(name for name, kind in GUIDANCE.items() if kind.alone)
    with pytest.raises(runs.ParameterError, match=f"{alone}$"):
        begin(tmp_path, "03_segmentation", guidance="hope")
    with pytest.raises(runs.ParameterError, match="does not define guidance"):
        begin(tmp_path, "03_segmentation")


def test_a_parameter_that_papermill_injected_must_be_declared(tmp_path):
    cells = ["", "profile: str = 'quick'", "# Parameters\nseed = 3\nprofil = 'smoke'\n"]
    with pytest.raises(runs.ParameterError, match=r"no parameter 'profil'; it has profile, dataset"):
        begin(tmp_path, In=cells)
    begin(tmp_path, In=["", "profil = 1", "# Parameters\nseed = 3"])  # a cell of the reader's own is no parameter


def test_a_variable_names_the_profile_of_a_notebook_that_was_given_none(tmp_path, monkeypatch):
    given = ["", "# Parameters\nprofile = 'quick'"]
    monkeypatch.setenv("LESIONKIT_PROFILE", "full")
    assert begin(tmp_path, profile="quick").profile == runs.full()
    assert begin(tmp_path, profile="quick", In=["", "# Parameters\nseed = 3"]).profile == runs.full()
    assert begin(tmp_path, profile="quick", In=given).profile == runs.quick()  # papermill's word counts
    assert begin(tmp_path, profile="smoke").profile == runs.smoke()  # and the reader's
    monkeypatch.setenv("LESIONKIT_PROFILE", "fast")
    with pytest.raises(runs.ParameterError, match="LESIONKIT_PROFILE is 'fast', but must be one of smoke, quick, full"):
        begin(tmp_path, profile="quick")
    assert begin(tmp_path, profile="quick", In=given).profile == runs.quick()
    monkeypatch.delenv("LESIONKIT_PROFILE")
    assert begin(tmp_path, profile="quick").profile == runs.quick()


def test_the_seed_decides_every_generator(tmp_path):
    def draw(seed):
        begin(tmp_path, seed=seed)
        return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002

    first, again, other = draw(1), draw(1), draw(2)
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))
    assert torch.are_deterministic_algorithms_enabled()


def test_default_dirs_keep_different_runs_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("LESIONKIT_RUNS", str(tmp_path))
    assert runs.default_dir("quick", "scenes", 0) == tmp_path / "quick-scenes-seed0"
    one = runs.default_dir("quick", f"folder:{tmp_path}/a/own", 0)
    two = runs.default_dir("quick", f"folder:{tmp_path}/b/own", 0)
    assert one != two
    assert one.name.startswith("quick-folder-own-")
    monkeypatch.delenv("LESIONKIT_RUNS")
    assert runs.default_dir("quick", "scenes", 0).parent == runs.notebooks_dir().parent / "runs"


def test_a_run_goes_on_after_its_folder_was_cleared(tmp_path):
    run = begin(tmp_path)
    shutil.rmtree(run.dir)
    run.artefact("below/weights.txt").write_text("w")
    (run.figures / "figure.txt").write_text("f")
    assert run.finish({}).is_file()


def test_a_record_holds_plain_values_and_every_digit(tmp_path):
    third = 1 / 3
    path = begin(tmp_path).finish(
        {
            "third": third,
            "nan": float("nan"),
            "numpy": np.float32(0.5),
            "count": np.int64(4),
            "torch": torch.tensor([1.0, float("inf")]),
            "table": [{"ok": np.bool_(True)}],
            "by size": MappingProxyType({np.int64(3): 1, None: 2}),
        }
    )
    record = json.loads(path.read_text())
    assert path == tmp_path / "run" / "records" / "02_depth.json"
    assert record["results"] == {
        "third": third,
        "nan": None,
        "numpy": 0.5,
        "count": 4,
        "torch": [1.0, None],
        "table": [{"ok": True}],
        "by size": {"3": 1, "None": 2},
    }
    assert record["parameters"] == {"profile": "smoke", "dataset": "scenes", "seed": 3}
    assert record["environment"]["peak_memory_mb"] > 50
    assert [file.name for file in path.parent.iterdir()] == ["02_depth.json"]


def test_what_json_cannot_hold_is_refused_and_leaves_no_file(tmp_path):
    run = begin(tmp_path)
    with pytest.raises(TypeError, match=r"run\.note"):
        run.finish({"where": Path("here")})
    assert not (run.dir / "records").exists()


def test_equal_runs_differ_under_environment_only(tmp_path, folder_dataset):
    def record(name, seed):
        run = begin(tmp_path, dataset=f"folder:{folder_dataset}", seed=seed, run_dir=str(tmp_path / name))
        run.artefact("weights.bin").write_bytes(b"w")
        run.artefact("never made.bin")
        run.note(weights=tmp_path / name)
        return json.loads(run.finish({"value": float(torch.rand(()))}).read_text())

    one, two, other = record("one", 1), record("two", 1), record("other", 2)
    assert one["environment"]["run_dir"] != two["environment"]["run_dir"]
    assert one["environment"]["artefacts"] == ["weights.bin"]
    assert one["environment"]["dataset"] == f"folder:{folder_dataset}"
    assert one["parameters"]["dataset"] == "folder"
    results = [{key: part for key, part in each.items() if key != "environment"} for each in (one, two, other)]
    assert results[0] == results[1] != results[2]
    assert str(tmp_path) not in json.dumps(results)


@pytest.fixture
def folder_dataset(tmp_path):
    import cv2

    for part in ("images", "masks"):
        (tmp_path / "own" / part).mkdir(parents=True)
        for number in range(3):
            cv2.imwrite(str(tmp_path / "own" / part / f"{number}.png"), np.full((8, 8, 3), 255, np.uint8))
    return tmp_path / "own"


def test_profiles_grow():
    smoke, quick, full = (runs.PROFILES[name]() for name in ("smoke", "quick", "full"))
    assert [each.name for each in (smoke, quick, full)] == ["smoke", "quick", "full"]
    assert smoke.train_scenes < quick.train_scenes < full.train_scenes
    with pytest.raises(AttributeError):
        quick.size_px = 1


def test_auto_is_a_device_that_computes():
    device = devices.resolve("auto")
    assert (torch.ones(2, device=device) + 1).sum().item() == 4
    assert devices.resolve("cpu") == torch.device("cpu")
