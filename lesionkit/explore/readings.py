"""What is read off an image in the explorer: numbers of a mask, values at a point, and a profile along a line through
it. Coordinates x, y are pixels of the image shown; pixel centres lie at halves."""

import math
from typing import Any

import numpy as np
from scipy.ndimage import map_coordinates
from torch import Tensor

from lesionkit import fusion, metrics
from lesionkit.depth import gradient_magnitude
from lesionkit.explore.whatif import Outcome, Shown

PROFILE_SAMPLES = 161  # on either side of the point

Box = tuple[int, int, int, int]  # x, y, width, height of the crop that the networks see
Numbers = dict[str, float | None]


def numbers(shown: Shown, outcome: Outcome, threshold: float) -> dict[str, Numbers]:
    """Per name of `mask_numbers` the value `now`, `original` (own depth, same threshold) and their `change`."""
    truth = shown.loaded.truth
    now = before = mask_numbers(shown.probability(outcome), threshold, truth)
    if outcome is not shown.original:
        before = mask_numbers(shown.probability(shown.original), threshold, truth)
    changes = {name: None if None in (now[name], before[name]) else now[name] - before[name] for name in now}
    return {name: {"now": now[name], "original": before[name], "change": changes[name]} for name in now}


def mask_numbers(probability: np.ndarray, threshold: float, truth: np.ndarray | None) -> Numbers:
    """Per name a number of the mask at `threshold`; None where it needs a truth and there is none.

    probability_area and mask_area: shares of the image (the mean probability; what lies above the threshold).
    lesions: regions marked. sensitivity: share of the true lesion's pixels that is marked; false_positives: regions
    that touch no lesion; false_area: share of the image marked wrongly; dice.
    """
    mask = probability > threshold
    found: Numbers = {
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


def profile(shown: Shown, now: Outcome, point: tuple[float, float], degrees: float) -> dict[str, Any]:
    """Along the line through the point: `distance_px` from it, depths in `unit` (estimated, used, exact on scenes),
    `gradient` (change of the estimated depth per pixel of the networks, as a share) and probability. At the point:
    `values`; `attention` and `attention_original`, one weight per scale."""
    before, depths, box = shown.original, shown.prepared.depths, shown.prepared.box
    along, xs, ys = _line(point, degrees, box)
    lines = {"estimated": depths.target, "used": now.depth}
    lines |= {"gradient": gradient_magnitude(before.depth), "gradient_used": gradient_magnitude(now.depth)}
    lines |= {"probability": now.probability, "probability_original": before.probability}
    steps = {"first": depths.first, "second": depths.second, "third": depths.third}
    at, exact, whole = (point[:1], point[1:]), shown.loaded.depth, (0, 0, *shown.size_hw[::-1])
    return {
        "distance_px": along.tolist(),
        **{name: _sample(m, xs, ys, box) for name, m in lines.items()},
        "ends": [float(v[i]) for i in (0, -1) for v in (xs, ys)],
        "exact": None if exact is None else _sample(exact, xs, ys, whole),
        "values": {name: _sample(m, *at, box)[0] for name, m in (steps | lines).items()},
        "attention": [_sample(w, *at, box, order=0)[0] for w in now.attention],
        "attention_original": [_sample(w, *at, box, order=0)[0] for w in before.attention],
        "point": list(point),
        "unit": "relative" if exact is None else "mm",
    }


def in_box(xs: Any, ys: Any, box: Box) -> Any:
    """Whether places of the original, numbers or arrays, lie in the crop."""
    x, y, width, height = box
    return (xs >= x) & (xs <= x + width) & (ys >= y) & (ys <= y + height)


def _line(point: tuple[float, float], degrees: float, box: Box) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances from the point along the line, and its x and y, inside the box; the point itself is always there."""
    reach = np.linspace(-1, 1, 2 * PROFILE_SAMPLES - 1) * math.hypot(*box[2:])
    xs = point[0] + reach * math.cos(math.radians(degrees))
    ys = point[1] + reach * math.sin(math.radians(degrees))
    inside = in_box(xs, ys, box)
    inside[PROFILE_SAMPLES - 1] = True
    return reach[inside], xs[inside], ys[inside]


def _sample(maps: Tensor | np.ndarray, xs: Any, ys: Any, box: Box, order: int = 1) -> list[float]:
    """Values of a map of the crop `box`, a tensor 1×1×h×w or an array h×w, at places of the original."""
    x, y, width, height = box
    array = maps[0, 0].float().cpu().numpy() if isinstance(maps, Tensor) else maps
    columns = (np.asarray(xs) - x) / width * array.shape[1] - 0.5
    rows = (np.asarray(ys) - y) / height * array.shape[0] - 0.5
    return map_coordinates(array, [rows, columns], order=order, mode="nearest").astype(float).tolist()
