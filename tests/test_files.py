"""Files that another program holds open, as on Windows, are tried again and never lost."""

import os

import pytest

from lesionkit import files


@pytest.fixture
def held_open(monkeypatch):
    """held_open(n): the next n replacements are refused, as Windows does with a file that is open elsewhere."""
    monkeypatch.setattr(files, "WAITS_S", (0.001,) * 3)
    replace, left = os.replace, [0]

    def refusing(source, target):
        if left[0] > 0:
            left[0] -= 1
            raise PermissionError(13, "The process cannot access the file", str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", refusing)
    return lambda count: left.__setitem__(0, count)


def test_a_file_that_is_held_for_a_moment_is_tried_again(tmp_path, held_open, capsys):
    path = tmp_path / "a.json"
    path.write_text("old")
    held_open(2)
    assert files.write_bytes(path, b"new") == path
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.json"]
    assert capsys.readouterr().err == ""


def test_what_may_not_replace_is_put_beside_with_one_line(tmp_path, held_open, capsys):
    path = tmp_path / "detections.json"
    path.write_text("old")
    held_open(1000)
    for content in (b"new", b"newer"):
        assert files.write_bytes(path, content) == tmp_path / "detections.new.json"
    assert path.read_text() == "old"
    assert (tmp_path / "detections.new.json").read_bytes() == b"newer"
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all("detections.new.json" in line for line in lines)


@pytest.mark.skipif(os.name == "nt", reason="Windows says of it what it says of an open file")
def test_a_folder_in_the_way_is_an_error(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError):
        files.write_bytes(tmp_path / "a", b"new")
    assert os.listdir(tmp_path) == ["a"]
