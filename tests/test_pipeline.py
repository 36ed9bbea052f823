"""The five notebooks through papermill, as a user runs them: records, repeatability, weights that detect.

The runs happen once, in a module's fixture; each is a process of its own.
"""

import json
import math
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from lesionkit import Detector, fusion, runs
from lesionkit.scenes import SceneConfig, render_scenes

pytestmark = pytest.mark.pipeline

ROOT = Path(__file__).resolve().parent.parent
TWICE = runs.NOTEBOOKS
OTHER_SEED = ("01_data", "02_depth")  # a whole chain a third time adds little


def lesionkit(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", "from lesionkit.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=900)


def git_status() -> str | None:
    """What git would list as changed, or None outside a checkout (an archive)."""
    done = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else None


def run(folder: Path, *arguments: str) -> Path:
    """`lesionkit run` in the smoke profile, from a working directory that is not the repository."""
    done = lesionkit("run", "--profile", "smoke", "--device", "cpu", "--out", folder, *arguments, cwd=folder.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def record(folder: Path, name: str) -> dict:
    return json.loads((folder / "records" / f"{name}.json").read_text())


def without_environment(content: dict) -> dict:
    return {key: part for key, part in content.items() if key != "environment"}


def numbers(content: object) -> list[float]:
    """Every number of a record's results."""
    if isinstance(content, dict):
        content = list(content.values())
    if isinstance(content, list):
        return [number for item in content for number in numbers(item)]
    return [content] if isinstance(content, (int, float)) and not isinstance(content, bool) else []


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("pipeline")


@pytest.fixture(scope="module")
def status_before() -> str | None:
    return git_status()


@pytest.fixture(scope="module")
def first(work, status_before) -> Path:
    if not all((ROOT / "notebooks" / f"{name}.ipynb").exists() for name in runs.NOTEBOOKS):
        pytest.skip("not all five notebooks exist yet")
    return run(work / "first")


@pytest.fixture(scope="module")
def again(work, first) -> Path:
    return run(work / "again")


@pytest.fixture(scope="module")
def other(work, first) -> Path:
    return run(work / "other", "--only", ",".join(OTHER_SEED), "--seed", "1")


@pytest.mark.parametrize("name", runs.NOTEBOOKS)
def test_every_notebook_leaves_a_record(first, name):
    content = record(first, name)
    assert set(content) == {"notebook", "parameters", "results", "environment"}
    assert content["notebook"] == name
    assert {**content["parameters"], "profile": "smoke", "dataset": "scenes", "seed": 0} == content["parameters"]
    found = numbers(content["results"])
    assert found
    assert all(math.isfinite(number) for number in found)
    assert content["environment"]["device"] == "cpu"


@pytest.mark.parametrize("name", runs.NOTEBOOKS)
def test_every_notebook_leaves_an_executed_copy_and_pictures(first, name):
    text = (first / "notebooks" / f"{name}.ipynb").read_text()
    assert '"image/png"' in text or '"image/jpeg"' in text
    assert '"output_type": "error"' not in text


def test_figures_stand_beside_their_data(first):
    pictures = {path.stem for path in (first / "figures").glob("*.png")}
    assert len(pictures) >= 3
    tables = {path.stem for path in (first / "figures").glob("*.csv")}
    assert tables
    assert tables <= pictures


def test_nothing_private_is_in_the_records(first):
    """Times, paths and versions stand under `environment` alone."""
    for name in runs.NOTEBOOKS:
        assert str(first.parent) not in json.dumps(without_environment(record(first, name)))


@pytest.mark.parametrize("name", TWICE)
def test_the_same_seed_gives_the_same_record(first, again, name):
    assert without_environment(record(again, name)) == without_environment(record(first, name))


@pytest.mark.parametrize("name", OTHER_SEED)
def test_another_seed_gives_another_record(first, other, name):
    assert record(other, name)["results"] != record(first, name)["results"]


def test_the_weights_of_the_run_detect(first, work):
    weights = first / "artefacts" / "reference.safetensors"
    assert Detector.from_pretrained(weights, device="cpu").config.size_px == runs.smoke().size_px
    picture = fusion.to_array(render_scenes(1, 96, 5, "cpu", SceneConfig.basic()).image[0])
    cv2.imwrite(str(work / "scene.png"), picture[..., ::-1])
    done = lesionkit("detect", "scene.png", "--weights", weights, "--out", "found", "--device", "cpu", cwd=work)
    assert done.returncode == 0, done.stdout + done.stderr
    (entry,) = json.loads((work / "found" / "detections.json").read_text())
    assert (entry["width"], entry["height"]) == (96, 96)
    mask = cv2.imread(str(work / "found" / "scene_mask.png"), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (96, 96)
    assert int((mask > 0).sum()) == sum(one["area_px"] for one in entry["lesions"])


def test_the_checkout_is_left_as_it_was(first, again, other, status_before):
    if status_before is None:
        pytest.skip("not a git checkout")
    assert git_status() == status_before
