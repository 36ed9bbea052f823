"""Detections as scored boxes: which regions are listed, and that the files say what the masks do."""

import boxes
import numpy as np
import pytest
from evaluate_reference import runs_in_a_row


def test_every_region_is_listed_once_with_its_largest_probability():
    p = np.zeros((40, 60), np.float32)
    p[5:9, 10:16] = 0.3
    p[6, 12] = 0.9  # the peak of a flat hill: one box, as sure as its peak
    p[20:30, 40:50] = 0.004
    p[35, 5] = 0.0005  # below the last level
    assert [(box, pytest.approx(score)) for box, score in boxes.scored_boxes(p)] == [
        ((12, 6, 1, 1), 0.9),
        ((40, 20, 10, 10), 0.004),
    ]
    assert boxes.scored_boxes(np.zeros((8, 8), np.float32)) == []


def test_two_peaks_on_one_hill_are_two_boxes():
    p = np.full((20, 40), 0.05, np.float32)
    p[5:9, 5:9], p[5:9, 30:34] = 0.9, 0.15
    found = boxes.scored_boxes(p)
    assert [box for box, _ in found] == [(5, 5, 4, 4), (30, 5, 4, 4)]


def test_exported_boxes_pair_with_their_frames(monkeypatch):
    mask = np.zeros((30, 40), bool)
    mask[3:6, 10:14] = True
    shown = [("a", 7, np.zeros((30, 40, 3), np.uint8), mask), ("b", 1, np.zeros((30, 40, 3), np.uint8), mask & False)]
    monkeypatch.setattr(boxes, "frames", lambda: iter(shown))

    class Found:
        probability = np.where(mask, 0.8, 0.0)

    truth, predictions = boxes.exported(lambda image: Found)
    assert [image["file_name"] for image in truth["images"]] == ["a_000007.jpg", "b_000001.jpg"]
    assert [(one["image_id"], one["bbox"], one["unique_id"]) for one in truth["annotations"]] == [
        (1, (10, 3, 4, 3), "a_1")
    ]
    assert [(one["image_id"], one["bbox"]) for one in predictions] == [(1, (10, 3, 4, 3)), (2, (10, 3, 4, 3))]


def test_runs_of_alarms():
    alarms = [1, 1, 0, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1]
    assert [runs_in_a_row(alarms, n) for n in (1, 2, 3, 5, 6)] == [3, 3, 2, 1, 0]
    assert runs_in_a_row([], 3) == 0
