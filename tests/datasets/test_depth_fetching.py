import shutil
import zipfile

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from lesionkit import cli, datasets
from lesionkit.datasets import InvalidData, MissingData


def encoded(suffix, pixels):
    return cv2.imencode(suffix, pixels)[1].tobytes()


def frame(size_wh=(475, 475)):
    width, height = size_wh
    image = np.full((height, width, 3), 90, np.uint8)
    depth = np.linspace(2_000, 40_000, height * width).reshape(height, width).astype(np.uint16)
    return image, depth


def simcol(folder, count=2):
    image, depth = frame()
    return {
        f"{folder}{kind}_{n:04d}.png": encoded(".png", pixels)
        for n in range(count)
        for kind, pixels in (("FrameBuffer", image), ("Depth", depth))
    }


def zipped(path, tree):
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in tree.items():
            archive.writestr(member, data)
    return str(path)


def put(root, tree):
    for path, data in tree.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)


# --- fetch


def test_without_an_address_it_says_where_to_go(tmp_path):
    for name in datasets.DEPTH_NAMES:
        with pytest.raises(MissingData) as error:
            datasets.fetch(name, tmp_path)
        text = str(error.value)
        assert datasets.REGISTRY[name].homepage in text
        assert str(tmp_path / name) in text
        assert "\n" not in text
    assert list(tmp_path.iterdir()) == []


def test_an_archive_is_not_unpacked_and_what_is_there_is_verified(tmp_path):
    archive = zipped(tmp_path / "I.zip", simcol("SyntheticColon_I/Frames_S1/"))
    with pytest.raises(MissingData, match="names and folders unchanged, then `lesionkit verify simcol3d`"):
        datasets.fetch("simcol3d", tmp_path / "root", archive)
    put(tmp_path / "root" / "simcol3d", simcol("SyntheticColon_I/Frames_S1/"))
    assert datasets.fetch("simcol3d", tmp_path / "root") == tmp_path / "root" / "simcol3d"
    (tmp_path / "root" / "simcol3d" / "SyntheticColon_I" / "Frames_S1" / "Depth_0001.png").unlink()
    with pytest.raises(InvalidData, match="without depth"):
        datasets.fetch("simcol3d", tmp_path / "root")


# --- verify


def test_a_part_is_sound_with_a_note(tmp_path):
    put(tmp_path / "simcol3d", simcol("SyntheticColon_III/Frames_O1/"))
    report = datasets.verify("simcol3d", tmp_path)
    assert report == datasets.Report(True, (), ("2 of the 37833 frames of SimCol3D are here",), 2)


def test_frames_of_another_size_are_not_the_authors(tmp_path):
    image, depth = frame((135, 108))
    put(tmp_path / "c3vd" / "a", {"0000_color.png": encoded(".png", image), "0000_depth.tiff": encoded(".tiff", depth)})
    report = datasets.verify("c3vd", tmp_path)
    assert not report.ok
    assert report.problems[0] == "1 of 1 pairs (a/0000) are not of the size of this data set: fetch the original files"


def test_a_whole_c3vd_frame_is_sound_and_a_cut_off_one_is_not(tmp_path):
    image, depth = frame((1350, 1080))
    tree = {"7_color.png": encoded(".png", image), "0007_depth.tiff": encoded(".tiff", depth)}
    put(tmp_path / "c3vd" / "a", tree)
    assert datasets.verify("c3vd", tmp_path).ok
    put(tmp_path / "c3vd" / "a", {"7_color.png": tree["7_color.png"][:-50]})
    assert "cut off" in datasets.verify("c3vd", tmp_path).problems[0]


# --- the command line


def test_the_commands_know_the_sets(tmp_path, monkeypatch):
    monkeypatch.setenv("LESIONKIT_DATA", str(tmp_path / "root"))
    call = lambda *arguments: CliRunner().invoke(cli.main, [*arguments])  # noqa: E731
    missing = call("fetch", "simcol3d")
    assert (missing.exit_code, missing.stderr.count("\n")) == (1, 1)
    assert "https://rdr.ucl.ac.uk" in missing.stderr
    assert call("verify", "c3vd").exit_code == 1
    put(tmp_path / "root" / "simcol3d", simcol("Frames_S1/"))
    fetched = call("fetch", "simcol3d")
    assert fetched.stdout == f"simcol3d is in {tmp_path / 'root' / 'simcol3d'}\n"
    assert call("verify", "simcol3d").stdout.endswith("simcol3d: 2 images, sound\n")
    refused = call("run", "--dataset", "simcol3d", "--out", str(tmp_path / "out"))
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    assert "no data set with lesion masks" in refused.stderr
    assert not (tmp_path / "out").exists()


# --- real data


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["simcol3d-sample10", "uts-simcolon-subset40"])
def test_the_samples_are_sound_and_complete(real, name):
    expected = datasets.REGISTRY[name].images
    assert datasets.verify(name) == datasets.Report(True, (), (), expected)
    assert datasets.fetch(name) == real / name


@pytest.mark.realdata
def test_a_sample_re_encoded_to_8_bits_is_not_sound(real, tmp_path):
    shutil.copytree(real / "simcol3d-sample10", tmp_path / "simcol3d-sample10", copy_function=shutil.copyfile)
    for folder in (tmp_path / "simcol3d-sample10", tmp_path / "simcol3d-sample10" / "depth"):
        folder.chmod(0o755)  # the originals may be read-only
    path = tmp_path / "simcol3d-sample10" / "depth" / "Depth_0004.png"
    path.write_bytes(encoded(".png", (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) >> 8).astype(np.uint8)))
    (problem,) = datasets.verify("simcol3d-sample10", tmp_path).problems
    assert "1 of 10 pairs (0004) are not sound" in problem
    assert "uint8 values" in problem
