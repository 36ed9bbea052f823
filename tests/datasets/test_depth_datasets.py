import cv2
import numpy as np
import pytest

from lesionkit.datasets import (
    DEPTH_NAMES,
    DepthSample,
    InvalidData,
    MissingData,
    UnknownDataset,
    open_dataset,
    open_depth,
    read_depth_sample,
)
from lesionkit.runs import parameters

UTS = "uts-simcolon-subset40"
SUFFIX = {"simcol3d": ".png", "c3vd": ".tiff", UTS: ".png"}


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())
    return path


def ramp(height=6, width=8, top=60_000):
    return np.linspace(500, top, height * width).reshape(height, width).astype(np.uint16)


def sample(tmp_path, dataset, depth, size_hw=None):
    image = np.full((*(size_hw or depth.shape[:2]), 3), 90, np.uint8)
    return DepthSample(dataset, "0000", write(tmp_path / "i.png", image),
                       write(tmp_path / f"d{SUFFIX[dataset]}", depth))  # fmt: skip


def refused(tmp_path, dataset, depth, size_hw=None):
    """The one sentence that refuses a depth file; it names the file."""
    one = sample(tmp_path, dataset, depth, size_hw)
    with pytest.raises(InvalidData) as error:
        read_depth_sample(one)
    text = str(error.value)
    assert "\n" not in text
    assert str(one.depth) in text
    return text


# --- encodings: stored value -> depth, worked out by hand


def test_simcol3d_is_value_over_255_over_256_times_20_cm(tmp_path):
    stored = np.array([[0, 256, 13_056], [32_640, 65_280, 43_520]], np.uint16)
    _, depth, valid = read_depth_sample(sample(tmp_path, "simcol3d", stored))
    # 13056 / 255 / 256 = 0.2 of 20 cm = 4 cm; 32640 is half of 20 cm
    np.testing.assert_allclose(depth, [[0, 0.784_314, 40], [100, 200, 133.3333]], rtol=1e-6)
    assert valid.tolist() == [[False, True, True], [True, True, True]]
    assert depth.dtype == np.float32


def test_c3vd_is_65535_for_100_mm_and_its_ends_are_unknown(tmp_path):
    stored = np.array([[0, 6_553, 32_768], [65_534, 65_535, 13_107]], np.uint16)
    _, depth, valid = read_depth_sample(sample(tmp_path, "c3vd", stored))
    np.testing.assert_allclose(depth, [[0, 9.999_237, 50.000_763], [99.998_474, 0, 20]], rtol=1e-6)
    assert valid.tolist() == [[False, True, True], [True, False, True]]


def test_uts_is_relative_and_its_ends_are_depth(tmp_path):
    stored = np.array([[0, 51], [102, 255]], np.uint8)
    for pixels in (stored, np.dstack([stored] * 3)):
        _, depth, valid = read_depth_sample(sample(tmp_path, UTS, pixels))
        np.testing.assert_allclose(depth, [[0, 0.2], [0.4, 1]], rtol=1e-6)
        assert valid.all()


@pytest.mark.parametrize("factor", [256, 257])
def test_frames_of_16_bits_with_alpha_keep_their_colours(tmp_path, factor):
    levels = np.arange(48, dtype=np.uint16).reshape(6, 8) * 5
    bgra = np.dstack([levels * factor, levels[::-1] * factor, levels[:, ::-1] * factor, np.full_like(levels, 65_280)])
    one = sample(tmp_path, "simcol3d", ramp())
    write(one.image, bgra)
    image, _, _ = read_depth_sample(one)
    np.testing.assert_array_equal(image, np.dstack([levels[:, ::-1], levels[::-1], levels]))
    assert image.dtype == np.uint8


def test_a_big_endian_and_a_compressed_tiff_are_read_alike(tmp_path):
    from PIL import Image

    one = sample(tmp_path, "c3vd", ramp())
    _, expected, _ = read_depth_sample(one)
    Image.fromarray(ramp().astype(">u2")).save(one.depth)
    np.testing.assert_array_equal(read_depth_sample(one)[1], expected)
    Image.fromarray(ramp()).save(one.depth, compression="tiff_lzw")
    np.testing.assert_array_equal(read_depth_sample(one)[1], expected)


# --- wrong encodings


@pytest.mark.parametrize("dataset", ["simcol3d", "c3vd"])
def test_8_bits_where_16_are_meant(tmp_path, dataset):
    text = refused(tmp_path, dataset, (ramp() >> 8).astype(np.uint8))
    assert "holds uint8 values" in text
    assert "is one 16-bit integer channel where" in text


def test_16_bits_where_8_are_meant(tmp_path):
    assert "holds uint16 values" in refused(tmp_path, UTS, ramp())


@pytest.mark.parametrize("dataset", ["simcol3d", "c3vd"])
def test_an_8_bit_map_in_a_16_bit_file(tmp_path, dataset):
    assert "only values up to 234" in refused(tmp_path, dataset, ramp() >> 8)


@pytest.mark.parametrize("dataset", ["simcol3d", "c3vd", UTS])
def test_a_picture_of_depth_in_colours(tmp_path, dataset):
    coloured = cv2.applyColorMap((ramp() >> 8).astype(np.uint8), cv2.COLORMAP_JET)
    assert "channels that differ" in refused(tmp_path, dataset, coloured)


def test_three_different_channels_of_16_bits(tmp_path):
    assert "channels that differ" in refused(tmp_path, "c3vd", np.dstack([ramp(), ramp()[::-1], ramp()]))


def test_three_equal_channels_of_16_bits_are_one(tmp_path):
    _, expected, _ = read_depth_sample(sample(tmp_path / "one", "simcol3d", ramp()))
    _, depth, _ = read_depth_sample(sample(tmp_path / "three", "simcol3d", np.dstack([ramp()] * 3)))
    np.testing.assert_array_equal(depth, expected)


def test_floating_point_millimetres(tmp_path):
    assert "holds float32 values" in refused(tmp_path, "c3vd", ramp().astype(np.float32) / 655.35)


@pytest.mark.parametrize("dataset", ["simcol3d", "c3vd", UTS])
@pytest.mark.parametrize("value", [0, 90])
def test_one_value_everywhere(tmp_path, dataset, value):
    kind = np.uint8 if dataset == UTS else np.uint16
    assert f"the value {value} everywhere" in refused(tmp_path, dataset, np.full((6, 8), value, kind))


def test_depth_of_another_size_than_its_frame(tmp_path):
    assert "is 8×6 but its frame is 16×12" in refused(tmp_path, "simcol3d", ramp(), (12, 16))
    assert "is 8×6 but its frame is 6×8" in refused(tmp_path, "simcol3d", ramp(), (8, 6))  # transposed


@pytest.mark.parametrize("dataset", ["simcol3d", "c3vd"])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_a_depth_file_that_is_cut_off(tmp_path, capfd, dataset, keep):
    one = sample(tmp_path, dataset, ramp(60, 80))
    data = one.depth.read_bytes()
    one.depth.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(InvalidData, match=one.depth.name):
        read_depth_sample(one)
    assert capfd.readouterr().err == ""


def test_what_is_no_depth_file_or_not_there(tmp_path):
    one = sample(tmp_path, "simcol3d", ramp())
    one.depth.write_text("<html>please log in</html>")
    with pytest.raises(InvalidData, match="not an image"):
        read_depth_sample(one)
    one.depth.unlink()
    with pytest.raises(MissingData, match="does not exist"):
        read_depth_sample(one)


# --- layouts


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")


def test_simcol3d_as_the_authors_have_it(tmp_path):
    root = tmp_path / "simcol3d"
    for folder in ("SyntheticColon_I/Frames_S1", "SyntheticColon_I/Frames_S10", "SyntheticColon_II/Frames_B1"):
        touch(root / folder, *(f"{kind}_000{n}.png" for kind in ("FrameBuffer", "Depth") for n in (1, 0)))
    touch(root, "SyntheticColon_I/cam.txt", "misc/read_poses.py", "SyntheticColon_I/Frames_S1/._Depth_0000.png")
    samples = open_depth("simcol3d", tmp_path)
    assert [s.name for s in samples] == [
        f"{folder}/000{n}"
        for folder in ("SyntheticColon_I/Frames_S1", "SyntheticColon_I/Frames_S10", "SyntheticColon_II/Frames_B1")
        for n in (0, 1)
    ]
    for s in samples:
        assert s.image.parent == s.depth.parent
        assert s.image.name.removeprefix("FrameBuffer") == s.depth.name.removeprefix("Depth")


def test_c3vd_pairs_by_number_with_or_without_leading_zeros(tmp_path):
    touch(tmp_path / "c3vd" / "cecum_t1_a", *(f"{n}_color.png" for n in (2, 10)), "0002_depth.tiff", "0010_depth.tiff",
          "0002_normals.tiff", "0002_flow.tiff", "0002_occlusion.png", "pose.txt")  # fmt: skip
    touch(tmp_path / "c3vd" / "trans_t1_a", "0002_color.png", "0002_depth.tiff")
    samples = open_depth("c3vd", tmp_path)
    assert [s.name for s in samples] == ["cecum_t1_a/0002", "cecum_t1_a/0010", "trans_t1_a/0002"]
    assert [(s.image.name, s.depth.name) for s in samples[:2]] == [
        ("2_color.png", "0002_depth.tiff"), ("10_color.png", "0010_depth.tiff")
    ]  # fmt: skip


def test_the_samples_have_images_beside_depth(tmp_path):
    touch(tmp_path / "simcol3d-sample10", "images/FrameBuffer_0003.png", "depth/Depth_0003.png")
    (one,) = open_depth("simcol3d-sample10", tmp_path)
    assert (one.name, one.image.name, one.depth.name) == ("0003", "FrameBuffer_0003.png", "Depth_0003.png")
    touch(tmp_path / UTS, "images/cecum_00007.png", "depth/cecum_00007.png", "meta/cecum.json")
    (one,) = open_depth(UTS, tmp_path)
    assert one.name == "cecum_00007"
    assert (one.image.parent.name, one.depth.parent.name) == ("images", "depth")


def test_frames_and_depth_that_do_not_pair(tmp_path):
    touch(tmp_path / "c3vd" / "a", "0001_color.png", "0001_depth.tiff", "0002_color.png")
    with pytest.raises(InvalidData, match=r"1 frame\(s\) without depth \(a/0002\)"):
        open_depth("c3vd", tmp_path)
    touch(tmp_path / "c3vd" / "a", "0002_depth.tiff", "0003_depth.tiff")
    with pytest.raises(InvalidData, match=r"1 depth file\(s\) without a frame \(a/0003\)"):
        open_depth("c3vd", tmp_path)
    touch(tmp_path / "c3vd" / "a", "0003_color.png", "3_color.png")
    with pytest.raises(InvalidData, match=r"1 frame\(s\) twice \(0003_color.png and 3_color.png\)"):
        open_depth("c3vd", tmp_path)


def test_nothing_there(tmp_path):
    with pytest.raises(MissingData, match="lesionkit fetch c3vd"):
        open_depth("c3vd", tmp_path)
    touch(tmp_path / "c3vd", "readme.txt")
    with pytest.raises(InvalidData, match="holds no frame of c3vd"):
        open_depth("c3vd", tmp_path)


def test_unknown_names_are_told_the_known_ones(tmp_path):
    for name in ("simcol", "scenes", "kvasir-seg"):
        with pytest.raises(UnknownDataset) as error:
            open_depth(name, tmp_path)
        assert all(known in str(error.value) for known in DEPTH_NAMES)


def test_a_set_without_masks_is_not_opened_as_one_with_masks(tmp_path):
    for name in DEPTH_NAMES:
        with pytest.raises(UnknownDataset, match="kvasir-seg"):
            open_dataset(name, tmp_path)


def test_a_run_is_refused_because_there_are_no_masks(tmp_path, monkeypatch):
    monkeypatch.setenv("LESIONKIT_DATA", str(tmp_path))
    for name in DEPTH_NAMES:
        with pytest.raises(UnknownDataset, match="is no data set with lesion masks") as error:
            parameters.check_dataset(name)
        assert "\n" not in str(error.value)
        assert "kvasir-seg" in str(error.value)


# --- the two samples


def correlation(image, depth, valid):
    """Of depth with the largest colour channel, over the valid pixels."""
    return np.corrcoef(depth[valid], image.max(axis=2)[valid])[0, 1]


@pytest.mark.realdata
def test_the_sample_of_simcol3d_is_millimetres_of_a_colon(real):
    samples = open_depth("simcol3d-sample10")
    assert [s.name for s in samples] == [f"{n:04d}" for n in range(10)]
    for s in samples:
        image, depth, valid = read_depth_sample(s)
        assert image.shape == (475, 475, 3)
        assert depth.shape == valid.shape == (475, 475)
        assert valid.all()
        assert 2 < depth.min() < 20  # the wall beside the camera
        assert 80 < depth.max() < 200  # down the lumen
        assert image.max() > 240  # 16 bits were not read as 8
        assert correlation(image, depth, valid) < -0.7  # near is bright


@pytest.mark.realdata
def test_the_sample_of_uts_is_relative_and_near_is_bright(real):
    samples = open_depth(UTS)
    assert len(samples) == 40
    found = []
    for s in samples:
        image, depth, valid = read_depth_sample(s)
        assert image.shape == (240, 320, 3)
        assert valid.all()
        assert (depth.min(), depth.max()) == (0, 1)
        found.append(correlation(image, depth, valid))
    assert np.median(found) < -0.5
    assert np.mean(np.array(found) < 0) > 0.9  # three frames look along a lit wall
