"""What `--save` writes beside masks and overlays: maps with their scales, and the tables made of all entries."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from test_detect import half_red

from lesionkit.cli import SAVED, main
from lesionkit.detect import KINDS, Job, UsageError, find_inputs
from lesionkit.detect.outputs import USUAL, map_of
from lesionkit.fusion import Detection


def spots(image: np.ndarray) -> Detection:
    """Two lesions, the larger one lower down, and maps of known values."""
    height, width = image.shape[:2]
    probability = np.zeros((height, width), np.float32)
    probability[1:3, 2:5], probability[10:16, 4:9], probability[10, 4] = 0.9, 0.7, 0.2
    depth = np.linspace(3, 80, height * width, dtype=np.float32).reshape(height, width)
    attention = tuple(np.full((8 >> i, 8 >> i), 0.5 + i, np.float32) for i in range(4))
    return Detection(
        image, probability, depth, (*attention, np.full((1, 1), 3, np.float32)), 0.5, (0, 0, width, height)
    )


def detect(out: Path, *inputs: Path, save=USUAL, resume=False) -> list[dict]:
    found = find_inputs(list(map(str, inputs)), out, resume)
    Job(spots, out, lambda text: None, resume, save).run(found)
    return json.loads((out / "detections.json").read_text())


def decoded(segmentation: dict) -> np.ndarray:
    height, width = segmentation["size"]
    values = np.repeat(np.arange(len(segmentation["counts"])) % 2, segmentation["counts"])
    return values.reshape(width, height).T == 1


def test_a_map_is_its_pixels_times_the_scale_that_the_entry_names(tmp_path):
    out = tmp_path / "out"
    (entry,) = detect(out, half_red(tmp_path / "a.png"), save=("probability", "depth", "attention"))
    names = ["probability", "depth", *(f"attention_{i}" for i in range(1, 6))]
    assert sorted(entry["maps"]) == sorted(names)
    assert sorted(path.name for path in out.glob("*.png")) == sorted(f"a_{name}.png" for name in names)
    found = spots(np.zeros((20, 30, 3), np.uint8))
    for name in names:
        pixels, scale = cv2.imread(str(out / f"a_{name}.png"), cv2.IMREAD_UNCHANGED), entry["maps"][name]["scale"]
        assert pixels.dtype == np.uint16
        np.testing.assert_allclose(pixels * scale, map_of(found, name), atol=scale)


def test_every_lesion_is_a_row_of_the_table(tmp_path):
    detect(tmp_path / "out", half_red(tmp_path / "a.png"), half_red(tmp_path / "b.png"), save=("csv",))
    rows = list(csv.DictReader((tmp_path / "out" / "lesions.csv").read_text().splitlines()))
    assert [Path(row["input"]).name for row in rows] == ["a.png"] * 2 + ["b.png"] * 2
    assert [[row[name] for name in "xywh"] for row in rows[:2]] == [["4", "10", "5", "6"], ["2", "1", "3", "2"]]
    assert [row["area_px"] for row in rows[:2]] == ["29", "6"]


def test_coco_has_every_lesion_with_its_box_its_mask_and_its_score(tmp_path):
    detect(tmp_path / "out", half_red(tmp_path / "a.png"), tmp_path / "absent.png", save=("coco",))
    content = json.loads((tmp_path / "out" / "coco.json").read_text())
    (image,) = content["images"]
    assert (image["height"], image["width"]) == (20, 30)
    assert [one["name"] for one in content["categories"]] == ["lesion"]
    masks = [decoded(one["segmentation"]) for one in content["annotations"]]
    np.testing.assert_array_equal(sum(masks), spots(np.zeros((20, 30, 3), np.uint8)).mask)
    for one, mask in zip(content["annotations"], masks, strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert one["bbox"] == [columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1]
        assert (one["image_id"], one["area"]) == (image["id"], mask.sum())
    assert content["annotations"][0]["score"] == pytest.approx(0.7)


def test_pictures_of_kinds_that_are_not_asked_for_again_go(tmp_path):
    image, out = half_red(tmp_path / "a.png"), tmp_path / "out"
    detect(out, image, save=("mask", "depth"))
    detect(out, image, save=("overlay",))
    assert sorted(path.name for path in out.iterdir()) == ["a_overlay.jpg", "detections.json"]
    detect(out, image, save=("mask", "overlay"), resume=True)
    assert sorted(path.name for path in out.iterdir()) == ["a_mask.png", "a_overlay.jpg", "detections.json"]


def test_a_persons_own_table_is_not_written_over(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "lesions.csv").write_text("mine")
    with pytest.raises(UsageError, match=r"lesions.csv exists and a result would overwrite it: give another --out"):
        detect(out, half_red(tmp_path / "a.png"), save=("csv",))
    assert (out / "lesions.csv").read_text() == "mine"


def test_a_kind_that_does_not_exist_is_refused_in_a_line(tmp_path):
    image = half_red(tmp_path / "a.png")
    told = CliRunner().invoke(main, ["detect", str(image), "--out", str(tmp_path / "out"), "--save", "mask,gif"])
    assert told.exit_code == 2
    assert "--save has no kind 'gif': use some of mask, overlay" in told.output
    assert not (tmp_path / "out").exists()
    assert tuple(SAVED.split(", ")) == KINDS
