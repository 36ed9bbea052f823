"""The frames a notebook works on: a part of a data set, or rendered scenes, preprocessed and ready to train on.

Letters: n frames, s = size_px. Images are preprocessed ([8]) and in [0, 1]; masks {0, 1}; depth in mm, of scenes alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from lesionkit import datasets
from lesionkit.preprocess import crop_resize, dilate, preprocess, view_mask
from lesionkit.scenes.render import Lesion, SceneConfig, Scenes, stream_scenes

# each part of the rendered data is a stream of its own, so that no scene is ever in two parts
STREAMS = {"train": 1_000_003, "validation": 2_000_003, "test": 3_000_017}


@dataclass(frozen=True)
class Frames:
    """view: 1 where tissue is seen. depth (n×1×s×s) and the lesions of each frame are those of rendered scenes."""

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
    dataset: str, part: str, count: int, size_px: int, seed: int = 0, device: str | torch.device = "cpu"
) -> Frames:
    """`count` frames of `part` ("train", "validation", "test") of a data set; fewer where it has fewer. Real images are
    chosen by the seed. device: as in `rendered_frames`. Raises the errors of `datasets`."""
    if dataset == "scenes":
        return rendered_frames(part, count, size_px, seed, device=device)
    samples = datasets.open_dataset(dataset).part(part)
    order = np.random.default_rng([seed, STREAMS[part]]).permutation(len(samples))[:count]
    return real_frames([samples[i] for i in sorted(order)], size_px)


def rendered_frames(
    part: str,
    count: int,
    size_px: int,
    seed: int = 0,
    config: SceneConfig | None = None,
    device: str | torch.device = "cpu",
    stream: Callable = stream_scenes,
) -> Frames:
    """Rendered scenes as frames, on the CPU. The view is taken from the picture, as on a real image. device: renders
    them, but for MPS, where the renderer was never tried: there the CPU does. stream: where they come from; a cache of
    what `stream_scenes` gives, say."""
    if part not in STREAMS:
        raise datasets.InvalidData(f"scenes have no part {part!r}: choose one of {', '.join(STREAMS)}")
    renderer, lesions = "cpu" if str(device).startswith("mps") else str(device), ()
    channels = {"raw": 3, "image": 3, "mask": 1, "view": 1, "depth": 1}
    # filled chunk by chunk, since joining chunks would need twice the memory
    data = {name: torch.empty(count, c, size_px, size_px) for name, c in channels.items()}
    for scenes in stream(count, size_px, seed + STREAMS[part], renderer, config or SceneConfig.standard()):
        chunk, at = scene_frames(scenes, size_px), len(lesions)
        lesions += chunk.lesions
        for name, values in data.items():
            values[at : len(lesions)] = getattr(chunk, name)
    names = tuple(f"scene-{seed}-{part}-{i:04d}" for i in range(count))
    return Frames(names=names, lesions=lesions, **data)


def scene_frames(scenes: Scenes, size_px: int) -> Frames:
    """One chunk of rendered scenes as frames without names, on their device."""
    seen = preprocess(scenes.image, size_px)
    maps = ((scenes.depth, "edge"), (scenes.mask, "zero"))
    depth, mask = (crop_resize(x, seen.box, size_px, "nearest-exact", fill) for x, fill in maps)
    raw = crop_resize(scenes.image, seen.box, size_px)
    return Frames(raw, seen.image, mask, seen.view, ("",) * len(mask), depth, scenes.lesions)


def real_frames(samples: Sequence[datasets.Sample], size_px: int) -> Frames:
    """Real images, each cropped to its view and resized to a square. Raises datasets.InvalidData."""
    return join([_real_frame(sample.name, *datasets.read_sample(sample), size_px) for sample in samples])


def lesion_free_frames(paths: Sequence[Path], size_px: int) -> Frames:
    """As `real_frames`, of images of which it is known that they show no lesion."""
    images = ((path.stem, datasets.read_image(path)) for path in paths)
    return join([_real_frame(name, image, np.zeros(image.shape[:2], bool), size_px) for name, image in images])


def _real_frame(name: str, pixels: UInt8[np.ndarray, "h w 3"], lesion: Bool[np.ndarray, "h w"], size_px: int) -> Frames:
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    seen = preprocess(image, size_px)
    mask = crop_resize(torch.from_numpy(lesion)[None, None].float(), seen.box, size_px)
    raw = crop_resize(image, seen.box, size_px)
    return Frames(raw, seen.image, (mask > 0.5).float(), seen.view, (name,))


def on_screen(
    view: UInt8[np.ndarray, "v v 3"], still: UInt8[np.ndarray, "u u 3"] | None = None
) -> tuple[UInt8[np.ndarray, "h w 3"], tuple[int, int, int, int]]:
    """A square view as a video processor shows it, 16:9 and cut to an octagon, with a guide panel, burnt-in text and a
    small `still` beside it; and its box: x, y, width, height."""
    v = len(view)
    h, w, left = v, v * 16 // 9, int(0.42 * v)
    screen = np.full((h, w, 3), 17, np.uint8)  # the surround is a dark grey, not black
    seen = octagon(v)
    screen[:, left : left + v][seen] = view[seen]
    thin, top = max(v // 300, 1), int(0.62 * v)
    cv2.rectangle(screen, (0, top), (left - v // 20, h), (38, 182, 143), -1)
    cv2.polylines(
        screen, [np.array([[v // 6, h], [v // 5, h - v // 5], [v // 4, h - v // 8]])], False, (60, 60, 60), thin
    )
    cv2.putText(
        screen, "00:21:11", (v // 60, v // 4), cv2.FONT_HERSHEY_SIMPLEX, v / 1500, (235,) * 3, thin, cv2.LINE_AA
    )
    if still is not None:
        side = v // 5
        screen[v // 30 : v // 30 + side, v // 8 : v // 8 + side] = cv2.resize(
            still, (side, side), interpolation=cv2.INTER_AREA
        )
    return screen, (left, 0, v, h)


def octagon(size_px: int) -> Bool[np.ndarray, "v v"]:
    """Where a square view is seen whose corners a processor cuts off."""
    rows, columns = np.mgrid[:size_px, :size_px] / size_px
    return np.minimum(rows, 1 - rows) + np.minimum(columns, 1 - columns) > 0.2


def join(parts: Sequence[Frames]) -> Frames:
    """Several sets of frames as one; depth and lesions are kept where all parts have them."""
    joined = {}
    for name in vars(parts[0]):
        values = [getattr(part, name) for part in parts]
        if all(value is not None for value in values):
            joined[name] = torch.cat(values) if isinstance(values[0], Tensor) else tuple(chain.from_iterable(values))
    return Frames(**joined)


def lesion_free_crops(frames: Frames, count: int, seed: int = 0, margin: float = 0.02) -> Frames:
    """Crops in which no lesion is seen, of 35 to 60 % of the side, enlarged to s × s: all that the real sets offer of
    normal tissue. At most `count`; fewer where lesions fill the frames. margin: as in `with_rim`."""
    rng, size_px = np.random.default_rng([seed, 77]), frames.image.shape[-1]
    rim, found = with_rim(frames.mask, margin), []
    for i in rng.permutation(len(frames)).tolist():
        if len(found) == count:
            break
        box = _free_box(rng, rim[i, 0], frames.view[i, 0])
        if box is None:
            continue
        one = frames[i : i + 1]
        image, raw = (crop_resize(x, box, size_px).clamp(0, 1) for x in (one.image, one.raw))
        depth = None if one.depth is None else crop_resize(one.depth, box, size_px, "nearest-exact")
        names, lesions = (f"{one.names[0]}-free",), None if one.lesions is None else ((),)
        found.append(Frames(raw, image, torch.zeros_like(one.mask), view_mask(image), names, depth, lesions))
    return join(found) if found else frames[:0]


def with_rim(mask: Float[Tensor, "n 1 s s"], margin: float) -> Float[Tensor, "n 1 s s"]:
    """The lesions with a rim of `margin` × the side around them."""
    return dilate(mask, 2 * max(1, int(margin * mask.shape[-1])) + 1)


def _free_box(rng: np.random.Generator, lesion: Tensor, view: Tensor) -> Tensor | None:
    """1×4, a square without lesion and nearly without surround, if one is found in twelve tries."""
    for _ in range(12):
        side = int(len(lesion) * rng.uniform(0.35, 0.6))
        x, y = rng.integers(0, len(lesion) - side, 2).tolist()
        window = (slice(y, y + side), slice(x, x + side))
        if not lesion[window].any() and view[window].mean() > 0.9:
            return torch.tensor([[x, y, side, side]])
    return None
