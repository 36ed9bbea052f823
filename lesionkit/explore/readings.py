"""What is read off an image in the explorer: numbers of a mask, values at a point, and a profile along a line through
it. Coordinates x, y are pixels of the image shown; pixel centres lie at halves."""

import math
from typing import Any

import numpy as np
from scipy.ndimage import map_coordinates
from torch import Tensor

from lesionkit import fusion
from lesionkit.depth import gradient_magnitude
from lesionkit.explore.whatif import Outcome, Prepared
from lesionkit.metrics import tables as metrics

PROFILE_SAMPLES = 161  # on either side of the point

Box = tuple[int, int, int, int]  # x, y, width, height of the crop that the networks see


def mask_numbers(probability: np.ndarray, threshold: float, truth: np.ndarray | None) -> dict[str, float | None]:
    """Per name a number of the mask at `threshold`; None where it needs a truth and there is none.

    probability_area and mask_area: shares of the image (the mean probability; what lies above the threshold).
    lesions: regions marked. sensitivity: share of the true lesion's pixels that is marked; false_positives: regions
    that touch no lesion; false_area: share of the image marked wrongly; dice.
    """
    mask = probability > threshold
    found: dict[str, float | None] = {
        "probability_area": float(probability.mean()),
        "mask_area": float(mask.mean()),
        "lesions": len(fusion.find_lesions(mask, probability)),
    }
    if truth is None:
        return found | dict.fromkeys(("dice", "sensitivity", "false_positives", "false_area"))
    scores = {"dice": metrics.dice(mask, truth), "sensitivity": metrics.sensitivity(mask, truth)}
    found |= {name: None if math.isnan(value) else value for name, value in scores.items()}
    found["false_positives"] = metrics.lesion_matches(mask, truth).false_components
    return found | {"false_area": float((mask & ~truth).mean())}


def profile(
    prepared: Prepared,
    now: Outcome,
    before: Outcome,
    exact: np.ndarray | None,
    point: tuple[float, float],
    degrees: float,
) -> dict[str, Any]:
    """`exact`: the true depth h×w, on scenes. Along the line through the point: `distance_px` from it, depths
    (estimated, used, exact), `gradient` (change of the estimated depth per pixel of the networks, as a share) and
    probability. At the point: `values`; `attention` and `attention_original`, one weight per scale."""
    box, depths = prepared.box, prepared.depths
    along, xs, ys = _line(point, degrees, box)
    maps = {
        "estimated": depths.target, "used": now.depth, "gradient": gradient_magnitude(before.depth),
        "gradient_used": gradient_magnitude(now.depth), "probability": now.probability,
        "probability_original": before.probability,
    }  # fmt: skip
    found: dict[str, Any] = {"distance_px": along.tolist()}
    found |= {name: _sample(m, xs, ys, box) for name, m in maps.items()}
    found["ends"] = [float(v[i]) for i in (0, -1) for v in (xs, ys)]
    found["exact"] = _exact(exact, xs, ys)
    at = np.array([point[0]]), np.array([point[1]])
    steps = {"first": depths.first, "second": depths.second, "third": depths.third}
    found["values"] = {name: _sample(m, *at, box)[0] for name, m in (steps | maps).items()}
    for name, side in (("attention", now), ("attention_original", before)):
        found[name] = [_sample(weights, *at, box, order=0)[0] for weights in side.attention]
    return found | {"point": list(point)}


def in_box(xs: Any, ys: Any, box: Box) -> Any:
    """Whether places of the original, numbers or arrays, lie in the crop."""
    x, y, width, height = box
    return (xs >= x) & (xs <= x + width) & (ys >= y) & (ys <= y + height)


def _line(point: tuple[float, float], degrees: float, box: Box) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances from the point along the line, and its x and y, inside the box; the point itself is always there."""
    width, height = box[2:]
    dx, dy = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    reach = np.linspace(-1, 1, 2 * PROFILE_SAMPLES - 1) * math.hypot(width, height)
    xs, ys = point[0] + reach * dx, point[1] + reach * dy
    inside = in_box(xs, ys, box)
    inside[PROFILE_SAMPLES - 1] = True
    return reach[inside], xs[inside], ys[inside]


def _sample(maps: Tensor, xs: np.ndarray, ys: np.ndarray, box: Box, order: int = 1) -> list[float]:
    """Values of a map of the crop `box` at places of the original."""
    x, y, width, height = box
    array = maps[0, 0].float().cpu().numpy()
    columns, rows = (xs - x) / width * array.shape[1] - 0.5, (ys - y) / height * array.shape[0] - 0.5
    return map_coordinates(array, [rows, columns], order=order, mode="nearest").astype(float).tolist()


def _exact(depth: np.ndarray | None, xs: np.ndarray, ys: np.ndarray) -> list[float] | None:
    if depth is None:
        return None
    return map_coordinates(depth, [ys - 0.5, xs - 0.5], order=1, mode="nearest").astype(float).tolist()
