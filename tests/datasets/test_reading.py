import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from lesionkit.datasets import InvalidData, MissingData, reading


def smooth(height=40, width=60, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 2)


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())
    return path


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_colours_come_as_rgb(tmp_path, suffix):
    bgr = smooth()
    image = reading.read_image(write(tmp_path / f"Bild-ä{suffix}", bgr))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, bgr[..., ::-1])


def test_grey_alpha_and_16_bit_become_8_bit_rgb(tmp_path):
    grey = smooth()[..., 0]
    np.testing.assert_array_equal(reading.read_image(write(tmp_path / "g.png", grey)), np.dstack([grey] * 3))
    rgba = np.dstack([smooth(), np.full((40, 60), 255, np.uint8)])
    rgba[:10, :, 3] = 0
    image = reading.read_image(write(tmp_path / "a.png", rgba))
    np.testing.assert_array_equal(image[10:], rgba[10:, :, 2::-1])
    assert not image[:10].any()  # transparent is black, as the surround of a frame
    wide = grey.astype(np.uint16) * 256 + 99
    np.testing.assert_array_equal(reading.read_image(write(tmp_path / "w.png", wide))[..., 1], grey)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".ppm"])
def test_what_16_bits_hold_is_cut_by_the_bits_in_use(tmp_path, bits, suffix):
    """Cameras store 8 to 14 bits in 16: cut by 16 of them, a picture would be black."""
    ramp = np.linspace(0, 1, 60)[None, :, None] * np.ones((40, 1, 3))
    image = reading.read_image(write(tmp_path / f"a{suffix}", (ramp * ((1 << bits) - 1)).astype(np.uint16)))
    assert image.dtype == np.uint8
    assert np.abs(image - ramp * 255).max() <= 1


def test_alpha_of_12_bits_in_16_is_no_less_opaque(tmp_path):
    rgba = np.full((10, 20, 4), 4095, np.uint16)
    rgba[:5, :, 3] = 0
    image = reading.read_image(write(tmp_path / "a.png", rgba))
    assert not image[:5].any()
    assert (image[5:] == 255).all()


def test_16_bits_of_one_picture_may_be_cut_like_those_of_others():
    dark = np.full((2, 2, 3), 100, np.uint16)
    assert reading.eight_bits(dark).max() == 100
    assert reading.eight_bits(dark, brightest=4000).max() == 6
    assert reading.eight_bits(np.full((2, 2), 4100, np.uint16)).max() == 255  # 12 bits, and what JPEG 2000 adds


def with_exif(jpeg, orientation):
    """A JPEG with an EXIF segment that holds the orientation and, as a trap, the end mark of a thumbnail."""
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    body = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 1) + entry + struct.pack(">I", 0) + b"\xff\xd8\xff\xd9"
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def test_exif_orientation_is_applied(tmp_path):
    plain = write(tmp_path / "plain.jpg", smooth())
    turned = tmp_path / "turned.jpg"
    turned.write_bytes(with_exif(plain.read_bytes(), 6))  # 6: turn by 90° clockwise to see it upright
    np.testing.assert_array_equal(reading.read_image(turned), np.rot90(reading.read_image(plain), -1))


def test_a_damaged_exif_block_turns_nothing_and_stops_nothing(tmp_path):
    plain = write(tmp_path / "plain.png", smooth())
    data, broken = plain.read_bytes(), b"this is no TIFF block"
    chunk = len(broken).to_bytes(4, "big") + b"eXIf" + broken + zlib.crc32(b"eXIf" + broken).to_bytes(4, "big")
    (tmp_path / "odd.png").write_bytes(data[:33] + chunk + data[33:])  # after the header
    image = reading.read_image(tmp_path / "odd.png")
    np.testing.assert_array_equal(image, reading.read_image(plain))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif"])
@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.9, 0.997])
def test_cut_off_files_are_refused_quietly(tmp_path, capfd, suffix, keep):
    path = write(tmp_path / f"x{suffix}", smooth())
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(InvalidData, match=f"x{suffix}") as error:
        reading.read_image(path)
    one_line(error)
    assert capfd.readouterr().err == ""


def test_a_cut_off_jpeg_with_a_thumbnail_is_refused(tmp_path):
    path = write(tmp_path / "x.jpg", smooth(200, 300))
    data = with_exif(path.read_bytes(), 1)
    path.write_bytes(data)
    assert reading.read_image(path).shape == (200, 300, 3)
    path.write_bytes(data[: len(data) * 3 // 4])
    with pytest.raises(InvalidData, match="cut off"):
        reading.read_image(path)


OPTIONS = [[], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]]


@pytest.mark.parametrize("options", OPTIONS)
def test_trailing_bytes_restart_marks_and_progressive_files_are_accepted(tmp_path, options):
    path = tmp_path / "x.jpg"
    path.write_bytes(cv2.imencode(".jpg", smooth(), options)[1].tobytes() + b"\0\0trailing\xff")
    assert reading.read_image(path).shape == (40, 60, 3)
    path = write(tmp_path / "x.png", smooth())
    path.write_bytes(path.read_bytes() + b"trailing")
    assert reading.read_image(path).shape == (40, 60, 3)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("keep", [0.5, 0.9, 0.99])
def test_a_jpeg_that_ends_before_its_last_pixel_is_told(options, keep):
    """OpenCV 4 fills the rest with grey and says nothing."""
    data = cv2.imencode(".jpg", smooth(200, 300), options)[1].tobytes()
    assert not reading.is_cut_off(data)
    assert reading.is_cut_off(data[: int(keep * len(data))])


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("missing", [1, 2])
def test_a_jpeg_without_its_end_mark_is_no_damaged_file(tmp_path, options, missing):
    data = cv2.imencode(".jpg", smooth(200, 300), options)[1].tobytes()
    (tmp_path / "x.jpg").write_bytes(data)
    whole = reading.read_image(tmp_path / "x.jpg")
    (tmp_path / "x.jpg").write_bytes(data[:-missing])
    np.testing.assert_array_equal(reading.read_image(tmp_path / "x.jpg"), whole)
    (tmp_path / "x.jpg").write_bytes(data[:-missing] + b"\0" * 4)
    np.testing.assert_array_equal(reading.read_image(tmp_path / "x.jpg"), whole)
    assert all(reading.is_cut_off(data[: -missing - more]) for more in range(3, 250))


def test_a_jpeg_that_ends_between_two_restart_marks_is_cut_off():
    data = cv2.imencode(".jpg", smooth(200, 300), OPTIONS[2])[1].tobytes()
    marks = [at for at in range(len(data) - 1) if data[at] == 0xFF and 0xD0 <= data[at + 1] <= 0xD7]
    assert len(marks) > 20
    assert all(reading.is_cut_off(data[:at]) for at in marks[-9:])


def test_what_is_no_image_or_not_there(tmp_path):
    (tmp_path / "text.jpg").write_text("hello")
    with pytest.raises(InvalidData, match="not an image"):
        reading.read_image(tmp_path / "text.jpg")
    with pytest.raises(InvalidData, match="cannot be read"):
        reading.read_image(tmp_path)
    with pytest.raises(MissingData, match="does not exist"):
        reading.read_image(tmp_path / "nowhere.jpg")


def test_mask_threshold_is_above_127_of_the_brightest_channel(tmp_path):
    values = np.array([[0, 127, 128, 255]], np.uint8)
    expected = [[False, False, True, True]]
    colour = np.dstack([np.zeros_like(values), values, np.zeros_like(values)])
    wide = values.astype(np.uint16) * 257
    for name, pixels in (("grey", values), ("colour", colour), ("wide", wide)):
        mask = reading.read_mask(write(tmp_path / f"{name}.png", pixels))
        assert mask.dtype == bool
        assert mask.tolist() == expected


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_mask_of_zeros_and_ones(tmp_path, dtype):
    values = np.array([[0, 1], [1, 0]], dtype)
    assert reading.read_mask(write(tmp_path / "m.png", values)).tolist() == [[False, True], [True, False]]
    assert not reading.read_mask(write(tmp_path / "n.png", values * 0)).any()


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_images_are_read_upright(tmp_path, suffix):
    path = tmp_path / f"turned{suffix}"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(smooth()).save(path, exif=exif)
    assert reading.read_image(path).shape == (60, 40, 3)


def test_an_orientation_that_only_xmp_tells_turns_nothing(tmp_path):
    path = tmp_path / "xmp.jpg"
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    Image.fromarray(smooth()).save(path, xmp=xmp)
    assert reading.read_image(path).shape[1::-1] == (60, 40)
