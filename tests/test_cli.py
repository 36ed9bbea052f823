"""The command line: exit codes, errors, and what reaches the rooms behind it."""

import json
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

import lesionkit.runs  # noqa: F401 - imported before the detector's stand-in below takes the real one's place
from lesionkit import cli, datasets, devices
from lesionkit.fusion import Detection


class WeightsError(ValueError):
    pass


class FakeFound(Detection):
    def __init__(self, image, threshold):
        green = image[..., 1].astype(np.float32) / 255
        super().__init__(image, probability=green, depth=1 + green, attention=(green,) * 5, threshold=threshold)

    lesions = ()


class FakeDetector:
    made = ()

    def __init__(self):
        self.threshold = 0.5

    @classmethod
    def from_pretrained(cls, name="reference", device="auto"):
        devices.resolve(device)
        if name != "reference" and not Path(name).is_file():  # a name too long is an OSError
            raise WeightsError(f"there is no weight file {name}")
        if name != "reference":
            raise WeightsError(f"{name} does not fit:\nit has no header")
        FakeDetector.made += ((name, device),)
        return cls()

    def fuse(self):
        return self

    def __call__(self, image):
        return FakeFound(image, self.threshold)


@pytest.fixture(autouse=True)
def _fake_detector(monkeypatch):
    module = types.ModuleType("lesionkit.detector")
    module.Detector, module.WeightsError = FakeDetector, WeightsError
    monkeypatch.setitem(sys.modules, "lesionkit.detector", module)
    monkeypatch.setattr(FakeDetector, "made", ())


@pytest.fixture(autouse=True)
def _own_signals():
    """`detect` says what a signal does, to the end of its process; here it is pytest's."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGINT") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "in" / "a.png"
    path.parent.mkdir()
    cv2.imwrite(str(path), np.full((6, 8, 3), 200, np.uint8))
    return path


def call(*arguments):
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


def one_line_error(result, code, *words):
    assert result.exit_code == code, result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("Error: ")
    for word in words:
        assert word in lines[0]


def test_help_and_version_do_not_load_torch():
    code = (
        "import sys; from click.testing import CliRunner; from lesionkit import cli\n"
        "for flag in ('--help', '--version'):\n"
        "    result = CliRunner().invoke(cli.main, [flag], catch_exceptions=False)\n"
        "    print(result.output)\n"
        "assert not {'torch', 'kornia', 'cv2', 'papermill'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "lesionkit, version" in done.stdout
    for command in ("run", "detect", "datasets", "fetch", "verify"):
        assert f"\n  {command} " in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "--seed", "-1"), ("whole number from 0",)),
        (("run", "--profile", "fast"), ("smoke, quick, full",)),
        (("run", "--dataset", "kvasir"), ("kvasir-seg",)),
        (("run", "--device", "tpu"), ("auto, cpu",)),
        (("run", "--only", "9"), ("01_data",)),
        (("run", "--update-notebooks", "--seed", "2"), ("--seed",)),
        (("detect", "x.png", "--out", "o" * 300), ("File name too long", "ooo")),
        (("detect", "x.png", "--out", "o", "--weights", "w" * 300), ("File name too long", "www")),
        (("fetch", "imagenet"), ("kvasir-seg",)),
        (("verify", "imagenet"), ("kvasir-seg",)),
    ],
)
def test_a_wrong_value_is_one_line_and_exit_2(arguments, words):
    one_line_error(call(*arguments), 2, *words)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("detect", "x.png"), "--out"),
        (("detect", "--out", "o"), "INPUT"),
        (("detect", "x.png", "--out", "o", "--every", "0"), "--every"),
        (("detect", "x.png", "--out", "o", "--threshold", "high"), "--threshold"),
        (("run", "--sead", "1"), "--seed"),
        (("run", "--seed", "one"), "'one'"),
        (("fly",), "fly"),
        (("--fly",), "--fly"),
    ],
)
def test_wrong_usage_is_told_in_clicks_own_words_and_exit_2(arguments, word):
    result = call(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("Usage: ")
    assert word in result.stderr.splitlines()[-1]


# --- run --------------------------------------------------------------------------------------------------


def test_run_passes_its_options_on(tmp_path, monkeypatch):
    from lesionkit.runs import chain

    seen = []
    monkeypatch.setattr(chain, "execute", lambda plan: seen.append(plan) or tmp_path)
    result = call("run", "--profile", "smoke", "--seed", 7, "--only", "02,03", "--out", tmp_path, "--resume")
    assert result.exit_code == 0
    (plan,) = seen
    assert plan.names == ("02_depth", "03_segmentation")
    assert plan.parameters == {
        "profile": "smoke",
        "dataset": "scenes",
        "seed": 7,
        "device": "auto",
        "run_dir": str(tmp_path),
    }
    assert plan.resume
    assert not plan.update_notebooks
    assert str(tmp_path) in result.stdout


def test_a_failing_notebook_shows_its_traceback_and_exits_1(monkeypatch):
    from lesionkit.runs import chain

    def failing(plan):
        raise chain.NotebookFailed("02_depth failed in cell [3]\nTraceback\nKeyError: 'x'")

    monkeypatch.setattr(chain, "execute", failing)
    result = call("run")
    assert result.exit_code == 1
    assert result.stderr == "Error: 02_depth failed in cell [3]\nTraceback\nKeyError: 'x'\n"


# --- detect -----------------------------------------------------------------------------------------------


def test_detect_writes_and_sums_up(tmp_path, image):
    result = call("detect", image.parent, "--out", tmp_path / "out", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("1 images, 0 lesions, 0 failed")
    assert FakeDetector.made == (("reference", "cpu"),)
    assert cv2.imread(str(tmp_path / "out" / "a_mask.png"), cv2.IMREAD_UNCHANGED).tolist() == [[255] * 8] * 6


def test_the_threshold_reaches_the_detector(tmp_path, image):
    call("detect", image, "--out", tmp_path / "out", "--threshold", "0.9")  # the image is 200 / 255 = 0.78
    assert cv2.imread(str(tmp_path / "out" / "a_mask.png"), cv2.IMREAD_UNCHANGED).max() == 0


def test_a_missing_input_is_exit_1_and_the_rest_is_finished(tmp_path, image):
    result = call("detect", tmp_path / "no.png", image, "--out", tmp_path / "out")
    one_line_error(result, 1, "no.png", "does not exist")
    entries = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert ["error" in entry for entry in entries] == [True, False]
    assert (tmp_path / "out" / "a_mask.png").is_file()


def test_a_taken_name_is_told(tmp_path, image):
    other = tmp_path / "more" / "a.png"
    other.parent.mkdir()
    other.write_bytes(image.read_bytes())
    result = call("detect", image, other, "--out", tmp_path / "out")
    assert result.exit_code == 0
    assert f"{other} is written as a_more" in result.stderr
    assert (tmp_path / "out" / "a_more_mask.png").is_file()


def test_results_of_other_inputs_are_refused_and_resume_adds(tmp_path, image):
    other = tmp_path / "more" / "a.png"
    other.parent.mkdir()
    other.write_bytes(image.read_bytes())
    out = ("--out", tmp_path / "out")
    assert call("detect", image, *out).exit_code == 0
    one_line_error(call("detect", other, *out), 2, "holds results of other inputs", str(image), "--resume")
    result = call("detect", image, other, *out, "--resume")
    assert result.exit_code == 0
    assert result.stdout.startswith("1 images, 0 lesions, 0 failed, 1 finished before")
    assert (tmp_path / "out" / "a_more_mask.png").is_file()


def test_files_that_are_passed_over_are_told(tmp_path, image):
    (image.parent / "notes.txt").write_text("no image")
    assert "passed over, 1 .txt" in call("detect", image.parent, "--out", tmp_path / "out").stderr


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_leaves_what_is_finished(tmp_path, image, monkeypatch, name):
    number = getattr(signal, name, None)
    if number is None:
        pytest.skip(f"this system has no {name}")
    for other in ("b.png", "c.png"):
        (image.parent / other).write_bytes(image.read_bytes())
    detect, calls = FakeDetector.__call__, []

    def ended(self, pixels):
        calls.append(pixels)
        if len(calls) == 3:
            os.kill(os.getpid(), number)
        return detect(self, pixels)

    monkeypatch.setattr(FakeDetector, "__call__", ended)
    # as in a terminal: whoever runs the tests in the background has them ignored
    signal.signal(number, signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL)
    result = call("detect", image.parent, "--out", tmp_path / "out")
    assert result.exit_code == 130
    assert "interrupted; 2 finished entries" in result.stderr
    assert len(json.loads((tmp_path / "out" / "detections.json").read_text())) == 2


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_a_signal_that_nohup_has_ignored_stays_ignored(tmp_path, image, monkeypatch):
    detect = FakeDetector.__call__
    monkeypatch.setattr(FakeDetector, "__call__", lambda *each: os.kill(os.getpid(), signal.SIGHUP) or detect(*each))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert call("detect", image, "--out", tmp_path / "out").exit_code == 0


@pytest.mark.parametrize("name", ["画像", os.fsdecode(b"f\xe4")])
def test_a_name_that_the_output_cannot_show_costs_nothing(tmp_path, image, name):
    """What Windows does when stdout goes into a file, and any system with a name that is no UTF-8."""
    out = tmp_path / name
    try:
        out.mkdir()
    except OSError:
        pytest.skip("this file system does not take such a name")
    result = CliRunner(charset="cp1252").invoke(cli.main, ["detect", str(image), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert result.stdout_bytes.decode("cp1252").startswith("1 images, 0 lesions, 0 failed: ")
    assert (out / "a_mask.png").is_file()


@pytest.mark.parametrize("threshold", ["0", "1", "-0.5", "1.5", "nan"])
def test_a_threshold_outside_0_and_1_is_exit_2(tmp_path, image, threshold):
    one_line_error(call("detect", image, "--out", tmp_path / "out", "--threshold", threshold), 2, "threshold")
    assert not (tmp_path / "out").exists()


def test_weights_and_devices_that_do_not_fit_are_exit_2(tmp_path, image):
    (tmp_path / "other.safetensors").write_bytes(b"x")
    out = ("--out", tmp_path / "out")
    one_line_error(call("detect", image, *out, "--weights", tmp_path / "other.safetensors"), 2, "does not fit: it")
    one_line_error(call("detect", image, *out, "--weights", tmp_path / "no.safetensors"), 2, "no weight file")
    one_line_error(call("detect", image, *out, "--device", "tpu"), 2, "auto, cpu")
    assert not (tmp_path / "out").exists()


def test_out_that_is_a_file_is_exit_2(tmp_path, image):
    one_line_error(call("detect", image, "--out", image), 2, "cannot be written to (File exists)")
    one_line_error(call("detect", image, "--out", image / "below"), 2, "cannot be written to (Not a directory)")
    assert cv2.imread(str(image)).mean() == 200


def test_out_that_cannot_be_written_to_is_exit_2_before_the_first_image(tmp_path, image, monkeypatch):
    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("filelock.FileLock", refused)  # root may write anywhere
    one_line_error(call("detect", image, "--out", tmp_path / "out"), 2, "cannot be written to (Permission denied)")


def test_an_interruption_is_exit_130(tmp_path, image, monkeypatch):
    def interrupted(self, array):
        raise KeyboardInterrupt

    monkeypatch.setattr(FakeDetector, "__call__", interrupted)
    result = call("detect", image, "--out", tmp_path / "out")
    assert result.exit_code == 130
    assert "interrupted; 0 finished" in result.stderr
    assert json.loads((tmp_path / "out" / "detections.json").read_text()) == []


# --- data sets --------------------------------------------------------------------------------------------


def test_datasets_says_what_is_here(tmp_path, monkeypatch):
    monkeypatch.setenv("LESIONKIT_DATA", str(tmp_path))
    for part in ("images", "masks"):
        (tmp_path / "kvasir-seg" / part).mkdir(parents=True)
    lines = {line.split()[0]: line for line in call("datasets").stdout.splitlines()}
    assert set(lines) == {*datasets.NAMES, "polypgen-negative", *datasets.DEPTH_NAMES}
    assert all("images, masks " in lines[name] for name in datasets.NAMES)
    assert all("depth, no masks" in lines[name] for name in datasets.DEPTH_NAMES)
    assert str(tmp_path / "kvasir-seg") in lines["kvasir-seg"]
    assert "not here" in lines["cvc-clinicdb"]


def test_datasets_of_a_user_without_a_home_are_one_line(monkeypatch):
    def homeless(*_, **__):
        raise RuntimeError("could not determine the home directory")

    monkeypatch.delenv("LESIONKIT_DATA", raising=False)
    monkeypatch.setattr("platformdirs.user_cache_path", homeless)
    for command in (["datasets"], ["verify", "kvasir-seg"], ["fetch", "kvasir-seg"]):
        one_line_error(call(*command), 1, "set HOME to one")


def test_verify_tells_missing_data_problems_and_notes(tmp_path, monkeypatch):
    monkeypatch.setenv("LESIONKIT_DATA", str(tmp_path))
    one_line_error(call("verify", "kvasir-seg"), 1, "lesionkit fetch kvasir-seg")
    report = datasets.Report(ok=False, problems=("a is bad", "b is bad"), notes=(), images=3)
    monkeypatch.setattr(datasets, "verify", lambda name: report)
    result = call("verify", "kvasir-seg")
    assert result.exit_code == 1
    assert result.stderr == "Error: a is bad\nError: b is bad\n"
    report = datasets.Report(ok=True, problems=(), notes=("re-encoded copy",), images=3)
    result = call("verify", "kvasir-seg")
    assert result.exit_code == 0
    assert result.stdout == "note: re-encoded copy\nkvasir-seg: 3 images, sound\n"


def test_fetch_says_where_the_data_are_or_why_not(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "fetch", lambda name, url=None: tmp_path / name)
    assert call("fetch", "kvasir-seg").stdout == f"kvasir-seg is in {tmp_path / 'kvasir-seg'}\n"

    def offline(name, url=None):
        raise datasets.MissingData("the address\ncannot be reached")

    monkeypatch.setattr(datasets, "fetch", offline)
    one_line_error(call("fetch", "kvasir-seg"), 1, "the address cannot be reached")


@pytest.mark.parametrize("command", ["fetch", "verify"])
def test_a_mistyped_data_set_names_those_with_masks_and_those_with_depth(command):
    result = CliRunner().invoke(cli.main, [command, "simcol"])
    assert result.exit_code == 2
    assert "simcol" in result.output.split(":")[1]
    assert "kvasir-seg" in result.output
    assert "simcol3d" in result.output
