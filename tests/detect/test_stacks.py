"""Image files of several frames: which they are, and that every frame comes as an image of its own would."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from lesionkit.detect import stacks
from lesionkit.detect.inputs import kind_of


def pictures(count: int = 3) -> list[np.ndarray]:
    """Smooth pictures, RGB, each brighter than the one before."""
    noise = np.random.default_rng(0).integers(0, 256, (24, 36, 3), dtype=np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3).astype(float)
    return [(smooth * (n + 1) / count).astype(np.uint8) for n in range(count)]


def saved(path: Path, images: list[np.ndarray], **options) -> Path:
    first, *others = map(Image.fromarray, images)
    first.save(path, save_all=True, append_images=others, **options)
    return path


def frames(path: Path, wanted=lambda number: True) -> dict[int, np.ndarray]:
    return {number: image for number, image, _ in stacks.frames(path, wanted)}


EXACT = {"tif": {}, "webp": {"lossless": True}, "png": {}}


@pytest.mark.parametrize("ending", EXACT)
def test_every_frame_is_there_in_its_own_colours(tmp_path, ending):
    made = pictures()
    path = saved(tmp_path / f"a.{ending}", made, **EXACT[ending])
    assert kind_of(path) == "stack"
    found = frames(path)
    assert list(found) == [0, 1, 2]
    for number, image in found.items():
        np.testing.assert_array_equal(image, made[number])
        assert image.flags.c_contiguous  # torch takes no other
    assert list(frames(path, lambda number: number == 2)) == [2]


def test_frames_of_a_gif_are_whole_pictures(tmp_path):
    """A GIF stores what changes; its frames come put together."""
    made = [np.full((20, 30, 3), 40, np.uint8) for _ in range(3)]
    for n, image in enumerate(made):
        image[5:9, 5 + 5 * n : 9 + 5 * n] = (200, 0, 0)
    found = frames(saved(tmp_path / "a.gif", made))
    assert len(found) == 3
    for number, image in found.items():
        np.testing.assert_array_equal(image, made[number])


@pytest.mark.parametrize("ending", ["tif", "gif", "webp", "png", "jpg"])
def test_a_file_of_one_picture_is_an_image(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(pictures(1)[0]).save(path)
    assert kind_of(path) == "image"


def test_the_second_picture_of_a_phones_jpeg_is_no_frame(tmp_path):
    """Phones put a preview or a brightness map behind the picture."""
    path = saved(tmp_path / "a.jpg", pictures(2), format="MPO")
    assert kind_of(path) == "image"


def test_the_frames_of_a_16_bit_stack_are_cut_alike(tmp_path):
    deep = [(image * 16.0).astype(np.uint16) for image in pictures()]  # 12 bits
    deep[0][:] = 100  # dark, and dark it shall stay
    cv2.imwritemulti(str(tmp_path / "a.tif"), [page[..., ::-1] for page in deep])
    for number, image in frames(tmp_path / "a.tif").items():
        np.testing.assert_array_equal(image, deep[number] >> 4)
    assert frames(tmp_path / "a.tif", lambda number: number == 0)[0].max() == 6  # the same when others are skipped


def test_pages_are_turned_as_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    found = frames(saved(tmp_path / "a.tif", pictures(2), exif=exif))
    assert [image.shape for image in found.values()] == [(36, 24, 3)] * 2


def test_a_page_that_is_cut_off_costs_no_other(tmp_path):
    path = saved(tmp_path / "a.tif", pictures())
    path.write_bytes(path.read_bytes()[:-100])
    found = frames(path)
    assert [number for number, image in found.items() if image is None] == [2]
    np.testing.assert_array_equal(found[1], pictures()[1])


def test_transparent_parts_of_a_frame_are_black(tmp_path):
    made = [np.dstack([image, np.full(image.shape[:2], 255, np.uint8)]) for image in pictures(2)]
    made[1][:10, :, 3] = 0
    found = frames(saved(tmp_path / "a.webp", made, lossless=True))
    assert not found[1][:10].any()
    np.testing.assert_array_equal(found[1][10:], made[1][10:, :, :3])
