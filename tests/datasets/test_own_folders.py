"""Data of one's own: where files may lie, what `verify` says of them, and that `run` says the same."""

import os
import tracemalloc
import unicodedata

import cv2
import numpy as np
import pytest
from PIL import Image
from test_reading import one_line, write

from lesionkit import datasets, runs
from lesionkit.datasets import DatasetError, InvalidData, UnknownDataset, reading, verifying
from lesionkit.runs import planning


def scene(seed, height=40, width=60):
    """A smooth random image; those of two seeds do not look alike."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return cv2.resize(blocks, (width, height), interpolation=cv2.INTER_CUBIC)


def lesion(height=40, width=60, side=10):
    mask = np.zeros((height, width), np.uint8)
    mask[10 : 10 + side, 5 : 5 + side] = 255
    return mask


def made(root, count=12, image="images/{}.png", mask="masks/{}.png"):
    for index in range(count):
        write(root / image.format(f"f{index:02d}"), scene(index))
        write(root / mask.format(f"f{index:02d}"), lesion(side=8 + index))
    return root


def names(root):
    return [sample.name for sample in datasets.open_dataset(f"folder:{root}").samples]


def refusal(root):
    """What `run` says before the first notebook; nothing, if it would begin."""
    try:
        planning.plan_run(profile="smoke", dataset=f"folder:{root}", out=root / "out", device="cpu")
    except runs.ParameterError as error:
        return one_line_of(error)
    return ""


def one_line_of(error):
    assert "\n" not in str(error)
    return str(error)


# --- where files lie


def test_names_in_two_unicode_forms_are_one(tmp_path):
    for index in range(3):
        nfc, nfd = (unicodedata.normalize(form, f"Läsion_{index}") for form in ("NFC", "NFD"))
        write(tmp_path / "images" / f"{nfc}.png", scene(index))
        write(tmp_path / "masks" / f"{nfd}.png", lesion())
    assert names(tmp_path) == [f"Läsion_{index}" for index in range(3)]
    assert datasets.verify(f"folder:{tmp_path}").ok
    write(tmp_path / "images" / f"{nfd}.png", scene(9))
    with pytest.raises(InvalidData, match=r"1 image\(s\) twice"):
        names(tmp_path)


@pytest.mark.parametrize("place", ["{}/case1/", "{}/case1/left/", "case1/{}/", "case1/{}/left/"])
def test_folders_below_images_and_folders_of_patients_are_read(tmp_path, place):
    made(tmp_path, 3, f"{place.format('images')}{{}}.png", f"{place.format('masks')}{{}}.png")
    write(tmp_path / place.replace("case1", "case2").format("images") / "f00.png", scene(7))
    write(tmp_path / place.replace("case1", "case2").format("masks") / "f00.png", lesion())
    below = "case1/left" if "left" in place else "case1"
    assert names(tmp_path) == [f"{below}/f00", f"{below}/f01", f"{below}/f02", f"{below.replace('1', '2')}/f00"]
    assert {sample.image.parent.parts[-1] for sample in datasets.open_dataset(f"folder:{tmp_path}").samples} != set()


def test_a_folder_called_images_above_the_data_set_counts_for_nothing(tmp_path):
    assert names(made(tmp_path / "images" / "masks" / "own", 3)) == ["f00", "f01", "f02"]


def test_images_on_top_and_below_are_all_read_and_links_followed_once(tmp_path):
    made(tmp_path, 3)
    made(tmp_path / "elsewhere", 2)
    for part in ("images", "masks"):
        (tmp_path / part / "case2").symlink_to(tmp_path / "elsewhere" / part)
        (tmp_path / part / "again").symlink_to(tmp_path / part)  # in a circle
        write(tmp_path / part / ".hidden" / "x.png", lesion())
    assert names(tmp_path) == ["case2/f00", "case2/f01", "f00", "f01", "f02"]


def test_a_mask_that_lies_elsewhere_is_told_with_its_folder(tmp_path):
    made(tmp_path, 3)
    write(tmp_path / "images" / "case9" / "f09.png", scene(9))
    write(tmp_path / "masks" / "f09.png", lesion())
    with pytest.raises(InvalidData, match=r"1 image\(s\) without a mask \(case9/f09\)"):
        names(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="names on Windows are Unicode")
def test_bytes_that_are_no_utf8_are_one_line_in_a_path_and_in_a_name(tmp_path, monkeypatch):
    odd = os.fsdecode(b"M\xe4rz")
    made(tmp_path / odd, 3)
    for refused in (datasets.verify, datasets.open_dataset, datasets.folder_of):
        with pytest.raises(UnknownDataset, match=r"M\\xe4rz is no UTF-8: rename the folder") as error:
            refused(f"folder:{tmp_path / odd}")
        one_line(error)
    assert refusal(tmp_path / odd) == str(error.value)
    monkeypatch.setenv("LESIONKIT_DATA", str(tmp_path / odd))
    with pytest.raises(UnknownDataset, match=r"M\\xe4rz is no UTF-8"):
        datasets.status()
    with pytest.raises(runs.ParameterError, match=r"--out .*M\\xe4rz/out is no UTF-8"):
        planning.plan_run(out=tmp_path / odd / "out", device="cpu")
    made(tmp_path / "own", 3)
    for part in ("images", "masks"):
        (tmp_path / "own" / part / "f00.png").rename(tmp_path / "own" / part / f"{odd}.png")
    with pytest.raises(InvalidData, match=r"1 file\(s\) whose path is no UTF-8 \(images/M\\xe4rz\.png\): rename them"):
        names(tmp_path / "own")


def test_a_user_without_a_home_is_told_what_to_set(tmp_path, monkeypatch):
    def homeless(*_, **__):
        raise RuntimeError("could not determine the home directory")

    monkeypatch.delenv("LESIONKIT_DATA", raising=False)
    monkeypatch.setattr("platformdirs.user_cache_path", homeless)
    monkeypatch.setattr("pathlib.Path.expanduser", homeless)
    calls = (
        datasets.status,
        lambda: datasets.verify("kvasir-seg"),
        lambda: datasets.fetch("kvasir-seg", url="~/a.zip"),
    )
    monkeypatch.setattr("pathlib.Path.home", homeless)
    with pytest.raises(runs.ParameterError, match="no home folder: set HOME"):
        planning.plan_run(device="cpu")
    for call in (*calls, lambda: datasets.fetch("kvasir-seg", tmp_path, url="~/a.zip")):
        with pytest.raises(DatasetError, match=r"no home folder: set HOME to one, or, .* LESIONKIT_DATA") as error:
            call()
        one_line(error)


# --- what verify says, and run


def test_a_sound_folder_is_sound_for_both(tmp_path):
    made(tmp_path)
    assert datasets.verify(f"folder:{tmp_path}") == datasets.Report(True, (), (), 12)
    assert refusal(tmp_path) == ""


def test_what_verify_refuses_run_refuses_with_the_same_sentence(tmp_path):
    masks = {
        "uneven": cv2.imencode(".jpg", lesion() // 6)[1].tobytes(),
        "damaged": cv2.imencode(".png", lesion())[1].tobytes()[:-10],
        "another size": cv2.imencode(".png", lesion()[:20])[1].tobytes(),
        "a picture": cv2.imencode(".png", scene(99))[1].tobytes(),
    }
    for kind, data in masks.items():
        root = made(tmp_path / kind)
        (root / "masks" / "f03.png").write_bytes(data)
        (problem,) = datasets.verify(f"folder:{root}").problems
        assert problem.startswith("1 of 12 pairs (f03) ")
        assert refusal(root) == problem
    few = made(tmp_path / "few", 2)
    assert datasets.verify(f"folder:{few}").problems == (refusal(few),)
    assert "needs 3 or more" in refusal(few)


def test_of_several_problems_run_tells_the_first(tmp_path):
    made(tmp_path)
    write(tmp_path / "masks" / "f03.png", scene(99))
    write(tmp_path / "masks" / "f04.png", lesion()[:20])
    first, _ = datasets.verify(f"folder:{tmp_path}").problems
    assert refusal(tmp_path) == first


def test_copies_under_other_names_are_named_before_the_first_notebook(tmp_path):
    made(tmp_path)
    for index in range(12):
        for part in ("images", "masks"):
            path = tmp_path / part / f"f{index:02d}.png"
            path.with_stem(f"{path.stem} - Copy").write_bytes(path.read_bytes())
    report = datasets.verify(f"folder:{tmp_path}")
    (problem,) = report.problems
    assert refusal(tmp_path) == problem
    assert problem.startswith("12 image(s) are there more than once, some in two parts (f00 and f00 - Copy, f01 and ")


@pytest.mark.parametrize("orientation", [2, 3, 4, 6, 8])
def test_a_mask_drawn_on_the_image_before_exif_turned_it_is_told(tmp_path, orientation):
    made(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(scene(3)).save(tmp_path / "images" / "f03.png", exif=exif)
    report = datasets.verify(f"folder:{tmp_path}")
    (told,) = report.problems if orientation > 4 else report.notes
    assert told.startswith("1 of 12 pairs (f03) ")
    assert "EXIF turns" in told
    assert (refusal(tmp_path) == told) == (orientation > 4)
    assert ("is 60×40 but its image is 40×60: turn it by a quarter, as EXIF turns" in told) == (orientation > 4)
    Image.fromarray(lesion()).save(tmp_path / "masks" / "f03.png", exif=exif)  # turned alike
    assert datasets.verify(f"folder:{tmp_path}") == datasets.Report(True, (), (), 12)


def test_a_square_image_that_exif_turns_by_a_quarter_is_a_note(tmp_path):
    made(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(scene(3, 40, 40)).save(tmp_path / "images" / "f03.png", exif=exif)
    write(tmp_path / "masks" / "f03.png", lesion(width=40))
    (note,) = datasets.verify(f"folder:{tmp_path}").notes
    assert "have an image that EXIF turns" in note


def test_masks_of_one_value_and_inverted_ones_are_notes(tmp_path):
    made(tmp_path)
    for index, mask in ((1, lesion() * 0), (2, lesion() * 0 + 255), (3, 255 - lesion()), (4, 255 - lesion())):
        write(tmp_path / "masks" / f"f{index:02d}.png", mask)
    write(tmp_path / "masks" / "f05.png", cv2.rectangle(lesion(), (5, 2), (55, 38), 255, -1))  # large, and no edge
    report = datasets.verify(f"folder:{tmp_path}")
    assert report.ok
    assert [note.split(":")[0] for note in report.notes] == [
        "1 of 12 pairs (f01) have a mask of one value, no lesion",
        "1 of 12 pairs (f02) have a mask of one value, all lesion",
        "2 of 12 pairs (f03, f04) have a mask that marks all but some of the middle",
    ]


def test_notes_are_told_before_the_first_notebook(tmp_path):
    made(tmp_path)
    write(tmp_path / "masks" / "f01.png", lesion() * 0)
    plan = planning.plan_run(profile="smoke", dataset=f"folder:{tmp_path}", out=tmp_path / "out", device="cpu")
    assert plan.notes == datasets.verify(f"folder:{tmp_path}").notes != ()


# --- many frames


def test_frames_that_hardly_move_are_compared_in_little_memory():
    """Two thousand frames of which all look alike are a million pairs: they are counted, and three are named."""
    count = 2000
    frames = {f"f{i:05d}": np.full(256, 100 + i % 3, np.uint8) for i in range(count)}
    names = list(frames)
    parts = {"train": names[:1400], "validation": names[1400:1700], "test": names[1700:]}
    tracemalloc.start()
    (note,) = verifying.near_duplicates("hash", frames, parts)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    pairs = 1400 * 600 + 300 * 300
    assert note.startswith(f"split hash: {pairs} near-duplicate pair(s) of images sit in two parts (f00000 in train")
    assert note.endswith(f" and {pairs - 3} more)")
    assert peak < 60e6


def test_a_long_check_says_how_far_it_is(tmp_path, monkeypatch, capsys):
    made(tmp_path, 5)
    monkeypatch.setattr(verifying, "PROGRESS", 2)
    datasets.verify(f"folder:{tmp_path}")
    lines = [f"{count} of 5 pairs of folder:{tmp_path} read" for count in (2, 4)]
    assert capsys.readouterr().err.splitlines() == lines


def test_the_size_of_a_tiff_follows_its_turn(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(scene(99)).save(tmp_path / "a.tif", exif=exif)
    with Image.open(tmp_path / "a.tif") as picture:
        assert reading.orientation(picture) == 3
