"""Which images the recipe learns from and is measured on, and how they are packed for another machine."""

import cv2
import numpy as np
import pack
import pytest
import splits
import torch
from click.testing import CliRunner

from lesionkit import datasets, frames


def write(path, value=120, size=(48, 64)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(value).integers(value // 2, value, (*size, 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), pixels)


@pytest.fixture
def sequences(tmp_path, monkeypatch):
    monkeypatch.setenv("LESIONKIT_DATA", str(tmp_path))
    for name in range(1, 12):
        for frame in (1, 2, 10):
            write(tmp_path / "polypgen-negative" / "images" / f"seq{name}_img{frame}.jpg")
    return tmp_path


def test_lesion_free_sequences_are_dealt_out_whole(sequences):
    dealt = {part: splits.free_sequences(part) for part in ("train", "threshold", "test")}
    assert [len(names) for names in dealt.values()] == [6, 2, 3]
    assert len({name for names in dealt.values() for name in names}) == 11
    for names in dealt.values():
        for name, paths in names.items():
            assert [path.stem for path in paths] == [f"{name}_img{n}" for n in (1, 2, 10)]


def test_images_from_elsewhere_are_told_apart_by_their_names(tmp_path, monkeypatch):
    monkeypatch.setenv("LESIONKIT_DATA", str(tmp_path))
    for name in ("C1_a", "C6_a", "C6_b"):
        write(tmp_path / "polypgen-single" / "images" / f"{name}.jpg")
        write(tmp_path / "polypgen-single" / "masks" / f"{name}.png")
    found = splits.samples_of("test", "elsewhere")
    assert {label: len(samples) for label, samples in found.items()} == {
        "PolypGen C1": 1, "PolypGen C2": 0, "PolypGen C4": 0, "PolypGen C6": 2,
    }  # fmt: skip
    with pytest.raises(datasets.InvalidData, match="no train part"):
        splits.samples_of("train", "elsewhere")


def test_packed_images_are_the_frames_that_are_trained_on(sequences, tmp_path, monkeypatch):
    image, mask = tmp_path / "one.png", tmp_path / "mask.png"
    pixels = cv2.resize(np.random.default_rng(0).integers(60, 220, (6, 8, 3), dtype=np.uint8), (160, 120))
    cv2.imwrite(str(image), pixels)
    cv2.imwrite(str(mask), (np.hypot(*np.mgrid[-60:60, -80:80]) < 25).astype(np.uint8) * 255)
    one = datasets.Sample("one", image, mask)
    monkeypatch.setattr(pack, "samples_of", lambda part, split: {"kvasir-seg": (one,) if part == "train" else ()})
    told = CliRunner().invoke(pack.main, [str(tmp_path / "packed"), "--size-px", "96", "--quality", "95"])
    assert told.exit_code == 0, told.output
    monkeypatch.setenv("LESIONKIT_DATA", str(tmp_path / "packed"))
    there, here = (frames.real_frames(samples, 96) for samples in (datasets.open_dataset("kvasir-seg").samples, [one]))
    assert torch.equal(there.mask, here.mask)
    assert (there.image - here.image).abs().mean() < 0.02
    assert len(splits.free_sequences("test")) == 3
    assert not (tmp_path / "packed" / "polypgen-negative" / "masks").exists()
