"""Lesions linked over the frames of a video."""

from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np
from scipy.optimize import linear_sum_assignment

from lesionkit.detect.reading import Entry
from lesionkit.fusion import Detection, regions

GAP = 3  # detected frames in which a lesion may be missed and is still the same
LEAST_IOU = 0.1  # of the boxes of one lesion in two frames; or their centres are half of a mean side apart at most
KEPT = 0.5  # of the probability before, in a smoothed one

Box = tuple[int, int, int, int]  # x, y, width, height in pixels


@dataclass
class Track:
    number: int
    box: Box
    frames: int = 0  # in which it was seen
    missed: int = 0  # since then


@dataclass
class Tracks:
    """Of one video after the other. smooth: probabilities are averaged over time; min_frames: what was not seen as
    often so far is not marked yet."""

    smooth: bool = False
    min_frames: int = 1
    _file: str = ""
    _followed: list[Track] = field(default_factory=list)
    _before: np.ndarray | None = None
    _numbers: count = field(default_factory=count)

    def follow(self, entry: Entry, found: Detection) -> tuple[Detection, list[int]]:
        """The next detection as it is to be shown, and the numbers of its lesions, from 1; what is no frame of a video
        passes without."""
        if "time_s" not in entry:
            return found, []
        if entry["file"] != self._file:
            self._file, self._followed, self._before, self._numbers = entry["file"], [], None, count(1)
        if self.smooth:
            if self._before is not None:
                found = replace(found, probability=KEPT * self._before + (1 - KEPT) * found.probability)
            self._before = found.probability
        tracks = self._linked([lesion.bbox_px for lesion in found.lesions])
        known = [track.frames >= self.min_frames for track in tracks]
        if not all(known):
            probability = found.probability.copy()
            for (box, inside), is_known in zip(regions(found.mask), known, strict=True):
                if not is_known:
                    probability[box][inside] = found.threshold  # which is not above it
            found = replace(found, probability=probability)
        return found, [track.number for track, is_known in zip(tracks, known, strict=True) if is_known]

    def _linked(self, boxes: list[Box]) -> list[Track]:
        """The track of each box, by the assignment that costs least in all; what fits none begins one."""
        costs = np.array([[cost(track.box, box) for track in self._followed] for box in boxes])
        costs = costs.reshape(len(boxes), len(self._followed))  # either may be none
        pairs = {b: self._followed[t] for b, t in zip(*linear_sum_assignment(costs), strict=True) if costs[b, t] < 1}
        linked = [pairs.get(number) or Track(next(self._numbers), box) for number, box in enumerate(boxes)]
        for track, box in zip(linked, boxes, strict=True):
            track.box, track.frames, track.missed = box, track.frames + 1, -1
        for track in (everyone := [*linked, *(one for one in self._followed if one not in linked)]):
            track.missed += 1
        self._followed = [track for track in everyone if track.missed <= GAP]
        return linked


def cost(one: Box, other: Box) -> float:
    """0 for equal boxes, up to 1 for those that are barely one lesion's, 1 for others."""
    (a, b), (c, d) = ((np.array(box[:2], float), np.array(box[2:], float)) for box in (one, other))
    overlap = np.prod(np.clip(np.minimum(a + b, c + d) - np.maximum(a, c), 0, None))
    iou = overlap / (b.prod() + d.prod() - overlap)
    away = np.linalg.norm(a + b / 2 - c - d / 2) / np.concatenate([b, d]).mean()
    return float(0.5 * (1 - iou) if iou >= LEAST_IOU else min(0.5 + away, 1))
