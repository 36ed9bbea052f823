"""What stands around the package: the lock, the conda route, the README's commands, CI, the order of imports.

These are the promises that break silently: a pin that no longer fits, a second OpenCV, an import that closes a circle.
"""

import ast
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml  # comes with papermill
from packaging.requirements import Requirement  # comes with pytest
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = ["pip install -r requirements.txt && lesionkit run", "pip install -r requirements.txt && pytest"]
FIRST_SCREEN = 60  # lines of the README
PYTHON = "3.11"
NUMBER = re.compile(r"\d+")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads(read("pyproject.toml"))["project"]


@pytest.fixture(scope="module")
def direct(project) -> list[Requirement]:
    """The direct dependencies of the core, [test] and [app]."""
    extras = project["optional-dependencies"]
    return [Requirement(line) for line in (*project["dependencies"], *extras["test"], *extras["app"])]


@pytest.fixture(scope="module")
def lock() -> list[str]:
    """The lines of requirements.txt that are no comments."""
    return [line for line in read("requirements.txt").splitlines() if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def pins(lock) -> dict[str, Version]:
    found = dict(line.split("==") for line in lock if "==" in line)
    return {canonicalize_name(name): Version(number) for name, number in found.items()}


# --- the lock ------------------------------------------------------------------------------------------


def test_lock_holds_pins_and_the_package_itself_last(lock):
    # no index, hash, marker, path or suffix: the file must mean the same with any registry
    wrong = [line for line in lock[:-1] if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*==[0-9][0-9a-z.]*", line)]
    assert wrong == []
    assert lock[-1] == "-e ."


def test_lock_pins_every_direct_dependency_within_its_range(direct, pins):
    outside = {
        str(wanted): str(pins.get(canonicalize_name(wanted.name)))
        for wanted in direct
        if canonicalize_name(wanted.name) not in pins
        or not wanted.specifier.contains(pins[canonicalize_name(wanted.name)])
    }
    assert outside == {}


def test_lock_has_torch_without_suffix_and_one_opencv(lock, pins):
    assert "torch==2.13.0" in lock
    assert "opencv-python" in pins
    assert not [name for name in pins if name.startswith("opencv-") and name != "opencv-python"]


def test_lock_leaves_the_gpu_libraries_to_torch(pins):
    # a CPU machine would download gigabytes; with a CUDA build pip takes what torch itself pins
    assert not [name for name in pins if name.startswith(("nvidia-", "cuda-", "triton"))]


@pytest.mark.skipif(
    not (sys.platform == "linux" and platform.machine() == "x86_64" and sys.version_info[:2] == (3, 11)),
    reason="the lock is for Linux on x86-64 with Python 3.11",
)
def test_lock_is_complete(direct, pins):
    """Everything that the direct dependencies draw in, as the installed packages tell, is pinned."""
    drawn = _closure(direct)
    assert len(drawn) > 100  # the walk went somewhere
    of_torch = ("nvidia-", "cuda-", "triton")
    missing = {name for name in drawn - pins.keys() if not name.startswith(of_torch)}
    assert missing == set()


def _closure(direct: list[Requirement]) -> set[str]:
    """Names of all installed packages that the requirements need, extras of requirements included."""
    seen: set[tuple[str, str]] = set()
    todo = [(wanted, extra) for wanted in direct for extra in ("", *wanted.extras)]
    while todo:
        wanted, extra = todo.pop()
        key = (canonicalize_name(wanted.name), extra)
        if key in seen:
            continue
        seen.add(key)
        for line in importlib.metadata.requires(wanted.name) or ():
            inner = Requirement(line)
            if inner.marker is None or inner.marker.evaluate({"extra": extra}):
                todo += [(inner, name) for name in ("", *inner.extras)]
    return {name for name, _ in seen}


# --- the conda route, CI, the README, the citation -------------------------------------------------------


def test_environment_yml_takes_the_same_lock_and_python(project):
    environment = yaml.safe_load(read("environment.yml"))
    assert environment == {
        "name": "lesionkit",
        "channels": ["conda-forge"],
        "dependencies": [f"python={PYTHON}", "pip", {"pip": ["-r requirements.txt"]}],
    }
    supported = SpecifierSet(project["requires-python"])
    assert f"{PYTHON}.0" in supported
    assert "3.10.99" not in supported  # the lock's Python is the oldest one that pyproject.toml allows


def test_every_python_that_is_claimed_is_tested(project):
    claimed = {line.rpartition(" ")[2] for line in project["classifiers"] if line.startswith("Programming Language")}
    jobs = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"]
    assert claimed == {PYTHON, *jobs["newer"]["strategy"]["matrix"]["python-version"]}
    supported = SpecifierSet(project["requires-python"])
    assert {f"3.{minor}" for minor in range(30) if f"3.{minor}.0" in supported} == claimed


def test_readme_has_exactly_the_two_commands_on_its_first_screen():
    lines = [line.strip() for line in read("README.md").splitlines()]
    assert [line for line in lines if line.startswith("pip install")] == COMMANDS
    assert [line for line in lines[:FIRST_SCREEN] if line in COMMANDS] == COMMANDS


def test_citation_agrees_with_the_project(project):
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["cff-version"] == "1.2.0"
    assert [citation[key] for key in ("title", "version")] == [project[key] for key in ("name", "version")]
    # the citation is of the code; the package holds weights under terms of their own as well
    assert [citation["license"], "LicenseRef-lesionkit-weights"] == project["license"].split(" AND ")


# --- the package -----------------------------------------------------------------------------------------


PACKAGE = ROOT / "lesionkit"


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name below it; a package's own is its `__init__`."""
    files = sorted(PACKAGE.rglob("*.py"))
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """Names of the modules that a module imports, those within functions included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lesionkit":
            base = node.module.removeprefix("lesionkit").lstrip(".")
            # `from lesionkit import scenes` names a module, `from lesionkit.depth import DepthNet` an attribute
            below = {f"{base}.{alias.name}".lstrip(".") for alias in node.names}
            found |= {name if name in known else base for name in below}
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("lesionkit.") for alias in node.names}
    return found & known.keys()


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    """Module → the modules it imports."""
    known = modules()
    return {name: imports(path, known) for name, path in known.items()}


def test_imports_are_found(graph):
    # else the tests below would pass on an empty graph
    assert {"depth", "preprocess", "segmentation", "fusion"} <= graph["detector"]
    assert "runs.chain" in graph["cli"]  # imported within a function
    assert "scenes.march" in graph["scenes.light"]


def test_imports_go_one_way(graph):
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as circle:
        pytest.fail(f"modules import each other in a circle: {' ← '.join(circle.args[1])}")
    assert order.index("scenes.render") < order.index("frames") < order.index("cli")


ABOVE = ("runs", "detect", "explore")  # packages that stand on the ground floor
NETWORKS = ("encoders", "depth", "segmentation", "detector", "fitting", "training", "depth_anything")


def needed(names: Iterable[str], graph: dict[str, set[str]]) -> set[str]:
    """All that modules need, by whatever way."""
    seen, todo = set(), list(names)
    while todo:
        new = graph[todo.pop()] - seen
        seen |= new
        todo += new
    return seen


def test_the_ground_floor_needs_nothing_that_stands_on_it(graph):
    ground = [name for name, path in modules().items() if path.parent == PACKAGE and name not in ("__init__", "cli")]
    assert [name for name in needed(ground, graph) if name.split(".")[0] in (*ABOVE, "cli")] == []


@pytest.mark.parametrize("package", ["scenes", "datasets"])
def test_scenes_and_data_sets_know_no_network(graph, package):
    members = [name for name in graph if name.split(".")[0] == package]
    assert len(members) > 4
    assert needed(members, graph) & {*NETWORKS} == set()


def test_nothing_imports_the_command_line(graph):
    assert [name for name, needs in graph.items() if "cli" in needs] == []


# --- pages -----------------------------------------------------------------------------------------------

PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("lesionkit/**/*.md"), *ROOT.glob("recipes/**/*.md")]
STEP = re.compile(r'<a id="(step-\d+)">')


def anchors(text: str) -> set[str]:
    """What may stand behind # in a link to a page: its own anchors, and its headings as the web hosts call them."""
    headings = re.findall(r"^#+ +(.+)$", text, re.MULTILINE)
    return {*STEP.findall(text), *(re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings)}


def prose() -> Iterable[tuple[Path, str]]:
    """Every page and every notebook's text."""
    yield from ((path, path.read_text(encoding="utf-8")) for path in PAGES)
    for path in ROOT.glob("notebooks/*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        yield path, "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def test_links_between_pages_lead_somewhere():
    broken = []
    for path, text in prose():
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            place, _, anchor = link.partition("#")
            target = (path.parent / place).resolve() if place else path
            if "://" in link or link.startswith("mailto:"):
                continue
            if not target.exists() or (
                anchor and target.suffix == ".md" and anchor not in anchors(target.read_text(encoding="utf-8"))
            ):
                broken.append(f"{path.relative_to(ROOT)}: {link}")
    assert broken == []


def test_every_step_that_a_docstring_names_stands_in_the_method():
    known = set(STEP.findall(read("docs/method.md")))
    named = re.compile(r"[Ss]teps? (\[\d[^\]]*\])")
    steps = {
        n for path in PACKAGE.rglob("*.py") for found in named.findall(path.read_text()) for n in NUMBER.findall(found)
    }
    assert len(steps) > 10
    assert {f"step-{n}" for n in steps} <= known


# --- the wheel -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A folder into which the wheel was unpacked."""
    work = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", work]
    source = work / "source"  # a copy: building leaves folders behind
    shutil.copytree(PACKAGE, source / "lesionkit", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    done = subprocess.run([*build, source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = work.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(work / "unpacked")
    return work / "unpacked"


def test_the_wheel_detects_where_there_is_no_repository(wheel, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((96, 96, 3), (90, 110, 180), np.uint8))
    program = "import lesionkit.cli; print(lesionkit.__file__); lesionkit.cli.main()"
    command = [sys.executable, "-c", program, "detect", "a.png", "--out", "found", "--device", "cpu"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(wheel)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(wheel))  # not the checkout's
    assert (tmp_path / "found" / "a_mask.png").is_file()


def test_the_wheel_says_both_licences_and_holds_all_that_is_read_at_run_time(wheel):
    (metadata,) = wheel.glob("*.dist-info")
    text = (metadata / "METADATA").read_text(encoding="utf-8")
    assert "License-Expression: Apache-2.0 AND LicenseRef-lesionkit-weights" in text
    assert {path.name for path in metadata.rglob("LICENSE*")} == {"LICENSE", "LICENSE-WEIGHTS"}
    here = [path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert [path for path in here if not (wheel / path.relative_to(ROOT)).is_file()] == []


# --- what is committed -------------------------------------------------------------------------------------

# written apart, so that this file does not find itself
MACHINE_PATHS = [f"/{folder}/".encode() for folder in ("root", "work")]


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("this is not a git checkout")
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


def test_no_committed_file_shows_a_path_of_a_machine(tracked):
    # a path begins where no word, dot or slash stands before it: an address may well end in such a folder
    pattern = re.compile(rb"(?<![\w./+-])(" + b"|".join(MACHINE_PATHS) + rb")")
    shown = {path.relative_to(ROOT): pattern.search(path.read_bytes()) for path in tracked}
    assert {str(path): match[0].decode() for path, match in shown.items() if match} == {}


def test_every_figure_stands_beside_its_data():
    pictures = [path for path in (ROOT / "figures").glob("*.png") if not path.name.startswith("explorer_")]
    assert [path.name for path in pictures if not path.with_suffix(".csv").is_file()] == []


def test_a_star_import_brings_the_detector_and_nothing_else():
    names: dict = {}
    exec("from lesionkit import *", names)
    assert set(names) - {"__builtins__"} == {"Detector", "Detection", "__version__"}
