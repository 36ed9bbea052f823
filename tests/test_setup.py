"""What stands around the package: the lock, the conda route, the README's commands, CI, the order of imports.

These are the promises that break silently: a pin that no longer fits, a second OpenCV, an import that closes a circle.
"""

import ast
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

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


def test_lock_names_the_command_that_makes_it():
    comments = [line for line in read("requirements.txt").splitlines() if line.startswith("#")]
    assert "#     .ci/lock" in comments
    assert os.access(ROOT / ".ci" / "lock", os.X_OK)
    assert not [line for line in comments if "://" in line]


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


def test_every_dependency_has_a_reason(direct):
    lines = re.findall(r'^ {4}"([^"]+)", *# (\w.{7,})$', read("pyproject.toml"), re.MULTILINE)
    explained = [Requirement(line) for line, _ in lines]
    assert [str(wanted) for wanted in direct if wanted not in explained] == []


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


def test_workflow_calls_the_ci_script_with_the_same_python():
    workflow = yaml.safe_load(read(".github/workflows/ci.yml"))
    assert workflow[True].keys() == {"push", "pull_request"}  # YAML 1.1 reads the key `on` as true
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    pythons = [step["with"]["python-version"] for step in job["steps"] if "setup-python" in step.get("uses", "")]
    assert pythons == [PYTHON]


def test_ci_script_runs_the_readmes_test_command():
    script = read(".ci/run")
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    # in two halves there, so that each is timed
    install, run = COMMANDS[1].split(" && ")
    program, rest = install.split(" ", 1)
    assert re.search(rf"^{program} {rest.split()[0]} .*-r requirements\.txt", script, re.MULTILINE)
    assert re.search(rf"^{run} ", script, re.MULTILINE)
    assert "for candidate in python" + PYTHON in script


def test_readme_has_exactly_the_two_commands_on_its_first_screen():
    lines = [line.strip() for line in read("README.md").splitlines()]
    assert [line for line in lines if line.startswith("pip install")] == COMMANDS
    assert [line for line in lines[:FIRST_SCREEN] if line in COMMANDS] == COMMANDS


def test_citation_agrees_with_the_project(project):
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["cff-version"] == "1.2.0"
    assert [citation[key] for key in ("title", "version", "license")] == [
        project[key] for key in ("name", "version", "license")
    ]


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
