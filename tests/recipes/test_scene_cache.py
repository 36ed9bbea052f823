"""Scenes kept on disk are the scenes that would be rendered, whoever else writes and whatever broke."""

import multiprocessing
from dataclasses import replace
from unittest import mock

import pytest
import scene_cache
import torch

from lesionkit.scenes import SceneConfig, SceneError, Scenes, render_scenes, stream_scenes
from lesionkit.scenes.render import CHUNK

CONFIG = SceneConfig.basic()


def collect(folder, n=5, **other) -> Scenes:
    given = {"size_px": 32, "seed": 3, "device": "cpu", "config": CONFIG} | other
    return Scenes.join(list(scene_cache.cached_scenes(n, folder=folder, **given)))


def assert_equal(found: Scenes, wanted: Scenes) -> None:
    for name in ("image", "depth", "mask", "instance", "intrinsics", "distortion"):
        assert torch.equal(getattr(found, name), getattr(wanted, name)), name
    assert found.lesions == wanted.lesions


def test_what_is_read_is_what_was_rendered(tmp_path):
    wanted = render_scenes(5, 32, 3, "cpu", CONFIG)
    assert_equal(collect(tmp_path), wanted)
    with mock.patch.object(scene_cache, "render_scenes", side_effect=AssertionError("rendered again")):
        assert_equal(collect(tmp_path), wanted)


def test_more_than_a_chunk(tmp_path):
    collect(tmp_path, 3)
    assert_equal(collect(tmp_path, CHUNK + 2), render_scenes(CHUNK + 2, 32, 3, "cpu", CONFIG))


@pytest.mark.parametrize(
    "other", [{"seed": 4}, {"size_px": 64}, {"config": replace(CONFIG, light=0.8)}], ids=["seed", "size", "config"]
)
def test_other_scenes_have_another_place(tmp_path, other):
    first, second = collect(tmp_path), collect(tmp_path, **other)
    assert len(list(tmp_path.iterdir())) == 2
    assert first.image.shape != second.image.shape or not torch.equal(first.image, second.image)


def test_another_renderer_has_another_place(tmp_path, monkeypatch):
    before = scene_cache.key(32, 0, "cpu", CONFIG)
    changed = tmp_path / "light.py"
    changed.write_text("# another light")
    sources = [changed if path.name == changed.name else path for path in scene_cache.RENDERER]
    monkeypatch.setattr(scene_cache, "RENDERER", sources)
    assert scene_cache.key(32, 0, "cpu", CONFIG) != before


def test_a_damaged_file_is_rendered_anew(tmp_path):
    wanted = collect(tmp_path)
    (path,) = tmp_path.glob("*/*.safetensors")
    path.write_bytes(path.read_bytes()[:1000])
    assert_equal(collect(tmp_path), wanted)
    assert path.stat().st_size > 1000


def test_a_kill_while_writing_leaves_nothing_to_be_read(tmp_path):
    killed = mock.patch("lesionkit.files.os.replace", side_effect=KeyboardInterrupt)
    with killed, pytest.raises(KeyboardInterrupt):
        collect(tmp_path)
    assert not list(tmp_path.glob("*/*.safetensors"))
    assert_equal(collect(tmp_path), render_scenes(5, 32, 3, "cpu", CONFIG))


def test_two_processes_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=collect, args=(tmp_path,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert_equal(collect(tmp_path), render_scenes(5, 32, 3, "cpu", CONFIG))
    assert not list(tmp_path.glob("*/.*"))


def test_errors(tmp_path):
    with pytest.raises(SceneError):
        collect(tmp_path, size_px=30)
    with pytest.raises(SceneError, match="at least one"):
        next(scene_cache.cached_scenes(0, 32, folder=tmp_path))
    assert next(stream_scenes(1, 32, device="cpu")).image.shape == (1, 3, 32, 32)
