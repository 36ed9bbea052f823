"""What if the depth were another? Changes to the map that feeds the attention, the method run again from there, and
what is read off its answer.

Letters: s the networks' size. Depths are positive 1×1×s×s maps; what is done to them is done to their logarithm: "10 %
nearer" then means the same close to the lens and far away. The first image features do not depend on the depth, so they
are computed once an image. Coordinates x, y are pixels of the image shown; pixel centres lie at halves.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float
from kornia.filters import gaussian_blur2d
from scipy.ndimage import map_coordinates
from torch import Tensor

from lesionkit import fusion, metrics
from lesionkit.depth import DepthMaps, gradient_magnitude
from lesionkit.detector import Detector
from lesionkit.explore.checks import check, require, takes
from lesionkit.explore.images import LoadedImage
from lesionkit.preprocess import preprocess
from lesionkit.segmentation import mean_weights

RELIEF_SHARE = 0.1  # relief varies over less than about this share of the frame: lesions and folds, not the lumen
PROFILE_SAMPLES = 161  # on either side of the point
Box = tuple[int, int, int, int]  # x, y, width, height of the field of view in pixels of the original


@dataclass(frozen=True, eq=False)
class Outcome:
    """What the segmentation makes of one depth map: the depth used, the weights of the five scales 1×c_i×h_i×w_i, their
    means over the channels, the probability."""

    depth: Float[Tensor, "1 1 s s"]
    weights: tuple[Tensor, ...]
    attention: tuple[Tensor, ...]
    probability: Float[Tensor, "1 1 s s"]


@dataclass(frozen=True, eq=False)
class Shown:
    """One image, and what of it does not depend on the guidance [8–18, 26]: depth maps, first features; image and view
    are the preprocessed ones, of the crop `box`."""

    loaded: LoadedImage
    image: Float[Tensor, "1 3 s s"]
    view: Float[Tensor, "1 1 s s"]
    box: Box
    depths: DepthMaps
    features: tuple[Tensor, ...]

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.loaded.image.shape[:2]


def _points(name: str, value: Any) -> tuple[tuple[float, float], ...]:
    require(isinstance(value, (list, tuple)) and len(value) > 0, name, value, "a list of at least one x and y")
    far = (-1e5, 1e5)  # a brush may leave the image
    return tuple(check("point", one, {"x": far, "y": far}) for one in value)


@dataclass(frozen=True)
class Stroke:
    """One movement of the brush, in pixels of the original. strength: the change of the log depth under the brush, for
    a smear the share of the smoothed depth; points: x, y."""

    tool: str = takes(["nearer", "farther", "smear"])
    radius_px: float = takes((1, 2000))
    strength: float = takes((0, 2))
    points: tuple[tuple[float, float], ...] = takes(_points)


@torch.inference_mode()
def prepare(detector: Detector, loaded: LoadedImage, view: str = "auto") -> Shown:
    """Steps [8–18, 26] for one image; view as in `preprocess`. Raises ImageError."""
    tensor = torch.from_numpy(loaded.image).permute(2, 0, 1)[None].to(detector.device)
    seen = preprocess(tensor.float() / 255, detector.config.size_px, view)
    image = seen.image.to(memory_format=torch.channels_last)
    features = tuple(detector.segmenter.encode(image))
    return Shown(loaded, seen.image, seen.view, tuple(seen.box[0].tolist()), detector.depth_net(image), features)


@torch.inference_mode()
def guide(detector: Detector, shown: Shown, depth: Float[Tensor, "1 1 s s"], attend: bool = True) -> Outcome:
    """Steps [20–28] with `depth` in place of the estimated one. attend=False: every weight is 1, so that the first
    image features pass as they are."""
    net = detector.segmenter
    weights = tuple(w if attend else torch.ones_like(w) for w in net.attend(depth, shown.image))
    logits = net.decode(net.weigh(shown.features, weights))
    return Outcome(depth, weights, mean_weights(weights), torch.sigmoid(logits.float()) * shown.view)


def exaggerate(depth: Float[Tensor, "1 1 s s"], factor: float) -> Tensor:
    """The local relief, what differs from the wide surroundings, times `factor`: 0 smoothed away, −1 bumps become
    hollows. To scale the whole log depth would exaggerate folds and the lumen as well."""
    if factor == 1:
        return depth
    log = torch.log(depth)
    around = smooth(log, RELIEF_SHARE * depth.shape[-1])
    return torch.exp(around + factor * (log - around))


def paint(depth: Float[Tensor, "1 1 s s"], strokes: Sequence[Stroke], box: Box) -> Tensor:
    """The strokes, in pixels of the original, put onto the depth of its crop `box`, one after the other."""
    size = depth.shape[-1]
    for stroke in strokes:
        weight = stroke.strength * footprint(stroke, box, size).to(depth.device)
        if stroke.tool == "smear":
            radius = stroke.radius_px * size / (box[2] * box[3]) ** 0.5
            depth = torch.exp(torch.lerp(torch.log(depth), smooth(torch.log(depth), radius), weight.clamp(0, 1)))
        else:
            depth = depth * torch.exp(weight if stroke.tool == "farther" else -weight)
    return depth


def footprint(stroke: Stroke, box: Box, size: int) -> Float[Tensor, "1 1 s s"]:
    """1 along the stroke's line, falling off like a bell, however densely the mouse was sampled. Drawn with the box's
    proportions and then squeezed into the networks' square: round in the image, as the brush is."""
    x, y, width, height = box
    scale = size / max(width, height)
    shape = (max(1, round(height * scale)), max(1, round(width * scale)))
    fixed = 16  # sub-pixel positions: cv2 takes integers with `shift` binary places, and 0 for a pixel's centre
    line = fixed * ((np.array(stroke.points) - (x, y)) * scale - 0.5)
    line = line.round().astype(np.int32).repeat(2, axis=0)  # cv2 draws nothing for a single point
    away = np.full(shape, 255, np.uint8)
    cv2.polylines(away, [line], False, 0, 1, cv2.LINE_8, shift=4)
    if away.all():  # wholly outside the crop
        return torch.zeros(1, 1, size, size)
    distance = cv2.distanceTransform(away, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    bell = np.exp(-2 * (distance / max(stroke.radius_px * scale, 0.5)) ** 2)
    return torch.from_numpy(cv2.resize(bell, (size, size), interpolation=cv2.INTER_LINEAR))[None, None]


def smooth(maps: Float[Tensor, "1 1 s s"], sigma: float) -> Tensor:
    """A Gaussian blur; the kernel is cut where the frame ends, as a wider reflection is not defined."""
    size = min(2 * round(3 * sigma) + 1, 2 * (maps.shape[-1] - 1) - 1)
    return gaussian_blur2d(maps, (size, size), (float(sigma), float(sigma)), border_type="reflect")


def mask_numbers(probability: np.ndarray, threshold: float, truth: np.ndarray | None) -> dict[str, float | None]:
    """Per name of `pictures.NUMBERS`, which says what they mean, a number of the mask at `threshold`; shares lie in
    [0, 1]. None where it needs a truth and there is none."""
    mask = probability > threshold
    found = {"probability_area": float(probability.mean()), "mask_area": float(mask.mean())}
    found["lesions"] = len(fusion.find_lesions(mask, probability))
    if truth is None:
        return found | dict.fromkeys(("dice", "sensitivity", "false_positives", "false_area"))
    scores = {"dice": metrics.dice(mask, truth), "sensitivity": metrics.sensitivity(mask, truth)}
    found |= {name: None if math.isnan(value) else value for name, value in scores.items()}
    found["false_positives"] = metrics.lesion_matches(mask, truth).false_components
    return found | {"false_area": float((mask & ~truth).mean())}


def profile(shown: Shown, now: Outcome, original: Outcome, point: tuple, degrees: float) -> dict[str, Any]:
    """Along the line through the point: `distance_px` from it, depths in `unit` (estimated, used, exact on scenes),
    `gradient` (change of the estimated depth per pixel of the networks, as a share) and probability. At the point:
    `attention` and `attention_original`, one weight per scale. changed: whether `now` is not the original."""
    reach = np.linspace(-1, 1, 2 * PROFILE_SAMPLES - 1) * math.hypot(*shown.box[2:])
    xs, ys = point[0] + reach * math.cos(math.radians(degrees)), point[1] + reach * math.sin(math.radians(degrees))
    inside = in_box(xs, ys, shown.box)
    inside[PROFILE_SAMPLES - 1] = True  # the point itself is always there
    along, xs, ys = reach[inside], xs[inside], ys[inside]
    lines = {"estimated": original.depth, "used": now.depth}
    lines |= {"gradient": gradient_magnitude(original.depth), "gradient_used": gradient_magnitude(now.depth)}
    lines |= {"probability": now.probability, "probability_original": original.probability}
    weights, exact = {"attention": now.attention, "attention_original": original.attention}, shown.loaded.depth
    return {
        **{name: _sample(one, xs, ys, shown.box) for name, one in lines.items()},
        **{name: [_sample(w, *point, shown.box, order=0)[0] for w in five] for name, five in weights.items()},
        "exact": None if exact is None else _sample(exact, xs, ys, (0, 0, *shown.size_hw[::-1])),
        "unit": "relative" if exact is None else "mm",
        "distance_px": along.round(4).tolist(),
        "ends": [round(float(v[i]), 4) for i in (0, -1) for v in (xs, ys)],
        "point": list(point),
        "changed": now is not original,
    }


def in_box(xs: Any, ys: Any, box: Box) -> Any:
    """Whether places of the original, numbers or arrays, lie in the crop."""
    x, y, width, height = box
    return (xs >= x) & (xs <= x + width) & (ys >= y) & (ys <= y + height)


def _sample(maps: Tensor | np.ndarray, xs: Any, ys: Any, box: Box, order: int = 1) -> Any:
    """Values of a map of the crop `box`, a tensor 1×1×h×w or an array h×w, at places of the original."""
    x, y, width, height = box
    array = maps[0, 0].float().cpu().numpy() if isinstance(maps, Tensor) else maps
    columns = (np.atleast_1d(xs) - x) / width * array.shape[1] - 0.5
    rows = (np.atleast_1d(ys) - y) / height * array.shape[0] - 0.5
    return map_coordinates(array, [rows, columns], order=order, mode="nearest").astype(float).round(4).tolist()
