"""Videos: lesions linked over their frames, and the annotated copy."""

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_detect import half_red
from test_results import detect, entries

from lesionkit.detect import Job, UsageError, film, find_inputs
from lesionkit.detect.tracks import GAP, Tracks, cost
from lesionkit.fusion import Detection

av = pytest.importorskip("av")

BOX, ENTRY = (10, 10, 8, 6), {"file": "v", "time_s": 0}


def moving(path: Path, frames: int, size=(64, 48), rate=12.5, shown=lambda n: True) -> Path:
    """A red square that moves to the right by two pixels a frame, where it is shown."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), rate, size)
    for number in range(frames):
        picture = np.full((size[1], size[0], 3), 40, np.uint8)
        if shown(number):
            picture[10:22, 4 + 2 * number : 16 + 2 * number] = (30, 30, 220)
        writer.write(picture)
    writer.release()
    return path


def red(image: np.ndarray) -> Detection:
    probability = (image[..., 0].astype(np.float32) - image[..., 1]).clip(0, 180) / 180
    return Detection(image, probability, probability + 1, (probability,) * 5, 0.5, (0, 0, *image.shape[1::-1]))


def filmed(out: Path, *inputs: Path, every=1, resume=False, save=("video",), **how) -> list[dict]:
    return Job(red, out, lambda text: None, resume, save, **how).run(
        find_inputs(list(map(str, inputs)), out, resume), every
    )


def read(path: Path) -> tuple[list[np.ndarray], Fraction]:
    with av.open(str(path)) as file:
        rate = file.streams.video[0].average_rate
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)], rate


# --- tracks


def a_frame(*boxes, size=(40, 60)) -> Detection:
    probability = np.zeros(size, np.float32)
    for x, y, width, height in boxes:
        probability[y : y + height, x : x + width] = 0.9
    return Detection(np.zeros((*size, 3), np.uint8), probability, probability, (), 0.5)


def numbers(frames, **how) -> list[list[int]]:
    tracks = Tracks(**how)
    return [tracks.follow(ENTRY, a_frame(*boxes))[1] for boxes in frames]


def test_a_lesion_that_moves_keeps_its_number_and_another_gets_its_own():
    there = (40, 30, 6, 6)
    assert numbers([[BOX], [(12, 11, 8, 6), there], [there, (15, 12, 8, 6)], [(18, 12, 8, 6)]]) == [
        [1],
        [1, 2],
        [1, 2],
        [1],
    ]


def test_neighbours_are_linked_by_what_costs_least_in_all():
    """The left one is nearer to where the right one was; but then that would have nowhere to come from."""
    frames = [[(x, 10, 10, 8) for x in columns] for columns in ((10, 22), (17, 29))]
    assert numbers(frames) == [[1, 2], [1, 2]]


def test_a_gap_of_a_few_frames_survives_and_a_longer_one_does_not():
    assert numbers([[BOX], *[[]] * GAP, [BOX]])[-1] == [1]
    assert numbers([[BOX], *[[]] * (GAP + 1), [BOX]])[-1] == [2]


def test_what_is_seen_too_rarely_is_not_marked():
    tracks, there = Tracks(min_frames=3), (40, 30, 6, 6)
    shown = [tracks.follow(ENTRY, a_frame(BOX, *extra)) for extra in ([], [there], [], [])]
    assert [told for _, told in shown] == [[], [], [1], [1]]
    assert [bool(found.mask.any()) for found, _ in shown] == [False, False, True, True]
    assert not shown[2][0].mask[30:36, 40:46].any()


def test_smoothed_probabilities_fade_instead_of_flickering():
    tracks = Tracks(smooth=True)
    peaks = [tracks.follow(ENTRY, one)[0].probability.max() for one in (a_frame(BOX), a_frame(), a_frame(BOX))]
    assert peaks == pytest.approx([0.9, 0.45, 0.675])


def test_the_cost_of_a_link():
    assert cost(BOX, BOX) == 0
    assert cost(BOX, (12, 10, 8, 6)) < cost(BOX, (15, 10, 8, 6)) < 1
    assert cost(BOX, (40, 40, 8, 6)) == 1


# --- the film


def test_every_frame_is_in_the_film_with_what_was_found_last(tmp_path):
    found = filmed(tmp_path / "out", moving(tmp_path / "v.avi", 12), every=4, save=("video", "csv"))
    frames, rate = read(tmp_path / "out" / "v_detections.mp4")
    assert (len(frames), frames[0].shape, float(rate)) == (12, (48, 64, 3), 12.5)
    assert [entry["time_s"] for entry in found] == [0.0, 0.32, 0.64]
    assert [lesion["track"] for entry in found for lesion in entry["lesions"]] == [1, 1, 1]
    green = [(f[..., 1].astype(int) - f[..., 0] > 60).any(0).nonzero()[0] for f in frames]  # the outline
    assert all(len(columns) for columns in green)
    assert green[0].min() == pytest.approx(green[3].min(), abs=1)  # the last result stands in between
    assert green[4].min() > green[3].min() + 4
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "detections.json",
        "lesions.csv",
        "v_detections.mp4",
    ]


def test_two_films_do_not_mix(tmp_path):
    one, two = moving(tmp_path / "a.avi", 5, (80, 48)), moving(tmp_path / "b.avi", 7)
    filmed(tmp_path / "out", one, two, every=2)
    films = [read(tmp_path / "out" / f"{name}_detections.mp4")[0] for name in "ab"]
    assert [(len(frames), frames[0].shape) for frames in films] == [(5, (48, 80, 3)), (7, (48, 64, 3))]


def test_odd_sides_get_a_pixel_more(tmp_path):
    one = film.Film(tmp_path / "odd.mp4", 29.97)
    for _ in range(3):
        one.add(np.full((47, 63, 3), 90, np.uint8))
    one.close()
    frames, rate = read(tmp_path / "odd.mp4")
    assert ([frame.shape for frame in frames], float(rate)) == ([(48, 64, 3)] * 3, pytest.approx(29.97, abs=0.001))
    assert [path.name for path in tmp_path.iterdir()] == ["odd.mp4"]


def test_a_film_that_was_interrupted_leaves_nothing_and_is_made_as_a_whole(tmp_path):
    video, calls = moving(tmp_path / "v.avi", 10), []

    def stopped(image):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return red(image)

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        Job(stopped, out, lambda text: None, save=("video",)).run(find_inputs([str(video)], out), 1)
    assert [path.name for path in out.iterdir()] == ["detections.json"]
    assert 0 < len(entries(out)) < 10
    filmed(out, video, resume=True)
    assert len(read(out / "v_detections.mp4")[0]) == len(entries(out)) == 10
    assert filmed(out, video, resume=True) == []


def test_a_persons_own_video_is_not_written_over(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "v_detections.mp4").write_bytes(b"mine")
    with pytest.raises(UsageError, match="a result would overwrite it"):
        filmed(out, moving(tmp_path / "v.avi", 3))
    assert (out / "v_detections.mp4").read_bytes() == b"mine"


def test_a_persons_own_video_stays_beside_results_that_are_made_again(tmp_path):
    """It is called as a film of the image would be, but no entry names it."""
    image, out = half_red(tmp_path / "a.png"), tmp_path / "out"
    detect(out, image)
    (out / "a_detections.mp4").write_bytes(b"mine")
    detect(out, image)
    assert (out / "a_detections.mp4").read_bytes() == b"mine"


def test_a_film_beside_its_source_is_no_input_and_goes_with_what_it_shows(tmp_path):
    moving(tmp_path / "v.avi", 4)
    for _ in range(2):
        assert len(filmed(tmp_path, tmp_path)) == 4
    assert len(read(tmp_path / "v_detections.mp4")[0]) == 4
    filmed(tmp_path, tmp_path, save=("mask",))
    assert not (tmp_path / "v_detections.mp4").exists()


def test_a_film_that_cannot_be_begun_costs_no_other_result(tmp_path, monkeypatch):
    def refused():
        raise OSError(13, "Permission denied")

    monkeypatch.setattr(film, "library", refused)
    found = filmed(tmp_path / "out", moving(tmp_path / "v.avi", 3))
    assert ["error" in entry for entry in found] == [False, False, False, True]


def test_a_film_that_cannot_be_written_costs_no_other_result(tmp_path, monkeypatch):
    def full(self, frame):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(film.Film, "add", full)
    found = filmed(tmp_path / "out", moving(tmp_path / "v.avi", 3), save=("video", "mask"))
    assert ["error" in entry for entry in found] == [False, False, False, True]
    assert "its video cannot be written" in found[-1]["error"]
    assert len(list((tmp_path / "out").glob("*_mask.png"))) == 3


def test_without_the_extra_it_is_one_sentence(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(UsageError, match=r"needs PyAV: pip install 'lesionkit\[video\]'"):
        film.library()


def test_frames_of_a_video_without_film_are_linked_too(tmp_path):
    detect(tmp_path / "out", moving(tmp_path / "v.avi", 6), detector=red, every=2)
    assert [lesion["track"] for entry in entries(tmp_path / "out") for lesion in entry["lesions"]] == [1, 1, 1]
