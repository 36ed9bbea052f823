"""Steps [38, 39] of docs/method.md: the mask at the original's pixel size, the overlay, and the table of lesions.

Letters: s the networks' size, h × w the original's. The *probability* is resized and then thresholded: resizing a
mask would draw staircases along every edge.
"""

from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

# outlines, in every picture of the kit: two hues that mucosa never has
FOUND_RGB = (30, 255, 140)
TRUTH_RGB = (60, 170, 255)
TINT = 0.22


@dataclass(frozen=True)
class FoundLesion:
    """A connected region of a mask. bbox_px: x, y, width, height; area_fraction: of the image; score: the mean
    probability over its pixels."""

    bbox_px: tuple[int, int, int, int]
    area_px: int
    area_fraction: float
    score: float


@dataclass
class Detection:
    """What was found in one image (numpy, h×w of the input) or in a batch (tensors, the batch dimension kept).

    probability, depth: float32; attention: one map per scale, fine to coarse, at the networks' resolution; view_px: x,
    y, width, height of the view found, outside which nothing is marked; mask: probability > threshold; lesions: a tuple
    of FoundLesion. For a batch the last two and view_px are tuples of those of the images.
    """

    image: np.ndarray | Tensor
    probability: np.ndarray | Tensor
    depth: np.ndarray | Tensor
    attention: tuple
    threshold: float
    view_px: tuple = ()
    _singles: list["Detection"] = field(default_factory=list, repr=False)

    @property
    def mask(self) -> np.ndarray | Tensor:
        return self.probability > self.threshold

    @property
    def lesions(self) -> tuple:
        if self._singles:
            return tuple(one.lesions for one in self._each())
        return find_lesions(self.mask, self.probability)

    def overlay(self) -> np.ndarray | Tensor:
        """The detection image: uint8 h×w×3, or for a batch a float tensor b×3×h×w in [0, 1]."""
        if self._singles:
            drawn = [torch.from_numpy(one.overlay()).permute(2, 0, 1) for one in self._each()]
            return torch.stack(drawn).float() / 255
        return overlay(self.image, self.mask)

    def _each(self) -> list["Detection"]:
        return [replace(one, threshold=self.threshold) for one in self._singles]  # it may have been changed here


def restore(
    maps: Float[Tensor, "1 1 s s"], box: tuple[int, int, int, int], size_hw: tuple[int, int], fill: str = "zero"
) -> Float[np.ndarray, "h w"]:
    """A map of the cropped, resized image put back to the original's size. box: x, y, width, height of the crop in
    it; what reaches beyond is left out. Outside stands 0, or with fill="edge" the nearest value (for a depth, of which
    0 would be nonsense)."""
    (x, y, width, height), (h, w) = box, size_hw
    inner = F.interpolate(maps.float(), size=(height, width), mode="bilinear", align_corners=False)[0, 0]
    inner = inner[max(-y, 0) : h - y, max(-x, 0) : w - x].cpu().numpy()
    margins = tuple((max(at, 0), max(n - at - length, 0)) for at, length, n in ((y, height, h), (x, width, w)))
    return np.pad(inner, margins, mode={"zero": "constant", "edge": "edge"}[fill])


def overlay(image: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "y x"]) -> UInt8[np.ndarray, "h w 3"]:
    """The detection image: lesions tinted and outlined on the original. Raises IndexError when the sizes differ."""
    fused = image.copy()
    tinted = (1 - TINT) * image[mask] + TINT * np.array(FOUND_RGB)
    fused[mask] = tinted.astype(np.uint8)
    outline, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    thickness = max(1, round(min(mask.shape) / 200))  # as visible on a large image as on a small one
    cv2.drawContours(fused, outline, -1, FOUND_RGB, thickness, cv2.LINE_AA)
    return fused


def regions(mask: Bool[np.ndarray, "h w"]) -> list[tuple[tuple[slice, slice], Bool[np.ndarray, "y x"]]]:
    """The connected regions of the mask (8-neighbours), the largest first: each one's box as slices, and its pixels
    there."""
    labels, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    found = [(box, labels[box] == number) for number, box in enumerate(ndimage.find_objects(labels), start=1)]
    return sorted(found, key=lambda region: -int(region[1].sum()))


def find_lesions(mask: Bool[np.ndarray, "h w"], probability: Float[np.ndarray, "h w"]) -> tuple[FoundLesion, ...]:
    """The `regions` of the mask, in their order."""
    found = []
    for (rows, columns), inside in regions(mask):
        area = int(inside.sum())
        box = (columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
        score = float(probability[rows, columns][inside].mean())
        found.append(FoundLesion(box, area, area / mask.size, score))
    return tuple(found)


def to_array(image: Float[Tensor, "3 h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """A tensor in [0, 1] as 8-bit pixels."""
    return (image.detach().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
