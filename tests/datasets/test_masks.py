"""What the values of a mask file mean: one lesion, drawn as people's programs draw it, is read as the same."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image
from test_reading import one_line

from lesionkit.datasets import InvalidData, reading

LESION = np.zeros((60, 80), bool)
LESION[20:40, 30:55] = True
DRAWN = LESION.astype(np.uint8)
HALVES = np.where(np.arange(80) < 42, DRAWN, 2 * DRAWN)  # two classes


def saved(tmp_path, picture, suffix=".png", **options):
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    picture.save(tmp_path / f"m{suffix}", **options)
    return tmp_path / f"m{suffix}"


def layer(colour, alpha=255 * DRAWN):
    """One colour everywhere, and the lesion in the alpha channel."""
    return np.dstack([np.full_like(DRAWN, value) for value in colour] + [alpha])


def indexed(values, *colours):
    picture = Image.fromarray(values, "L")
    picture.putpalette([level for colour in colours for level in colour])
    return picture


VOC = ([0, 0, 0], [128, 0, 0], [0, 128, 0])
PAINTED = np.dstack([200 * DRAWN, 0 * DRAWN, 0 * DRAWN, 255 * DRAWN])
HIDDEN = np.dstack([np.full_like(DRAWN, 255), 40 * DRAWN, 40 * DRAWN, 255 * DRAWN])  # white where nobody sees it
CORNERS = np.dstack([255 * DRAWN] * 3 + [255 * (np.add.outer(np.arange(60), np.arange(80)) > 30).astype(np.uint8)])
BORDER = np.where(HALVES == 2, 255, DRAWN).astype(np.uint8)
KINDS = {
    "black and white": 255 * DRAWN,
    "zeros and ones": DRAWN,
    "white layer": layer([255, 255, 255]),
    "black layer": layer([0, 0, 0]),
    "red layer": layer([255, 0, 0]),
    "faint layer": layer([255, 255, 255], alpha=100 * DRAWN),
    "grey layer": Image.fromarray(np.dstack([np.full_like(DRAWN, 255), 255 * DRAWN]), "LA"),
    "red paint on nothing": PAINTED,
    "paint on hidden white": HIDDEN,
    "black and white with clear corners": CORNERS,
    "an alpha channel that nobody wrote": np.dstack([255 * DRAWN] * 3 + [0 * DRAWN]),
    "opaque": np.dstack([255 * DRAWN] * 3 + [np.full_like(DRAWN, 255)]),
    "palette": indexed(DRAWN, *VOC),
    "dark palette": indexed(8 * DRAWN, *([[0, 0, 0]] * 8), [64, 0, 0]),
    "palette of two classes": indexed(HALVES, *VOC),
    "palette with white as background": indexed(DRAWN, [255, 255, 255], [200, 0, 0]),
    "palette with the border of VOC": indexed(BORDER, *(VOC * 85), [224] * 3),
    "greys in a palette": indexed(1 - DRAWN, [255, 255, 255], [0, 0, 0]),
    "greys as their own palette": Image.fromarray(255 * DRAWN).convert("P"),
    "two classes": HALVES,
    "classes and void": BORDER,
    "classes as greys": np.where(HALVES == 2, 255, 85 * DRAWN).astype(np.uint8),
    "classes in colours": np.dstack([64 * DRAWN, 128 * (HALVES == 2).astype(np.uint8), 0 * DRAWN]),
    "instances": np.where(LESION, 1 + np.arange(80) // 5, 0).astype(np.uint8),
    "a thousand instances": np.where(LESION, 1000 - np.arange(80) // 5, 0).astype(np.uint16),
    "16 bits": 65535 * DRAWN.astype(np.uint16),
    "12 bits": 4095 * DRAWN.astype(np.uint16),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_the_lesion_is_read_however_it_is_drawn(tmp_path, kind):
    np.testing.assert_array_equal(reading.read_mask(saved(tmp_path, KINDS[kind])), LESION)


@pytest.mark.parametrize("suffix", [".tif", ".webp"])
def test_an_alpha_channel_in_other_formats(tmp_path, suffix):
    path = saved(tmp_path, layer([255, 255, 255]), suffix, lossless=True)
    np.testing.assert_array_equal(reading.read_mask(path), LESION)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_numbers_that_opencv_does_not_read(tmp_path, dtype):
    np.testing.assert_array_equal(reading.read_mask(saved(tmp_path, HALVES.astype(dtype), ".tif")), LESION)


def test_a_palette_with_transparency(tmp_path):
    clear_ground = saved(tmp_path, indexed(HALVES, *VOC), transparency=0)
    np.testing.assert_array_equal(reading.read_mask(clear_ground), LESION)
    lesion_first = saved(tmp_path, indexed(1 - DRAWN, [255, 0, 0], [0, 0, 0]), transparency=1)
    np.testing.assert_array_equal(reading.read_mask(lesion_first), LESION)


@pytest.mark.parametrize("quality", [5, 20, 40, 50, 75, 95])
@pytest.mark.parametrize("copy", [".jpg", ".png"])
def test_the_noise_of_a_jpeg_is_no_lesion(tmp_path, quality, copy):
    """The black of some qualities decodes to 1 or 2 all over, and a copy as PNG keeps what JPEG left."""
    mask = np.zeros((200, 240), np.uint8)
    cv2.circle(mask, (120, 90), 50, 255, -1)
    pixels = cv2.imdecode(cv2.imencode(".jpg", mask, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_GRAYSCALE)
    assert ((pixels > 0) & (pixels < 64)).any()
    path = saved(tmp_path, mask if copy == ".jpg" else pixels, copy, **({"quality": quality} if copy == ".jpg" else {}))
    np.testing.assert_array_equal(reading.read_mask(path), pixels > 127)


def test_a_dark_surround_that_shines_through_is_no_lesion(tmp_path):
    """As in CVC-ClinicDB: equal values of 11 over 6 % of the image, with a little noise around."""
    mask = 255 * DRAWN
    mask[:6] = np.random.default_rng(0).choice([9, 10, 11, 12, 13, 14], (6, 80), p=[0.01, 0.02, 0.9, 0.04, 0.02, 0.01])
    np.testing.assert_array_equal(reading.read_mask(saved(tmp_path, mask)), LESION)


def test_soft_edges_are_cut_in_the_middle(tmp_path):
    soft = cv2.GaussianBlur(255 * DRAWN, (0, 0), 3)
    np.testing.assert_array_equal(reading.read_mask(saved(tmp_path, soft)), soft > 127)


@pytest.mark.parametrize("level", [0, 2, 16])
def test_a_black_jpeg_shows_no_lesion(tmp_path, level):
    assert not reading.read_mask(saved(tmp_path, np.full((64, 64), level, np.uint8), ".jpg")).any()


def test_a_layer_without_paint_shows_no_lesion(tmp_path):
    assert not reading.read_mask(saved(tmp_path, layer([255, 255, 255], alpha=0 * DRAWN))).any()


def test_numbers_that_a_jpeg_made_uneven_are_refused(tmp_path):
    with pytest.raises(InvalidData, match=r"m\.jpg holds values up to \d+, neither .*: save it as a PNG") as error:
        reading.read_mask(saved(tmp_path, 40 * DRAWN, ".jpg"))
    one_line(error)
    noise = np.random.default_rng(0).integers(0, 100, (60, 80), dtype=np.uint8)
    with pytest.raises(InvalidData, match="neither black and white nor numbers"):
        reading.read_mask(saved(tmp_path, noise))


def test_a_mask_is_turned_as_its_own_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3
    for name in ("black and white", "white layer", "palette"):
        buffer = io.BytesIO()
        picture = KINDS[name] if isinstance(KINDS[name], Image.Image) else Image.fromarray(KINDS[name])
        picture.save(buffer, "PNG", exif=exif)
        (tmp_path / "m.png").write_bytes(buffer.getvalue())
        np.testing.assert_array_equal(reading.read_mask(tmp_path / "m.png"), LESION[::-1, ::-1], name)
