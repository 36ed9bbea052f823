"""Videos as recorders make them: odd names, headers that promise too much, cut off files, two moments in one frame."""

import base64
import os
import struct
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from lesionkit.datasets import InvalidData
from lesionkit.detect import videos
from lesionkit.detect.videos import frames, is_combed, is_cut_off

SIZE_HW = (64, 96)
# Six frames of 96×64 pixels, MPEG-2, flagged as interlaced, top field first: a red box on grey that moves by 4 pixels a
# field. ffmpeg -f rawvideo -s 96x64 -r 50 … -vf tinterlace=interleave_top -flags +ildct+ilme -c:v mpeg2video -bf 0
FLAGGED = """
AAABswYAQBP//+AYAAABtRhUAAEAAAAAAbgACABAAAABAAAP//gAAAG1j//zgAAAAAEBI3g6UpERFpSlIiItKUpERFpSlIiItKUpERFpSlIiIgAAAQIj
+VAH4IgAgCMiXSvN3pLyAEwIYAyA8AGvv0UASgh/3AVBIAEBLAFKugAwASgIiLeQCB+sCIAWCR/0CYAJeXNAHwIn/gCIi3Spc4CcEMAZIcADXXrgCQEP
+4CgJH/gJYApdz3r283SlL378jiLSlKRERaUpSIiLSlKRERAAAABAyP5UAfgiACAIyJdK83ekvIATAhgDIDwAa+/RQBKCH/cBUEgAQEsAUq6ADABKAiI
t5AIH6wIgBYJH/QJgAl5c0AfAif+AIiLdKlzgJwQwBkhwANdeuAJAQ/7gKAkf+AlgCl3PevbzdKUvfvyOItKUpERFpSlIiItKUpEREAAAAEEI3g6UpER
FpSlIiItKUpERFpSlIiItKUpERFpSlIiIgAAAQAAV//7gAAAAbWBH/OAAAAAAQEibI2AAAABAiI/g7pAD8EQAQBGRLm0ucBMCH/0gPABp71wBKCGAkBU
EgAQEv/sq6LyKYDuY6NgAAABAyI/g7pAD8EQAQBGRLm0ucBMCH/0gPABp71wBKCGAkBUEgAQEv/sq6LyKYDrmNI2AAABBCJsjYAAAAEAAJf/+4AAAAG1
gR/zgAAAAAEBImyNgAAAAQIiN4OlKRERTAZywW9GwAAAAQMiN4OlKRERTAZywW9GwAAAAQQibI2AAAABAADX//uAAAABtYEf84AAAAABASJsjYAAAAEC
Im5gM5ubZsAAAAEDIm4/g7pAD8EQAQBGRLm0ucBMCH/0gPABp71wBKCGAkBUEgAQEv/sq6LyKYDObZsAAAEEImyNgAAAAQABF//7gAAAAbWBH/OAAAAA
AQEibI2AAAABAiJuYDObm2bAAAABAyJuYDObm2bAAAABBCJsjYAAAAEAAVf/+4AAAAG1gR/zgAAAAAEBImyNgAAAAQIibZgM5ubmAzAAAAEDIm2P4O6Q
A/BEAEARkS5tLnATAh/9IDwAae9cASghgJAVBIAEBL/7Kui8imAzm5gMwAAAAQQibI2A
"""


def box(left_px: int) -> np.ndarray:
    """A light box on grey, and what stands around it: horizontal lines that are no sign of anything."""
    image = np.full((*SIZE_HW, 3), 60, np.uint8)
    image[16:48, left_px : left_px + 24] = 250
    image[4:12:2] = 160
    return image


def woven(early: np.ndarray, late: np.ndarray) -> np.ndarray:
    frame = early.copy()
    frame[1::2] = late[1::2]
    return frame


PLAIN = [box(4 + 8 * t) for t in range(6)]
COMBED = [woven(box(4 + 8 * t), box(8 + 8 * t)) for t in range(6)]


def written(path: Path, frames: list[np.ndarray]) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, SIZE_HW[::-1])
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def read(path: Path, every: int = 1) -> tuple[list[np.ndarray], list[str], str]:
    """Pixels and notes of the frames, and what was wrong with the file in the end."""
    images, notes, fault = [], [], ""
    try:
        for _, image, note in frames(path, lambda number: number % every == 0):
            images.append(image)
            notes.append(note)
    except InvalidData as error:
        fault = str(error)
    return images, notes, fault


# --- names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [b"L\xe4nge.avi", b"f\xff/clip.avi", b"clip.a\xe4", b"a:b.avi", b"http:x.avi"])
def test_any_name_is_read(tmp_path, monkeypatch, name):
    """OpenCV dies of a name that is no UTF-8, and takes a relative one with a colon for an address."""
    monkeypatch.chdir(tmp_path)
    path = Path(os.fsdecode(name))
    try:
        path.parent.mkdir(exist_ok=True)
        written(tmp_path / "plain.avi", PLAIN).rename(path)
    except OSError:
        pytest.skip("this file system does not take such a name")
    images, _, fault = read(path)
    assert len(images) == 6
    assert fault == ""


# --- ends -------------------------------------------------------------------------------------------------


def promising(path: Path, frames: int) -> Path:
    """The header of an AVI says another number of frames, as that of a recorder does which drops some."""
    data = bytearray(path.read_bytes())
    for name, offset in ((b"avih", 16), (b"strh", 32)):
        at = data.index(name) + 8 + offset
        data[at : at + 4] = struct.pack("<I", frames)
    path.write_bytes(data)
    return path


def test_fewer_frames_than_the_header_promises_are_no_damage(tmp_path):
    path = promising(written(tmp_path / "a.avi", PLAIN), 300)
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) == 300
    images, _, fault = read(path)
    assert len(images) == 6
    assert fault == ""


def test_a_file_that_breaks_off_is_told(tmp_path):
    whole = promising(written(tmp_path / "a.avi", PLAIN * 10), 60).read_bytes()
    (tmp_path / "a.avi").write_bytes(whole[: len(whole) // 2])
    assert "of 60 frames: the file is cut off" in read(tmp_path / "a.avi")[2]
    (tmp_path / "a.avi").write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
    assert "of 60 frames: the file is cut off" in read(tmp_path / "a.avi")[2]  # zeros: a broken off copy
    (tmp_path / "a.avi").write_bytes(whole[:-200])  # a piece of the index: all pictures are there
    assert read(tmp_path / "a.avi")[2] == ""


BODY = b"x" * 500
BOX = struct.pack(">I4s", 8, b"ftyp")
CONTAINERS = {
    "mp4": BOX + struct.pack(">I4s", 508, b"mdat") + BODY,
    "mp4, long": BOX + struct.pack(">I4sQ", 1, b"mdat", 516) + BODY,
    "avi, two parts": struct.pack("<4sI", b"RIFF", 16) + b"y" * 16 + struct.pack("<4sI", b"RIFF", 500) + BODY,
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_says_how_long_it_is(tmp_path, name):
    path = tmp_path / "a"
    path.write_bytes(CONTAINERS[name])
    assert not is_cut_off(path)
    path.write_bytes(CONTAINERS[name][:-10])
    assert is_cut_off(path)


def test_a_container_of_unknown_length_is_not_cut_off(tmp_path):
    for content in (BOX + struct.pack(">I4s", 0, b"mdat") + BODY, b"\x47" + BODY, b"\x1a\x45\xdf\xa3" + BODY):
        (tmp_path / "a").write_bytes(content)
        assert not is_cut_off(tmp_path / "a")


# --- interlaced -------------------------------------------------------------------------------------------


def test_combed_frames_are_deinterlaced_and_noted(tmp_path):
    images, notes, _ = read(written(tmp_path / "a.avi", COMBED))
    assert notes == [videos.DEINTERLACED] * 6
    for t, image in enumerate(images):
        edge = image[18:46, 8 * t : 8 * t + 12, 0].astype(int)  # around the left edge of the box, which is at 8 t + 4
        assert np.abs(np.diff(edge, axis=0)).max() < 40  # COMBED jumps by 190 from line to line
        assert edge[:, 6:].min() > 200  # the even lines' moment
        assert edge[:, :2].max() < 100


@pytest.mark.parametrize("every", [1, 5])
def test_what_is_flagged_as_interlaced_is_not_read_as_black(tmp_path, every):
    """OpenCV 4.13 and 5.0 return black or stale frames for these, as if they had been read."""
    (tmp_path / "a.m2v").write_bytes(base64.b64decode(FLAGGED))
    images, notes, _ = read(tmp_path / "a.m2v", every)
    assert notes == [videos.DEINTERLACED] * len(images)
    for t, image in zip(range(0, 6, every), images, strict=True):
        red = image[20:44, :, 0] > 150
        assert red.mean(axis=0).round().tolist() == [float(4 + 8 * t <= x < 28 + 8 * t) for x in range(96)]


def stripes(period_px: int, shift_px: int = 0) -> np.ndarray:
    lines = ((np.arange(SIZE_HW[0]) + shift_px) * 2 // period_px % 2 * 120 + 60).astype(np.uint8)
    return np.repeat(np.repeat(lines[:, None, None], SIZE_HW[1], axis=1), 3, axis=2)


def noise(t: int) -> np.ndarray:
    return np.random.default_rng(t).integers(0, 256, (*SIZE_HW, 3), dtype=np.uint8)


PROGRESSIVE = {
    "fast motion": PLAIN,
    "a cut": [box(4), box(4), noise(0), noise(1), noise(1), box(60)],
    "noise": [noise(t) for t in range(6)],
    "a moving texture": [np.roll(noise(0), (2 * t, 3 * t), (0, 1)) for t in range(6)],
    "flashes": [np.full((*SIZE_HW, 3), value, np.uint8) for value in (20, 220, 30, 200, 20, 20)],
} | {
    f"stripes of {period} px that move by {shift}": [stripes(period, shift * t) for t in range(6)]
    for period in (2, 3, 4, 6, 8)
    for shift in (0, 1, 2, 3)
}


@pytest.mark.parametrize("name", PROGRESSIVE)
def test_stripes_motion_and_noise_are_not_taken_for_two_moments(tmp_path, name):
    made = PROGRESSIVE[name]
    assert not any(is_combed(frame, after) for frame, after in pairwise(made))
    images, notes, _ = read(written(tmp_path / "a.avi", made))
    assert notes == [""] * 6
    np.testing.assert_array_equal(images[0][..., ::-1], cv2.VideoCapture(str(tmp_path / "a.avi")).read()[1])


def test_an_interlaced_frame_without_motion_stays_as_it_is(tmp_path):
    images, notes, _ = read(written(tmp_path / "a.avi", [COMBED[0], COMBED[1], *[PLAIN[3]] * 4]))
    assert notes[0] == videos.DEINTERLACED
    assert notes[3:5] == ["", ""]
    assert np.abs(np.diff(images[3][4:12, :, 0].astype(int), axis=0)).min() > 60  # lines of one pixel are still there


@pytest.mark.parametrize("height", [3, 7, 8])
def test_deinterlacing_keeps_the_even_lines_and_the_size(height):
    frame = np.random.default_rng(0).integers(0, 256, (height, 5, 3), dtype=np.uint8)
    made = videos.deinterlaced(frame)
    assert made.shape == frame.shape
    np.testing.assert_array_equal(made[::2], frame[::2])
    assert np.abs(made[1] - (frame[0].astype(float) + frame[2]) / 2).max() <= 0.5
