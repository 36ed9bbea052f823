"""Frames made of a half of a real one and its mirror image: normal tissue where every real image shows a lesion."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lesionkit.frames import Frames, join, with_rim

HALVES = ((2, False), (2, True), (3, False), (3, True))  # dimension that is halved; whether the second half is kept


def lesion_free_mirrors(frames: Frames, count: int, seed: int = 0, margin: float = 0.02) -> Frames:
    """Halves of frames in which no lesion is seen, each completed by its own mirror image: normal tissue at the scale
    and with the sharpness of a whole frame, which enlarged crops lack. At most `count`; without `lesions`."""
    rng = np.random.default_rng([seed, 78])
    lesions, found = with_rim(frames.mask, margin), []
    for i in map(int, rng.permutation(len(frames))):
        if len(found) == count:
            break
        free = [half for half in HALVES if not mirrored(lesions[i : i + 1], *half).any()]
        if free:
            found.append(_mirror(frames[i : i + 1], *free[rng.integers(len(free))]))
    return join(found) if found else frames[:0]


def lesion_mirrors(frames: Frames, margin: float = 0.02) -> Frames:
    """The counterpart: halves that hold all lesions of their frame, mirrored. Who marks nothing on lesion-free mirrors
    because they are mirrors will find nothing here either. One for each frame that has such a half."""
    lesions, found = with_rim(frames.mask, margin), []
    for i in np.flatnonzero(frames.has_lesion):
        holds_all = [(dim, second) for dim, second in HALVES if not mirrored(lesions[i : i + 1], dim, not second).any()]
        found += [_mirror(frames[i : i + 1], *half) for half in holds_all[:1]]
    return join(found) if found else frames[:0]


def mirrored(maps: Float[Tensor, "b c s s"], dim: int, second: bool) -> Float[Tensor, "b c s s"]:
    """Each map's first or second half along `dim`, and its reflection in place of the other."""
    middle = maps.shape[dim] // 2
    half = maps.narrow(dim, middle if second else 0, middle)
    parts = (half.flip(dim), half) if second else (half, half.flip(dim))
    return torch.cat(parts, dim)


def _mirror(frame: Frames, dim: int, second: bool) -> Frames:
    names = ("raw", "image", "mask", "view", "depth")
    maps = {name: value for name in names if (value := getattr(frame, name)) is not None}
    reflected = {name: mirrored(value, dim, second) for name, value in maps.items()}
    return Frames(names=tuple(f"{name}-mirror" for name in frame.names), **reflected)
