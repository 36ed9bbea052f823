"""Whose the results in a folder are, that other calls leave them alone, and what stands there after an interruption."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_detect import ENDINGS, Found, half_red, interrupted_at, stems, video

from lesionkit import files
from lesionkit.detect import Job, UsageError, find_inputs
from lesionkit.detect.outputs import RESULTS
from lesionkit.detect.results import Results


def detect(out: Path, *arguments, resume=False, detector=Found, every=25) -> list[dict]:
    found = find_inputs([str(argument) for argument in arguments], out, resume)
    return Job(detector, out, lambda text: None, resume).run(found, every)


def entries(out: Path) -> list[dict]:
    return json.loads((out / RESULTS).read_text(encoding="utf-8"))


def inputs(out: Path) -> list[str]:
    return [entry["input"] for entry in entries(out)]


def pictures(out: Path) -> list[str]:
    return sorted(path.name.removesuffix(ENDINGS[0]) for path in out.glob(f"*{ENDINGS[0]}"))


def whole_folder(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.fixture
def patients(tmp_path) -> Path:
    """Two patients whose files have the same names; the working folder is theirs."""
    for name in ("p1/a.png", "p1/b.png", "p2/a.png"):
        half_red(tmp_path / name)
    return tmp_path


# --- ours -------------------------------------------------------------------------------------------------


def test_results_of_other_inputs_are_left_alone(patients):
    out = patients / "out"
    detect(out, patients / "p1")
    before = whole_folder(out)
    for others in ([patients / "p2"], [half_red(patients / "c.png")], [patients / "p1" / "a.png"]):
        with pytest.raises(UsageError, match=r"holds results of other inputs .*give another --out, or add .* --resume"):
            detect(out, *others)
    assert whole_folder(out) == before


def test_the_same_names_in_another_working_folder_are_other_inputs(patients, monkeypatch):
    monkeypatch.chdir(patients / "p1")
    detect(Path("..", "out"), "a.png")
    monkeypatch.chdir(patients / "p2")
    with pytest.raises(UsageError, match="other inputs"):
        detect(Path("..", "out"), "a.png")
    monkeypatch.chdir(patients)
    detect(Path("out"), Path("p1", "a.png"))  # the same file by another name
    assert inputs(patients / "out") == ["p1/a.png"]


def test_the_same_inputs_again_replace_their_results(patients):
    out = patients / "out"
    detect(out, patients / "p1")
    half_red(patients / "p1" / "c.png")  # and what was added to the folder is added
    again = detect(out, patients / "p1")
    assert entries(out) == again
    assert pictures(out) == ["a", "b", "c"]


def test_nothing_of_an_earlier_call_stays_that_this_one_did_not_make(tmp_path):
    clip, out = video(tmp_path / "clip.avi", 12), tmp_path / "out"
    detect(out, clip, every=4)
    detect(out, clip, every=8)
    assert pictures(out) == ["clip_000000", "clip_000008"]
    clip.write_bytes(b"no video")
    detect(out, clip)
    assert ["error" in entry for entry in entries(out)] == [True]
    assert os.listdir(out) == [RESULTS]


def test_results_of_an_input_that_is_gone_are_kept(patients):
    out, a = patients / "out", patients / "p2" / "a.png"
    detect(out, a)
    a.unlink()
    assert "does not exist" in detect(out, a)[0]["error"]
    assert pictures(out) == ["a"]
    assert len(entries(out)) == 2


def test_a_corrected_input_is_not_another_one(patients):
    out = patients / "out"
    detect(out, patients / "p1" / "mistyped.png")
    detect(out, patients / "p1" / "a.png")
    assert inputs(out) == [str(patients / "p1" / "a.png")]


def test_the_users_masks_beside_our_results_are_inputs(patients):
    """Only what detections.json names is passed over, not what ends as our files do."""
    folder = patients / "p1"
    detect(folder, folder)
    half_red(folder / "drawn_mask.png")
    assert stems(find_inputs([str(folder)], folder)) == ["a", "b", "drawn_mask"]


def test_a_renamed_input_keeps_its_name_whatever_comes_before_it(patients):
    out, p1, p2 = (patients / name for name in ("out", "p1", "p2"))
    detect(out, p1, p2)
    assert pictures(out) == ["a", "a_p2", "b"]
    detect(out, p2, p1)
    assert {entry["input"]: entry["stem"] for entry in entries(out)} == {
        str(p2 / "a.png"): "a_p2",
        str(p1 / "a.png"): "a",
        str(p1 / "b.png"): "b",
    }


# --- resume -----------------------------------------------------------------------------------------------


def test_resume_adds_and_skips(patients):
    out, calls = patients / "out", []

    def counting(image):
        calls.append(image)
        return Found(image)

    detect(out, patients / "p1")
    before = whole_folder(out)
    added = detect(out, patients / "p2", patients / "p1", resume=True, detector=counting)
    assert len(calls) == 1
    assert [entry["stem"] for entry in added] == ["a_p2"]
    assert pictures(out) == ["a", "a_p2", "b"]
    assert len(entries(out)) == 3
    assert {name: data for name, data in whole_folder(out).items() if name in before and name != RESULTS} == {
        name: data for name, data in before.items() if name != RESULTS
    }
    (out / "b_mask.png").unlink()  # not finished any more
    assert [Path(entry["input"]).name for entry in detect(out, patients / "p1", resume=True)] == ["b.png"]


def test_resume_does_failed_inputs_again_and_a_videos_other_frames(tmp_path):
    clip, out = video(tmp_path / "clip.avi", 12), tmp_path / "out"
    late = tmp_path / "late.png"
    detect(out, clip, late, every=4)
    half_red(late)
    added = detect(out, clip, late, every=2, resume=True)
    assert [Path(entry["input"]).name for entry in added] == [*(f"clip.avi#frame={n}" for n in (2, 6, 10)), "late.png"]
    assert not any("error" in entry for entry in entries(out))
    assert len(entries(out)) == 7


def test_resume_keeps_the_errors_of_other_inputs(patients):
    out, bad = patients / "out", patients / "bad.png"
    bad.write_text("no image")
    detect(out, patients / "p1", bad)
    detect(out, patients / "p2", resume=True)
    assert [Path(entry["input"]).name for entry in entries(out) if "error" in entry] == ["bad.png"]
    detect(out, patients / "p2", patients / "p1")
    assert not any("error" in entry for entry in entries(out))


# --- interruptions ----------------------------------------------------------------------------------------


def test_entries_are_on_disk_while_the_call_goes_on(patients):
    """The last image waits until the others can be read: it would wait for ever if they came at the end."""
    out, seen = patients / "out", []

    def count() -> int:
        try:
            return len(entries(out))
        except ValueError:  # read in the middle of a write
            return 0

    def waiting(image):
        seen.append(0)
        limit = time.monotonic() + 10
        while len(seen) == 3 and (known := count()) < 2 and time.monotonic() < limit:
            time.sleep(0.01)
        seen[-1] = known if len(seen) == 3 else 0
        return Found(image)

    detect(out, patients / "p1", patients / "p2", detector=waiting)
    assert seen[2] == 2


def test_an_interrupted_second_call_loses_nothing_of_the_first(patients):
    out, p1 = patients / "out", patients / "p1"
    detect(out, p1)
    with pytest.raises(KeyboardInterrupt):
        detect(out, p1, detector=interrupted_at(2))
    assert sorted(inputs(out)) == [str(p1 / "a.png"), str(p1 / "b.png")]
    assert pictures(out) == ["a", "b"]
    assert sorted(os.listdir(out)) == sorted([RESULTS, *(f"{stem}{end}" for stem in "ab" for end in ENDINGS)])


KILLED = """
import sys, time
import numpy as np
from lesionkit.detect import Job, find_inputs
from pathlib import Path

class Found:
    lesions, view_px = (), (0, 0, 0, 0)
    def __init__(self, image):
        time.sleep(0.05)
        self.image, self.mask = image, image[..., 0] > 127
    def overlay(self):
        return self.image

folder, out = map(Path, sys.argv[1:])
Job(Found, out, lambda text: None).run(find_inputs([str(folder)], out))
"""


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
def test_after_a_kill_every_picture_has_its_entry_and_the_folder_is_still_ours(tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    for number in range(100):
        half_red(folder / f"{number:03d}.png")
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(folder), str(out)])
    limit = time.monotonic() + 60
    while len(pictures(out)) < 15 and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    made, named = set(pictures(out)), {entry["stem"] for entry in entries(out)}
    assert len(made) >= 15
    assert made <= named
    assert len(named) <= len(made) + 1
    assert len(find_inputs([str(folder)], out)) == 100
    added = detect(out, folder, resume=True)
    assert len(added) in (100 - len(made), 101 - len(made))  # the kill may have come between a mask and its overlay
    assert len(entries(out)) == len(pictures(out)) == 100
    assert len(os.listdir(out)) == 201  # nothing hidden stays


@pytest.mark.skipif(os.name == "nt", reason="there is no limit to set")
def test_a_disk_that_is_full_leaves_what_is_there(tmp_path):
    import resource

    call = Results(tmp_path)
    call.begin([], resume=False)
    call.add({"input": "a", "error": "of the first"})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / RESULTS).stat().st_size + 5, hard))
    try:
        call.add({"input": "b", "error": "of the second"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert inputs(tmp_path) == ["a"]
    call.add({"input": "c", "error": "of the third"})
    assert inputs(tmp_path) == ["a", "c"]
    call.save()
    assert inputs(tmp_path) == ["a", "b", "c"]


def test_two_calls_at_once_do_not_write_into_one_folder(patients):
    out, refused = patients / "out", []

    def second(image):
        if not refused:
            with pytest.raises(UsageError, match="another call writes into") as error:
                detect(out, patients / "p1")
            refused.append(error)
        return Found(image)

    detect(out, patients / "p1", detector=second)
    assert refused
    assert pictures(out) == ["a", "b"]
    detect(out, patients / "p1")  # nothing stays locked


def test_results_that_came_since_the_inputs_were_found_are_not_replaced(patients):
    out = patients / "out"
    found = find_inputs([str(patients / "p2")], out)
    detect(out, patients / "p1")
    with pytest.raises(UsageError, match="other inputs"):
        Job(Found, out, lambda text: None).run(found)


def test_a_detections_json_that_is_open_elsewhere_is_put_beside(patients, monkeypatch, capsys):
    out, replace = patients / "out", os.replace
    monkeypatch.setattr(files, "WAITS_S", (0.001,))
    detect(out, patients / "p1")

    def refusing(source, target):
        if Path(target).name == RESULTS:
            raise PermissionError(13, "The process cannot access the file", str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", refusing)
    detect(out, patients / "p1", patients / "p2", resume=True)
    assert len(json.loads((out / "detections.new.json").read_text())) == 3
    assert len(capsys.readouterr().err.splitlines()) == 1
    monkeypatch.setattr(os, "replace", replace)
    replace(out / "detections.new.json", out / RESULTS)  # as that line says
    assert detect(out, patients / "p1", patients / "p2", resume=True) == []
