"""What if the depth were another? Changes to the map that feeds the attention, and the chain run again from there.

Letters: s the networks' size. Depths are positive 1×1×s×s maps; what is done to them is done to their logarithm, as in
`depth`: "10 % nearer" then means the same close to the lens and far away. The first image features do not depend on
the depth, so they are computed once an image: another depth costs the attention and the decoder only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from kornia.filters import gaussian_blur2d
from torch import Tensor

from lesionkit import fusion
from lesionkit.depth import DepthMaps
from lesionkit.detector import Detector
from lesionkit.explore.checks import StateError, checked, chosen, pair, ranged, sequence
from lesionkit.explore.images import LoadedImage
from lesionkit.preprocess import Preprocessed, preprocess

RELIEF_SHARE = 0.1  # relief varies over less than about this share of the frame: lesions and folds, not the lumen
TOOLS = ("nearer", "farther", "smear")
STROKE_POINTS = 2000  # a stroke of more is cut: nobody draws that, a broken file may


@dataclass(frozen=True)
class Prepared:
    """What of an image does not depend on the guidance [8–18, 26]: preprocessed image, depth maps, first features."""

    seen: Preprocessed
    depths: DepthMaps
    features: tuple[Tensor, ...]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x, y, width, height of the field of view in pixels of the original."""
        return tuple(self.seen.box[0].tolist())


@dataclass(frozen=True)
class Outcome:
    """What the segmentation makes of one depth map: the depth used 1×1×s×s, five weight maps, probability 1×1×s×s."""

    depth: Float[Tensor, "1 1 s s"]
    attention: tuple[Tensor, ...]
    probability: Float[Tensor, "1 1 s s"]


@dataclass(frozen=True)
class Shown:
    """One image, all of it that does not depend on the what-if, and what the networks answer to its own depth."""

    loaded: LoadedImage
    prepared: Prepared
    original: Outcome

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.loaded.image.shape[:2]

    def probability(self, outcome: Outcome) -> Float[np.ndarray, "h w"]:
        """The probability at the image's size, float32."""
        return fusion.restore(outcome.probability, self.prepared.box, self.size_hw)


def _points(name: str, value: object) -> tuple[tuple[float, float], ...]:
    given = sequence(name, value, "a list of x and y")[:STROKE_POINTS]
    if not given:
        raise StateError("a stroke needs at least one point")
    return tuple(pair("point", one, -1e5, 1e5) for one in given)  # a brush may leave the image


@dataclass(frozen=True)
class Stroke:
    """One movement of the brush, in pixels of the original. strength: the change of the log depth under the brush, for
    a smear the share of the smoothed depth; points: x, y."""

    tool: str = chosen(TOOLS)
    radius_px: float = ranged(1, 2000)
    strength: float = ranged(0, 2)
    points: tuple[tuple[float, float], ...] = checked(_points)


@torch.inference_mode()
def prepare(detector: Detector, image: UInt8[np.ndarray, "h w 3"]) -> Prepared:
    """Steps [8–18, 26] for one image. Raises ImageError."""
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].to(detector.device)
    seen = preprocess(tensor.float() / 255, detector.config.size_px)
    pixels = seen.image.to(memory_format=torch.channels_last)
    return Prepared(seen, detector.depth_net(pixels), tuple(detector.segmenter.encode(pixels)))


@torch.inference_mode()
def guide(detector: Detector, prepared: Prepared, depth: Float[Tensor, "1 1 s s"], attend: bool = True) -> Outcome:
    """Steps [20–28] with `depth` in place of the estimated one. attend=False: every weight is 1, so that the first
    image features pass as they are."""
    net = detector.segmenter
    weights = net.attend(depth, prepared.seen.image)
    if not attend:
        weights = [torch.ones_like(w) for w in weights]
    logits = net.decode(net.weigh(prepared.features, weights))
    return Outcome(depth, tuple(weights), torch.sigmoid(logits.float()))


def flatten(depth: Float[Tensor, "1 1 s s"]) -> Tensor:
    """A wall at the median distance, seen head-on."""
    return torch.full_like(depth, float(depth.median()))


def exaggerate(depth: Float[Tensor, "1 1 s s"], factor: float) -> Tensor:
    """The local relief times `factor`: 1 nothing, 0 smoothed away, 3 three times as high, −1 bumps become hollows.

    Only what differs from the wide surroundings is scaled. To scale the whole log depth would do nothing at all: the
    guidance is standardised per image.
    """
    if factor == 1:
        return depth
    log = torch.log(depth)
    around = smooth(log, RELIEF_SHARE * depth.shape[-1])
    return torch.exp(around + factor * (log - around))


def paint(depth: Float[Tensor, "1 1 s s"], strokes: Sequence[Stroke], box: tuple[int, int, int, int]) -> Tensor:
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


def footprint(stroke: Stroke, box: tuple[int, int, int, int], size: int) -> Float[Tensor, "1 1 s s"]:
    """1 along the stroke's line, falling off like a bell; the same however densely the mouse was sampled.

    Drawn with the box's proportions and then squeezed into the networks' square: round in the image, as the brush is.
    """
    x, y, width, height = box
    scale = size / max(width, height)
    shape = (max(1, round(height * scale)), max(1, round(width * scale)))
    fixed = 16  # sub-pixel positions: cv2 takes integers with `shift` binary places, and 0 for a pixel's centre
    line = [(fixed * ((px - x) * scale - 0.5), fixed * ((py - y) * scale - 0.5)) for px, py in stroke.points]
    line = line if len(line) > 1 else line * 2  # cv2 draws nothing for a single point
    away = np.full(shape, 255, np.uint8)
    cv2.polylines(away, [np.round(line).astype(np.int32)], False, 0, 1, cv2.LINE_8, shift=4)
    if away.all():  # wholly outside the crop
        return torch.zeros(1, 1, size, size)
    distance = cv2.distanceTransform(away, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    bell = np.exp(-2 * (distance / max(stroke.radius_px * scale, 0.5)) ** 2)
    return torch.from_numpy(cv2.resize(bell, (size, size), interpolation=cv2.INTER_LINEAR))[None, None]


def smooth(maps: Float[Tensor, "1 1 s s"], sigma: float) -> Tensor:
    """A Gaussian blur; the kernel is cut where the frame ends, as a wider reflection is not defined."""
    size = min(2 * round(3 * sigma) + 1, 2 * (maps.shape[-1] - 1) - 1)
    return gaussian_blur2d(maps, (size, size), (float(sigma), float(sigma)), border_type="reflect")
