"""Rendered scenes kept on disk, so that a training that begins again does not render again.

One safetensors file per chunk, named by its number, in a folder named by a key of all that decides how the scenes look:
configuration, size, seed, kind of device, and the renderer's own source code. A file is written beside its place and
moved there in one step: two processes may render the same chunk at a time, and a kill leaves no half of one.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import platformdirs
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from lesionkit import scenes
from lesionkit.devices import resolve
from lesionkit.files import write_bytes
from lesionkit.scenes.config import SceneConfig
from lesionkit.scenes.render import CHUNK, Lesion, Scenes, check_request, render_scenes

STORED = ("image", "depth", "instance", "intrinsics", "distortion")  # the mask follows from the instances
# what decides how a scene looks: when one of its files changes, scenes are rendered anew
RENDERER = sorted(Path(scenes.__file__).parent.glob("*.py"))


def cached_scenes(
    n: int,
    size_px: int = 128,
    seed: int = 0,
    device: str | torch.device = "auto",
    config: SceneConfig | None = None,
    folder: Path | None = None,
) -> Iterator[Scenes]:
    """As `stream_scenes`, read from `folder` (default: the user's cache) where the chunk is there already.

    A scene of 128 px takes 350 KB, one of 256 px 1.4 MB. A damaged file is rendered anew. Raises SceneError as
    `stream_scenes` does.
    """
    check_request(n, size_px)
    config, device = config or SceneConfig.standard(), resolve(str(device))
    place = (folder or default_folder()) / key(size_px, seed, device.type, config)
    for first in range(0, n, CHUNK):
        path = place / f"{first:07d}.safetensors"
        chunk = _read(path, device)
        if chunk is None:
            # whole chunks, also where fewer are asked for: the next run may ask for more
            chunk = render_scenes(CHUNK, size_px, seed, device, config, first)
            _write(path, chunk)
        yield chunk[: n - first]


def default_folder() -> Path:
    """Where scenes are kept when no folder is given; may be deleted at any time."""
    return platformdirs.user_cache_path("lesionkit") / "rendered"


def key(size_px: int, seed: int, device: str, config: SceneConfig) -> str:
    """16 hex digits of all that decides how scenes look, the renderer's own source included."""
    described = json.dumps([size_px, seed, device, asdict(config)], sort_keys=True)
    digest = hashlib.sha256(described.encode())
    for path in RENDERER:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _write(path: Path, chunk: Scenes) -> None:
    tensors = {name: getattr(chunk, name).cpu().contiguous() for name in STORED}
    tensors["instance"] = tensors["instance"].to(torch.uint8)
    lesions = json.dumps([[asdict(lesion) for lesion in lesions] for lesions in chunk.lesions])
    write_bytes(path, save(tensors, {"lesions": lesions}))


def _read(path: Path, device: torch.device) -> Scenes | None:
    """The chunk, or None when it is not there or cannot be read."""
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            tensors = {name: file.get_tensor(name) for name in STORED}
            described = json.loads(file.metadata()["lesions"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
    tensors["instance"] = tensors["instance"].float()
    lesions = tuple(tuple(Lesion(**lesion) for lesion in one) for one in described)
    return Scenes(mask=(tensors["instance"] > 0).float(), lesions=lesions, **tensors)
