import os
import subprocess
import sys

import numpy as np
import pytest
from test_reading import one_line, smooth, write

from lesionkit import datasets
from lesionkit.datasets import InvalidData, MissingData, UnknownDataset
from lesionkit.datasets import splits as splitting


def make_folder(root, count=6):
    for index in range(count):
        mask = np.zeros((40, 60), np.uint8)
        mask[10:20, 5 : 15 + index] = 255
        write(root / "images" / f"frame{index}.jpg", smooth(seed=index))
        write(root / "masks" / f"frame{index}.png", mask)
    return root


# --- names and places


@pytest.mark.parametrize("name", ["scenes", "folder:x", *datasets.NAMES])
def test_check_name_returns_what_is_allowed(name):
    assert datasets.check_name(name) == name


@pytest.mark.parametrize("name", ["kvasir", "folder:", "", "Kvasir-SEG"])
def test_check_name_names_the_allowed_ones(name):
    with pytest.raises(UnknownDataset) as error:
        datasets.check_name(name)
    assert all(allowed in one_line(error) for allowed in ("scenes", *datasets.NAMES, "folder:PATH"))


def test_data_root_is_absolute_and_follows_the_variable(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LESIONKIT_DATA", "some/where")
    assert datasets.data_root() == tmp_path / "some" / "where"
    monkeypatch.setenv("LESIONKIT_DATA", "~/data")
    assert datasets.data_root() == type(tmp_path).home() / "data"
    monkeypatch.delenv("LESIONKIT_DATA")
    assert datasets.data_root().name == "lesionkit"


def test_status_has_a_row_per_entry_and_sees_what_is_there(tmp_path):
    make_folder(tmp_path / "cvc-colondb")
    rows = {row["name"]: row for row in datasets.status(tmp_path)}
    assert tuple(rows) == (*datasets.NAMES, "polypgen-negative", *datasets.DEPTH_NAMES)
    assert rows["polypgen-negative"]["kind"] == "no lesions, no masks"
    assert [name for name in rows if rows[name]["present"]] == ["cvc-colondb"]
    assert {rows[name]["kind"] for name in datasets.NAMES} == {"masks"}
    assert {rows[name]["kind"] for name in datasets.DEPTH_NAMES} == {"depth, no masks"}


# --- the facts in facts/


@pytest.mark.parametrize("name", [name for name in datasets.NAMES if name != "polypgen-single"])
def test_registry_counts_are_those_of_the_checksums(name):
    official = splitting.official_files(name)
    assert len(official) == datasets.REGISTRY[name].images
    hashes = [digest for pair in official.values() for digest in pair]
    assert all(len(digest) == 32 and int(digest, 16) >= 0 for digest in hashes)


SIZES = {
    ("kvasir-seg", "pranet"): (900, 100),
    ("kvasir-seg", "medico2020"): (880, 120),
    ("cvc-clinicdb", "pranet"): (550, 62),
    ("cvc-clinicdb", "sequence"): (492, 120),
    ("etis-laribpolypdb", "hash"): (138 + 29, 29),
    ("cvc-colondb", "hash"): (266 + 57, 57),
}


@pytest.mark.parametrize(("name", "split"), SIZES)
def test_no_name_is_in_two_parts_and_none_is_lost(name, split):
    official = splitting.official_files(name)
    parts = datasets.split_stems(name, split, official)
    every = [stem for part in datasets.PARTS for stem in parts[part]]
    assert len(every) == len(set(every))
    assert set(every) == set(official)
    assert (len(parts["train"]) + len(parts["validation"]), len(parts["test"])) == SIZES[name, split]


@pytest.mark.parametrize(("name", "split"), [key for key in SIZES if key[1] != "hash"])
def test_validation_is_about_a_tenth_of_the_training_part(name, split):
    parts = datasets.split_stems(name, split)
    share = len(parts["validation"]) / (len(parts["train"]) + len(parts["validation"]))
    assert 0.08 <= share <= 0.1001


@pytest.mark.parametrize("split", ["pranet", "sequence"])
def test_no_video_sequence_is_in_train_and_validation(split):
    sequence = splitting.groups_of("cvc-clinicdb")
    parts = datasets.split_stems("cvc-clinicdb", split)
    train, validation = ({sequence[stem] for stem in parts[part]} for part in ("train", "validation"))
    assert validation
    assert not train & validation


def test_the_sequence_split_keeps_whole_sequences_out_and_pranet_does_not():
    sequence = splitting.groups_of("cvc-clinicdb")
    honest, usual = (datasets.split_stems("cvc-clinicdb", split) for split in ("sequence", "pranet"))
    assert {sequence[stem] for stem in honest["test"]} == {"3", "8", "13", "18", "23", "28"}
    assert not {sequence[s] for s in honest["test"]} & {sequence[s] for s in honest["train"]}
    rest = {sequence[stem] for stem in usual["train"] + usual["validation"]}
    assert len({sequence[stem] for stem in usual["test"]} & rest) == 26


@pytest.mark.parametrize("split", ["pranet", "medico2020"])
def test_near_duplicates_stay_on_one_side(split):
    parts = datasets.split_stems("kvasir-seg", split)
    side = {stem: part for part, stems in parts.items() for stem in stems}
    groups = splitting.groups_of("kvasir-seg")
    assert len(groups) == 8
    assert all(side[stem] == side[first] for stem, first in groups.items())


def test_a_group_goes_into_the_tenth_as_a_whole():
    stems = [str(number) for number in range(100)]
    groups = {stem: f"group{int(stem) // 4}" for stem in stems}
    tenth = splitting.tenth(stems, groups)
    assert len(tenth) == 8  # two groups of four fit into ten, a third does not
    assert len({groups[stem] for stem in tenth}) == 2


def test_91_of_the_medico_training_images_are_in_the_pranet_test_part():
    medico = datasets.split_stems("kvasir-seg", "medico2020")
    pranet = datasets.split_stems("kvasir-seg", "pranet")
    assert len(set(medico["train"] + medico["validation"]) & set(pranet["test"])) == 91


def test_splits_do_not_depend_on_the_hash_seed_of_the_process():
    code = "from lesionkit import datasets as d; print(d.split_stems('kvasir-seg')['validation'])"
    code += "; print(d.split_stems('folder:x', None, map(str, range(40))))"
    told = {
        subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed},
                       capture_output=True, text=True, check=True).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(told) == 1


# --- opening


def test_open_folder_pairs_by_stem_and_ignores_hidden_files(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "images" / "frame0.jpg").rename(tmp_path / "images" / "frame0.JPG")
    for junk in ("._frame0.jpg", ".DS_Store", "Thumbs.db"):
        (tmp_path / "images" / junk).write_bytes(b"junk")
    dataset = datasets.open_dataset(f"folder:{tmp_path}")
    assert [sample.name for sample in dataset.samples] == [f"frame{index}" for index in range(6)]
    assert all(sample.image.stem == sample.mask.stem == sample.name for sample in dataset.samples)
    assert dataset.samples[0].image.name == "frame0.JPG"


def test_registry_data_lie_under_the_root(tmp_path, monkeypatch):
    make_folder(tmp_path / "cvc-colondb")
    monkeypatch.setenv("LESIONKIT_DATA", str(tmp_path))
    assert datasets.open_dataset("cvc-colondb").samples[0].image.parent == tmp_path / "cvc-colondb" / "images"


def test_missing_registry_data_says_fetch(tmp_path):
    with pytest.raises(MissingData, match="lesionkit fetch kvasir-seg` or set LESIONKIT_DATA") as error:
        datasets.open_dataset("kvasir-seg", tmp_path)
    one_line(error)


def test_missing_folder_says_what_it_must_hold(tmp_path):
    with pytest.raises(MissingData, match="must hold images/ and masks/"):
        datasets.open_dataset(f"folder:{tmp_path / 'nowhere'}")


def test_scenes_have_no_files():
    with pytest.raises(UnknownDataset, match="'scenes' is no data set with files: choose one of kvasir-seg"):
        datasets.open_dataset("scenes")


def test_image_without_mask_and_mask_without_image(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "masks" / "frame2.png").unlink()
    with pytest.raises(InvalidData, match=r"1 image\(s\) without a mask \(frame2\)"):
        datasets.open_dataset(f"folder:{tmp_path}")
    (tmp_path / "images" / "frame2.jpg").unlink()
    (tmp_path / "images" / "frame4.jpg").unlink()
    with pytest.raises(InvalidData, match=r"1 mask\(s\) without an image \(frame4\)"):
        datasets.open_dataset(f"folder:{tmp_path}")


def test_only_the_first_offenders_are_named(tmp_path):
    make_folder(tmp_path)
    for index in range(5):
        (tmp_path / "masks" / f"frame{index}.png").unlink()
    with pytest.raises(InvalidData, match=r"5 image\(s\) .*\(frame0, frame1, frame2 and 2 more\)"):
        datasets.open_dataset(f"folder:{tmp_path}")


def test_two_images_with_one_stem(tmp_path):
    make_folder(tmp_path)
    write(tmp_path / "images" / "frame1.png", smooth())
    with pytest.raises(InvalidData, match=r"frame1\.jpg and frame1\.png"):
        datasets.open_dataset(f"folder:{tmp_path}")


def test_empty_folder(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    with pytest.raises(InvalidData, match="holds no image"):
        datasets.open_dataset(f"folder:{tmp_path}")


# --- parts


@pytest.mark.parametrize(("count", "sizes"), [(3, (1, 1, 1)), (7, (5, 1, 1)), (20, (14, 3, 3))])
def test_a_folder_is_dealt_out_70_15_15(tmp_path, count, sizes):
    dataset = datasets.open_dataset(f"folder:{make_folder(tmp_path, count)}")
    parts = [dataset.part(part) for part in datasets.PARTS]
    assert tuple(map(len, parts)) == sizes
    assert {sample for part in parts for sample in part} == set(dataset.samples)


def test_two_samples_are_too_few(tmp_path):
    dataset = datasets.open_dataset(f"folder:{make_folder(tmp_path, 2)}")
    with pytest.raises(InvalidData, match="2 image"):
        dataset.part("train")


def test_unknown_part_and_split_name_the_allowed_ones(tmp_path):
    dataset = datasets.open_dataset(f"folder:{make_folder(tmp_path)}")
    with pytest.raises(InvalidData, match="train, validation, test"):
        dataset.part("val")
    with pytest.raises(InvalidData, match="choose one of hash"):
        dataset.part("train", "pranet")
    with pytest.raises(InvalidData, match="choose one of pranet, medico2020"):
        datasets.split_stems("kvasir-seg", "sequence")


def test_a_published_split_does_not_shrink_silently(tmp_path):
    make_folder(tmp_path / "kvasir-seg")
    with pytest.raises(InvalidData, match="lacks 100 of the 100 test images"):
        datasets.open_dataset("kvasir-seg", tmp_path).part("test")


# --- reading


def test_mask_of_another_size(tmp_path):
    image = write(tmp_path / "i.png", smooth(20, 20))
    mask = write(tmp_path / "m.png", np.zeros((10, 12), np.uint8))
    with pytest.raises(InvalidData, match="is 12×10 but its image is 20×20") as error:
        datasets.read_sample(datasets.Sample("i", image, mask))
    one_line(error)


# --- real data


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "count"), [("kvasir-seg", 1000), ("cvc-clinicdb", 612)])
def test_real_counts_and_parts(real, name, count):
    dataset = datasets.open_dataset(name)
    assert len(dataset.samples) == count
    for split in datasets.splits_of(name):
        parts = [dataset.part(part, split) for part in datasets.PARTS]
        assert sum(map(len, parts)) == len({sample for part in parts for sample in part}) == count


@pytest.mark.realdata
def test_real_images_show_a_lesion(real):
    samples = datasets.open_dataset("kvasir-seg").part("validation")[:8]
    images, masks = zip(*map(datasets.read_sample, samples), strict=True)
    colours = np.mean([image.mean(axis=(0, 1)) for image in images], axis=0) / 255
    assert 0.1 < colours.mean() < 0.7
    assert colours[0] > 1.3 * colours[2]  # mucosa is red: a swap of channels would show
    assert all(mask.any() for mask in masks)


# --- sets of which some images, or all, show no lesion


def test_images_without_masks_come_in_the_order_of_their_numbers(tmp_path):
    for name in ("seq2_img10.jpg", "seq2_img9.jpg", "seq11_img1.jpg", ".hidden.jpg", "notes.txt"):
        write(tmp_path / "polypgen-negative" / "images" / name, smooth()) if name.endswith("jpg") else None
    found = datasets.open_images("polypgen-negative", tmp_path)
    assert [path.name for path in found] == ["seq2_img9.jpg", "seq2_img10.jpg", "seq11_img1.jpg"]
    report = datasets.verify("polypgen-negative", tmp_path)
    assert report.ok
    assert report.notes == ("3 of the 4275 frames of PolypGen, lesion-free sequences are here",)
    found[0].write_bytes(b"no image")
    assert "1 of 3" in datasets.verify("polypgen-negative", tmp_path).problems[0]


def test_a_set_without_a_list_of_its_files_may_be_there_in_part_and_show_no_lesion(tmp_path):
    folder = make_folder(tmp_path / "polypgen-single")
    write(folder / "masks" / "frame0.png", np.zeros((40, 60), np.uint8))
    report = datasets.verify("polypgen-single", tmp_path)
    assert report.ok
    assert "6 of the 1537 frames of PolypGen, single frames are here" in report.notes
    with pytest.raises(MissingData, match="does not exist"):
        datasets.open_images("polypgen-negative", tmp_path)
