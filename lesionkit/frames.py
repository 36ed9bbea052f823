"""The frames a notebook works on: a part of a data set, or rendered scenes, preprocessed and ready to train on.

Letters: n frames, s = size_px. Images are preprocessed ([8]) and in [0, 1]; masks {0, 1}; depth exact and in mm on
rendered scenes, absent on real images.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lesionkit.datasets import samples as datasets
from lesionkit.devices import resolve
from lesionkit.preprocess import crop_resize, preprocess, view_mask
from lesionkit.scenes.cache import cached_scenes
from lesionkit.scenes.render import Lesion, SceneConfig, Scenes, stream_scenes

# each part of the rendered data is a stream of its own, so that no scene is ever in two parts
STREAMS = {"train": 1_000_003, "validation": 2_000_003, "test": 3_000_017}


@dataclass(frozen=True)
class Frames:
    """raw and image n×3×s×s, mask n×1×s×s, view n×1×s×s (1 where tissue is seen), depth n×1×s×s or None, names,
    and for rendered scenes the lesions of each frame."""

    raw: Float[Tensor, "n 3 s s"]
    image: Float[Tensor, "n 3 s s"]
    mask: Float[Tensor, "n 1 s s"]
    view: Float[Tensor, "n 1 s s"]
    names: tuple[str, ...]
    depth: Tensor | None = None
    lesions: tuple[tuple[Lesion, ...], ...] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, item: slice) -> "Frames":
        kept = {name: value[item] for name, value in vars(self).items() if value is not None}
        return replace(self, **kept)

    @property
    def has_lesion(self) -> np.ndarray:
        """n booleans."""
        return (self.mask.flatten(1).amax(1) > 0).cpu().numpy()


def load_frames(
    dataset: str, part: str, count: int, size_px: int, seed: int = 0, config: SceneConfig | None = None,
    device: str | torch.device = "cpu",
) -> Frames:
    """`count` frames of `part` ("train", "validation", "test") of a data set; fewer where it has fewer.

    Real images are chosen by the seed, the same ones for the same seed. device: as in `rendered_frames`. Raises the
    errors of `datasets`.
    """
    if dataset == "scenes":
        return rendered_frames(part, count, size_px, seed, config, device)
    samples = datasets.open_dataset(dataset).part(part)
    order = np.random.default_rng([seed, STREAMS[part]]).permutation(len(samples))[:count]
    return real_frames([samples[i] for i in sorted(order)], size_px)


def rendered_frames(
    part: str, count: int, size_px: int, seed: int = 0, config: SceneConfig | None = None,
    device: str | torch.device = "cpu", kept: bool = False,
) -> Frames:
    """Rendered scenes as frames, on the CPU. The view is taken from the picture, as on a real image.

    device: renders them, but for MPS, where the renderer was never tried: there the CPU does.
    kept: from the cache on disk, for trainings that may begin again.
    """
    stream, renderer = cached_scenes if kept else stream_scenes, "cpu" if str(device) == "mps" else str(device)
    chunks = stream(count, size_px, seed + STREAMS[part], renderer, config or SceneConfig.standard())
    channels = {"raw": 3, "image": 3, "mask": 1, "view": 1, "depth": 1}
    data, at, lesions = _room(channels, count, size_px), 0, ()
    for scenes in chunks:
        chunk = _of_scenes(scenes, size_px)
        at, lesions = _put(data, chunk, at), lesions + chunk.lesions
    names = tuple(f"scene-{seed}-{part}-{i:04d}" for i in range(count))
    return Frames(names=names, lesions=lesions, **data)


def _room(
    channels: dict[str, int], count: int, size_px: int, kinds: dict[str, torch.dtype] | None = None,
    device: str | torch.device = "cpu",
) -> dict[str, Tensor]:
    """Empty tensors for `count` frames, float32 or of other `kinds`: joining chunks would need twice the memory."""
    kinds, shape = kinds or dict.fromkeys(channels), (size_px, size_px)
    return {name: torch.empty(count, c, *shape, dtype=kinds[name], device=device) for name, c in channels.items()}


def _put(data: dict[str, Tensor], chunk: Frames, at: int) -> int:
    """Writes a chunk into its place; where the next one begins."""
    for name, values in data.items():
        values[at : at + len(chunk)] = getattr(chunk, name)
    return at + len(chunk)


def _of_scenes(scenes: Scenes, size_px: int) -> Frames:
    """One chunk of rendered scenes, unnamed."""
    seen = preprocess(scenes.image, size_px)
    depth, mask = (crop_nearest(x, seen.box, size_px) for x in (scenes.depth, scenes.mask))
    raw = crop_resize(scenes.image, seen.box, size_px)
    return Frames(raw, seen.image, mask, seen.view, ("",) * len(mask), depth, scenes.lesions)


def depth_frames(
    wanted: Sequence[tuple[SceneConfig, int, int]], size_px: int, device: str | torch.device = "cpu"
) -> dict[str, Tensor]:
    """What depth is learned from and no more: image n×3×s×s, depth and view n×1×s×s of the training stream. For
    thousands of scenes, so kept on disk, and in memory in few bytes: image uint8, depth float16, view bool (10,000
    scenes of 256 px are 4 GB; `training.train_depth` takes them as they are).

    wanted: configuration, how many scenes, and their seed.
    """
    return _for_depth(wanted, size_px, "cpu", partial(cached_scenes, device=device))


def fresh_depth_frames(
    wanted: Sequence[tuple[SceneConfig, int, int]], size_px: int, device: str | torch.device = "auto", first: int = 0,
    workers: int = 0,
) -> dict[str, Tensor]:
    """As `depth_frames`, straight from the renderer and on its device, for a GPU: the scenes numbered `first`, `first`
    + 1, … of each configuration's stream, drawn by `workers` processes."""
    place = resolve(str(device))
    return _for_depth(wanted, size_px, place, partial(stream_scenes, device=place, first=first, workers=workers))


def _for_depth(
    wanted: Sequence[tuple[SceneConfig, int, int]], size_px: int, place: str | torch.device,
    stream: Callable[..., Iterator[Scenes]],
) -> dict[str, Tensor]:
    kinds, n = {"image": torch.uint8, "depth": torch.float16, "view": torch.bool}, sum(n for _, n, _ in wanted)
    data, at = _room({"image": 3, "depth": 1, "view": 1}, n, size_px, kinds, place), 0
    for config, count, seed in wanted:
        for scenes in stream(count, size_px, seed + STREAMS["train"], config=config):
            chunk = _of_scenes(scenes, size_px)
            at = _put(data, replace(chunk, image=(chunk.image * 255).round()), at)
    return data


def real_frames(samples: Sequence[datasets.Sample], size_px: int) -> Frames:
    """Real images, each cropped to its view and resized to a square. Raises datasets.InvalidData."""
    parts = []
    for sample in samples:
        pixels, lesion = datasets.read_sample(sample)
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        seen = preprocess(image, size_px)
        mask = crop_resize(torch.from_numpy(lesion)[None, None].float(), seen.box, size_px)
        raw = crop_resize(image, seen.box, size_px)
        parts.append(Frames(raw, seen.image, (mask > 0.5).float(), seen.view, (sample.name,)))
    return join(parts)


def crop_nearest(maps: Float[Tensor, "b 1 h w"], box: Tensor, size_px: int) -> Float[Tensor, "b 1 s s"]:
    """As `crop_resize`, without mixing values: a mean of two depths is a depth where nothing is."""
    parts = []
    for one, (x, y, width, height) in zip(maps, box.tolist(), strict=True):
        part = one[None, :, y : y + height, x : x + width]
        parts.append(torch.nn.functional.interpolate(part, size=(size_px, size_px), mode="nearest-exact"))
    return torch.cat(parts)


def join(parts: Sequence[Frames]) -> Frames:
    """Several sets of frames as one; depth and lesions are kept where all parts have them."""

    def together(name: str) -> Tensor | None:
        values = [getattr(p, name) for p in parts]
        return None if any(v is None for v in values) else torch.cat(values)

    lesions = None if any(p.lesions is None for p in parts) else tuple(one for p in parts for one in p.lesions)
    names = tuple(name for p in parts for name in p.names)
    fields = {name: together(name) for name in ("raw", "image", "mask", "view", "depth")}
    return Frames(names=names, lesions=lesions, **fields)


def lesion_free_crops(frames: Frames, count: int, seed: int = 0, margin: float = 0.02) -> Frames:
    """Crops in which no lesion is seen, of 35 to 60 % of the side, enlarged to s × s: all that the real sets offer of
    normal tissue. At most `count`; fewer where lesions fill the frames."""
    rng = np.random.default_rng([seed, 77])
    size, found = frames.image.shape[-1], []
    grown = _grown(frames.mask, margin)
    for i in rng.permutation(len(frames)):
        if len(found) == count:
            break
        box = _free_box(rng, grown[i, 0].numpy(), frames.view[i, 0].numpy(), size)
        if box is not None:
            found.append(_crop(frames[int(i) : int(i) + 1], torch.tensor([box]), size))
    if not found:
        return frames[:0]
    return join(found)


HALVES = ((2, False), (2, True), (3, False), (3, True))  # dimension that is halved; whether the second half is kept


def lesion_free_mirrors(frames: Frames, count: int, seed: int = 0, margin: float = 0.02) -> Frames:
    """Halves of frames in which no lesion is seen, each completed by its own mirror image: normal tissue at the scale
    and with the sharpness of a whole frame, which enlarged crops lack. At most `count`; without `lesions`."""
    rng = np.random.default_rng([seed, 78])
    grown, found = _grown(frames.mask, margin), []
    for i in map(int, rng.permutation(len(frames))):
        if len(found) == count:
            break
        free = [half for half in HALVES if not _mirrored(grown[i : i + 1], *half).any()]
        if free:
            found.append(_mirror(frames[i : i + 1], *free[rng.integers(len(free))]))
    return join(found) if found else frames[:0]


def lesion_mirrors(frames: Frames, margin: float = 0.02) -> Frames:
    """The counterpart: halves that hold all lesions of their frame, mirrored. Who marks nothing on lesion-free mirrors
    because they are mirrors will find nothing here either. One for each frame that has such a half."""
    grown, found = _grown(frames.mask, margin), []
    for i in np.flatnonzero(frames.has_lesion):
        holds_all = [(d, second) for d, second in HALVES if not _mirrored(grown[i : i + 1], d, not second).any()]
        found += [_mirror(frames[i : i + 1], *half) for half in holds_all[:1]]
    return join(found) if found else frames[:0]


def _mirrored(maps: Float[Tensor, "b c s s"], dim: int, second: bool) -> Float[Tensor, "b c s s"]:
    middle = maps.shape[dim] // 2
    half = maps.narrow(dim, middle if second else 0, middle)
    parts = (half.flip(dim), half) if second else (half, half.flip(dim))
    return torch.cat(parts, dim)


def _mirror(frame: Frames, dim: int, second: bool) -> Frames:
    names = ("raw", "image", "mask", "view", "depth")
    maps = {name: value for name in names if (value := getattr(frame, name)) is not None}
    mirrored = {name: _mirrored(value, dim, second) for name, value in maps.items()}
    return Frames(names=tuple(f"{name}-mirror" for name in frame.names), **mirrored)


def _grown(mask: Float[Tensor, "n 1 s s"], margin: float) -> Float[Tensor, "n 1 s s"]:
    """The lesions with a rim of `margin` × the side around them."""
    rim = max(1, int(margin * mask.shape[-1]))
    return torch.nn.functional.max_pool2d(mask, 2 * rim + 1, stride=1, padding=rim)


def _free_box(rng: np.random.Generator, lesion: np.ndarray, view: np.ndarray, size: int) -> tuple | None:
    for _ in range(12):
        side = int(size * rng.uniform(0.35, 0.6))
        x, y = (int(v) for v in rng.integers(0, size - side, 2))
        window = (slice(y, y + side), slice(x, x + side))
        if not lesion[window].any() and view[window].mean() > 0.9:
            return x, y, side, side
    return None


def _crop(frame: Frames, box: Tensor, size: int) -> Frames:
    image, raw = (crop_resize(x, box, size).clamp(0, 1) for x in (frame.image, frame.raw))
    depth = None if frame.depth is None else crop_nearest(frame.depth, box, size)
    names = tuple(f"{name}-free" for name in frame.names)
    lesions = None if frame.lesions is None else ((),)
    return Frames(raw, image, torch.zeros_like(image[:, :1]), view_mask(image), names, depth, lesions)
