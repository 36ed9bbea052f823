"""Which files are inputs and what their results are called; what is written; bad inputs cost no others."""

import json
import os
import threading
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import pytest

from lesionkit import files
from lesionkit.detect import Job, UsageError, find_inputs, reading, videos
from lesionkit.detect.outputs import RESULTS, USUAL, pictures_of
from lesionkit.fusion import Detection

SIZE_HW = (20, 30)
ENDINGS = tuple(pictures_of(USUAL))


@dataclass
class Lesion:
    bbox_px: tuple = (1, 2, 3, 4)
    area_px: int = 12
    area_fraction: float = 0.02
    score: float = 0.75


class Found(Detection):
    """A detection of the red half, with one lesion and a red overlay."""

    def __init__(self, image: np.ndarray):
        red = image[..., 0].astype(np.float32) / 255
        super().__init__(image, probability=red, depth=1 + red, attention=(red,) * 5, threshold=0.5)

    lesions = (Lesion(),)

    def overlay(self) -> np.ndarray:
        return np.full_like(self.image, (250, 0, 0))


def interrupted_at(number: int):
    """A detector whose `number`-th call is one of Ctrl-C."""
    calls = count(1)

    def detector(image):
        if next(calls) == number:
            raise KeyboardInterrupt
        return Found(image)

    return detector


def half_red(path: Path, size_hw=SIZE_HW) -> Path:
    """An image whose left half is red: the mask is known, and a swap of channels or of sides is seen."""
    image = np.zeros((*size_hw, 3), np.uint8)
    image[:, : size_hw[1] // 2, 2] = 255  # OpenCV writes BGR
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path


def video(path: Path, frames: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (48, 32))
    for number in range(frames):
        writer.write(np.full((32, 48, 3), 4 * number, np.uint8))
    writer.release()
    return path


def detect(out: Path, *arguments, detector=Found, every=25) -> list[dict]:
    found = find_inputs([str(argument) for argument in arguments], out)
    return Job(detector, out, echo=lambda text: None).run(found, every)


def stems(found) -> list[str]:
    return [source.stem for source in found]


# --- finding ----------------------------------------------------------------------------------------------


def test_a_folder_is_read_recursively_without_hidden_files_and_results(tmp_path):
    out = tmp_path / "in" / "out"
    for name in ("b.png", "sub/a.JPG", ".hidden.png", ".git/c.png", "out/old.png"):
        half_red(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("no image")
    found = find_inputs([str(tmp_path / "in")], out)
    assert [Path(source.input).relative_to(tmp_path / "in").as_posix() for source in found] == ["b.png", "sub/a.JPG"]


def test_a_folder_is_searched_for_all_that_opencv_decodes_and_the_rest_is_told(tmp_path):
    names = "a.jfif b.jpe c.JP2 d.gif e.avif f.ppm g.pgm h.webp i.ts j.MTS k.m2ts l.vob m.3gp n.flv o.wmv p.mpg q.ogv"
    others, told = ("r.txt", "s.TXT", "t.dcm", "README"), []
    for name in (*names.split(), *others):
        (tmp_path / name).write_bytes(b"")
    found = find_inputs([str(tmp_path)], tmp_path / "out", tell=told.append)
    assert [source.path.name for source in found] == names.split()
    assert [source.kind for source in found] == ["image"] * 8 + ["video"] * 9
    (line,) = told
    assert line == (f"{tmp_path}: files of other endings are passed over, 1 .dcm, 2 .txt, 1 without")


def test_links_to_folders_are_followed_once(tmp_path):
    half_red(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "in")
    assert stems(find_inputs([str(tmp_path / "in")], tmp_path / "out")) == ["a"]


def test_a_folder_that_cannot_be_entered_is_told_and_the_rest_is_found(tmp_path, monkeypatch):
    half_red(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "closed").mkdir()
    scan = os.scandir

    def refusing(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)  # root may enter anything
    source, failure = find_inputs([str(tmp_path / "in")], tmp_path / "out")
    assert source.stem == "a"
    assert "closed cannot be read (Permission denied)" in failure.error


def test_a_name_that_is_no_utf_8_costs_nothing(tmp_path):
    name = os.fsdecode(b"l\xe4sion.png")
    try:
        half_red(tmp_path / "plain.png").rename(tmp_path / name)
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    half_red(tmp_path / "other.png")
    detect(tmp_path / "out", tmp_path)
    entries = json.loads((tmp_path / "out" / RESULTS).read_text())
    assert sorted(os.path.basename(entry["input"]) for entry in entries) == sorted(["other.png", name])
    assert all("error" not in entry for entry in entries)
    assert (tmp_path / "out" / os.fsdecode(b"l\xe4sion_mask.png")).is_file()


def test_pictures_are_known_as_ours_from_the_first_on(tmp_path, monkeypatch):
    """A call that is killed leaves pictures beside its inputs; repeated, it may overwrite them."""
    half_red(tmp_path / "a.png")
    write_bytes, named = files.write_bytes, []

    def writing(path, content):
        if path.name != RESULTS:
            named.append([entry["stem"] for entry in json.loads((tmp_path / RESULTS).read_text())])
        return write_bytes(path, content)

    monkeypatch.setattr(files, "write_bytes", writing)
    detect(tmp_path, tmp_path)
    assert named == [["a"]] * len(ENDINGS)


def test_a_pattern_finds_what_the_shell_did_not_expand(tmp_path):
    for name in ("a1.png", "a2.png", "b1.png", "sub/a3.png"):
        half_red(tmp_path / name)
    assert stems(find_inputs([str(tmp_path / "a*.png")], tmp_path / "out")) == ["a1", "a2"]
    assert stems(find_inputs([str(tmp_path / "**" / "a*")], tmp_path / "out")) == ["a1", "a2", "a3"]
    odd = half_red(tmp_path / "odd[1].png")  # looks like a pattern, but is a file
    assert stems(find_inputs([str(odd)], tmp_path / "out")) == ["odd[1]"]


def test_what_is_not_there_becomes_an_error_in_its_place(tmp_path):
    (tmp_path / "empty").mkdir()
    good = half_red(tmp_path / "good.png")
    asked = [str(tmp_path / "no.png"), str(tmp_path / "empty"), str(tmp_path / "*.tif"), str(good)]
    found = find_inputs(asked, tmp_path / "out")
    assert [each.path for each in found] == [None, None, None, good]
    assert [each.input for each in found] == asked
    assert "does not exist" in found[0].error
    assert "no image or video" in found[1].error


def test_a_file_that_is_reached_twice_is_one_input(tmp_path):
    image = half_red(tmp_path / "in" / "a.png")
    assert len(find_inputs([str(image), str(tmp_path / "in"), str(image)], tmp_path / "out")) == 1


def test_inputs_with_one_stem_get_stable_names_of_their_own(tmp_path):
    names = ("p/a.png", "q/a.png", "q/A.jpg", "r/q/a.png", "a_q.png")
    asked = [str(half_red(tmp_path / name)) for name in names]
    once = stems(find_inputs(asked, tmp_path / "out"))
    assert once == ["a", "a_q", "A_2", "a_3", "a_q_" + tmp_path.name]
    assert stems(find_inputs(asked, tmp_path / "out")) == once
    assert len({stem.lower() for stem in once}) == 5


def test_frames_of_a_video_do_not_meet_images_of_their_name(tmp_path):
    for name in ("clip.avi", "clip_000025.png", "case_000001.png", "case_000002.png", "case.png"):
        (tmp_path / name).write_bytes(b"")
    asked = [str(tmp_path / name) for name in ("clip.avi", "clip_000025.png", "case_000001.png")]
    assert stems(find_inputs(asked, tmp_path / "out")) == ["clip", f"clip_000025_{tmp_path.name}", "case_000001"]
    asked = [str(tmp_path / f"case{ending}.png") for ending in ("_000001", "_000002", "")]
    assert stems(find_inputs(asked, tmp_path / "out")) == ["case_000001", "case_000002", "case"]


def test_frames_of_an_image_file_do_not_meet_images_of_their_name(tmp_path):
    pages = [np.full((20, 30, 3), 100 * n, np.uint8) for n in range(3)]
    cv2.imwritemulti(str(tmp_path / "a.tif"), pages)
    half_red(tmp_path / "a_000001.png")
    detect(tmp_path / "out", tmp_path)
    names = sorted(path.name for path in (tmp_path / "out").glob("*_mask.png"))
    assert names == [f"a_{n:06d}{own}_mask.png" for n, own in ((0, ""), (1, ""), (1, f"_{tmp_path.name}"), (2, ""))]


def test_the_users_own_masks_are_never_overwritten(tmp_path):
    half_red(tmp_path / "a.png")
    half_red(tmp_path / "a_mask.png")
    with pytest.raises(UsageError, match=r"a_mask\.png exists"):
        find_inputs([str(tmp_path)], tmp_path)
    with pytest.raises(UsageError, match=r"a_mask\.png exists"):
        find_inputs([str(tmp_path / "a.png")], tmp_path)


def test_a_mask_in_another_folder_is_the_users_own_with_or_without_an_overlay(tmp_path):
    """Ours is what detections.json names, not what ends as our files do."""
    image = half_red(tmp_path / "images" / "a.png")
    for name in ("a_mask.png", "a_overlay.jpg"):
        half_red(tmp_path / "masks" / name)
        with pytest.raises(UsageError, match=r"a_mask\.png exists"):
            find_inputs([str(image)], tmp_path / "masks")


def test_a_mask_that_was_added_after_a_call_is_not_overwritten(tmp_path):
    detect(tmp_path, half_red(tmp_path / "a.png"))
    half_red(tmp_path / "b.png")
    half_red(tmp_path / "b_mask.png")
    with pytest.raises(UsageError, match=r"b_mask\.png exists"):
        find_inputs([str(tmp_path)], tmp_path)


def test_another_programs_detections_are_not_overwritten(tmp_path):
    image = half_red(tmp_path / "a.png")
    for content in ('{"images": []}', "no json", '[{"input": 5}]'):
        (tmp_path / RESULTS).write_text(content)
        with pytest.raises(UsageError, match=r"detections\.json exists and is not ours"):
            find_inputs([str(image)], tmp_path)


def test_a_drawn_mask_of_a_videos_frame_is_not_overwritten(tmp_path):
    video(tmp_path / "clip.avi", 3)
    half_red(tmp_path / "clip_000000_mask.png")
    with pytest.raises(UsageError, match=r"clip_000000_mask\.png exists"):
        find_inputs([str(tmp_path / "clip.avi")], tmp_path)
    (tmp_path / "clip_000000_mask.png").unlink()
    detect(tmp_path, tmp_path / "clip.avi")
    assert stems(find_inputs([str(tmp_path / "clip.avi")], tmp_path)) == ["clip"]  # its own results may be replaced


def test_a_path_that_cannot_be_asked_about_costs_no_other(tmp_path):
    good = half_red(tmp_path / "a.png")
    found = find_inputs([str(good), "x" * 300 + ".png"], tmp_path / "out")
    assert [each.path for each in found] == [good, None]
    assert "File name too long" in found[1].error


def test_a_second_call_into_the_inputs_folder_sees_the_same_inputs(tmp_path):
    half_red(tmp_path / "a.png")
    first = detect(tmp_path, tmp_path)
    second = detect(tmp_path, tmp_path)
    assert [entry["input"] for entry in first] == [entry["input"] for entry in second] == [str(tmp_path / "a.png")]


# --- writing ----------------------------------------------------------------------------------------------


def test_masks_overlays_and_entries_are_as_the_contract_says(tmp_path):
    image, out = half_red(tmp_path / "a.png"), tmp_path / "out"
    entries = detect(out, image)
    assert sorted(path.name for path in out.iterdir()) == sorted([*(f"a{ending}" for ending in ENDINGS), RESULTS])
    mask = cv2.imread(str(out / "a_mask.png"), cv2.IMREAD_UNCHANGED)
    assert mask.shape == SIZE_HW
    assert mask.dtype == np.uint8
    assert (mask[:, :15] == 255).all()
    assert (mask[:, 15:] == 0).all()
    overlay = cv2.imread(str(out / "a_overlay.jpg"))
    assert overlay.shape == (*SIZE_HW, 3)
    assert overlay[..., 2].min() > 240  # red is red: the overlay is RGB, OpenCV wants BGR
    assert overlay[..., 0].max() < 15
    seconds = entries[0].pop("seconds")
    assert 0 < seconds < 5
    assert entries == [
        {
            "input": str(image),
            "file": str(image),
            "stem": "a",
            "width": 30,
            "height": 20,
            "view_px": [],
            "lesions": [{"bbox_px": [1, 2, 3, 4], "area_px": 12, "area_fraction": 0.02, "score": 0.75}],
        }
    ]
    assert json.loads((out / RESULTS).read_text())[0]["seconds"] == seconds


def test_the_mask_is_upright_as_exif_says(tmp_path):
    """Orientation 6: the camera was turned, a viewer shows the image turned clockwise by 90 degrees."""
    jpeg = half_red(tmp_path / "a.jpg").read_bytes()
    tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    exif = b"Exif\0\0" + tiff
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    (tmp_path / "a.jpg").write_bytes(jpeg[:2] + segment + jpeg[2:])
    entry = detect(tmp_path / "out", tmp_path / "a.jpg")[0]
    mask = cv2.imread(str(tmp_path / "out" / "a_mask.png"), cv2.IMREAD_UNCHANGED)
    assert (entry["width"], entry["height"]) == (20, 30)
    assert mask.shape == (30, 20)
    assert mask[:14].mean() > 250  # what was left is on top
    assert mask[16:].mean() < 5


def test_bad_inputs_cost_no_good_ones(tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    for name in ("a.png", "b.jpg", "c.png", "d.png"):
        half_red(folder / name)
    (folder / "b.jpg").write_bytes((folder / "b.jpg").read_bytes()[:-40])  # truncated
    (folder / "e.png").write_bytes(b"this is text")

    def moody(image):
        if image.shape[0] == 21:
            raise RuntimeError("out of\nmemory")
        return Found(image)

    half_red(folder / "c.png", (21, 30))
    entries = detect(out, folder, detector=moody)
    assert [Path(entry["input"]).name for entry in entries] == ["a.png", "b.jpg", "c.png", "d.png", "e.png"]
    assert ["error" in entry for entry in entries] == [False, True, True, False, True]
    assert entries[2]["error"] == "the detector failed: RuntimeError: out of memory"
    assert all(set(entry) == {"input", "error"} for entry in entries if "error" in entry)
    masks = sorted(path.name for path in out.glob("*_mask.png"))
    assert masks == ["a_mask.png", "d_mask.png"]


def test_a_result_that_cannot_be_written_leaves_neither_picture(tmp_path):
    out = tmp_path / "out"
    (out / "a_overlay.jpg").mkdir(parents=True)  # a folder stands where the overlay should go
    half_red(tmp_path / "a.png")
    half_red(tmp_path / "b.png")
    entries = detect(out, tmp_path / "a.png", tmp_path / "b.png")
    assert "cannot be written" in entries[0]["error"]
    assert "error" not in entries[1]
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["a_overlay.jpg", *(f"b{ending}" for ending in ENDINGS), RESULTS]
    )


def test_all_frames_of_an_image_file_whatever_every_says(tmp_path):
    pages = [np.full((20, 30, 3), 100 * n, np.uint8) for n in range(3)]
    cv2.imwritemulti(str(tmp_path / "a.tif"), pages)
    entries = detect(tmp_path / "out", tmp_path / "a.tif", every=2)
    assert [entry["input"] for entry in entries] == [f"{tmp_path / 'a.tif'}#frame={number}" for number in range(3)]
    means = [cv2.imread(str(tmp_path / "out" / f"a_{n:06d}_mask.png"), 0).mean() for n in range(3)]
    assert means == [0, 0, 255]


def test_nothing_that_a_reader_meets_ends_the_others(tmp_path, monkeypatch):
    half_red(tmp_path / "a.png")
    half_red(tmp_path / "b.png")
    read_image = reading.datasets.read_image

    def failing(path):
        if path.name == "a.png":
            raise MemoryError("Unable to allocate\n9 GiB")
        return read_image(path)

    monkeypatch.setattr(reading.datasets, "read_image", failing)
    entries = detect(tmp_path / "out", tmp_path / "a.png", tmp_path / "b.png")
    assert "Unable to allocate" in entries[0]["error"]
    assert "error" not in entries[1]


def test_a_deinterlaced_frame_says_so_in_its_entry(tmp_path, monkeypatch):
    monkeypatch.setattr(videos, "is_combed", lambda frame, after: frame.mean() > 100)
    entries = detect(tmp_path / "out", video(tmp_path / "clip.avi", 45), every=20)
    assert [entry.get("note") for entry in entries] == [None, None, videos.DEINTERLACED]


def test_every_nth_frame_of_a_video(tmp_path):
    clip, out = video(tmp_path / "clip.avi", 45), tmp_path / "out"
    entries = detect(out, clip, every=20)
    assert [entry["input"] for entry in entries] == [f"{clip}#frame={number}" for number in (0, 20, 40)]
    assert sorted(path.name for path in out.glob("*_mask.png")) == [
        "clip_000000_mask.png",
        "clip_000020_mask.png",
        "clip_000040_mask.png",
    ]
    # frame n has the grey value 4 n, and the mask is grey > 127: frame 20 is below, frame 40 above
    means = [cv2.imread(str(out / f"clip_{n:06d}_mask.png"), 0).mean() for n in (0, 20, 40)]
    assert means == [0, 0, 255]


def test_broken_videos_are_told(tmp_path):
    whole = video(tmp_path / "clip.avi", 60).read_bytes()
    (tmp_path / "half.avi").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.mp4").write_text("not a video")
    entries = detect(tmp_path / "out", tmp_path / "half.avi", tmp_path / "text.mp4")
    assert entries[0]["input"].endswith("half.avi#frame=0")
    assert "of 60 frames" in entries[-2]["error"]
    assert "is not a video" in entries[-1]["error"]


def test_an_interruption_keeps_what_is_finished(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        half_red(tmp_path / "in" / name)
    with pytest.raises(KeyboardInterrupt):
        detect(tmp_path / "out", tmp_path / "in", detector=interrupted_at(3))
    entries = json.loads((tmp_path / "out" / RESULTS).read_text())
    assert [Path(entry["input"]).name for entry in entries] == ["a.png", "b.png"]
    assert len(list((tmp_path / "out").glob("*_mask.png"))) == 2


def test_reading_goes_on_while_the_model_works():
    """The model waits for a later image to be read: alone, reading in turn would never get there."""
    third = threading.Event()

    def images():
        for number in range(5):
            if number == 3:
                third.set()
            yield {"input": number}, None

    items = reading.read_ahead(images(), depth=3)
    assert next(items)[0]["input"] == 0
    assert third.wait(timeout=5)
    time.sleep(0.01)
    assert [entry["input"] for entry, _ in items] == [1, 2, 3, 4]
