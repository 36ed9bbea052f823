"""How sure a mean is: percentile bootstrap intervals for one sample and for paired differences.

One value per image is the unit that is drawn. Frames of one video resemble each other, so that over them the intervals
are too narrow: pass the videos as `groups`, and whole groups are drawn instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

Values = Sequence | np.ndarray | pd.Series


@dataclass(frozen=True)
class Interval:
    """A mean, or a mean difference, with its 95 % interval; NaN throughout when no value was left. `n` values (or
    pairs) entered, `dropped` were NaN. `p_value` is that of "no difference", None for one sample."""

    mean: float
    low: float
    high: float
    n: int
    dropped: int = 0
    p_value: float | None = None

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}] (n = {self.n})"


def bootstrap_mean(a: Values, n: int = 10_000, seed: int = 0, groups: Values | None = None) -> Interval:
    """Mean of `a` and the 2.5 and 97.5 percentiles of `n` resampled means (Efron 1979), without NaN. groups: a label
    per value; then whole groups are drawn (Field and Welsh 2007). Raises ValueError when the lengths differ."""
    return _bootstrap(np.asarray(a, dtype=float), n, seed, groups)[0]


def paired_bootstrap(a: Values, b: Values, n: int = 10_000, seed: int = 0, groups: Values | None = None) -> Interval:
    """Mean of a − b over the same images, with interval and two-sided p-value; positive: `a` is larger.

    Whole pairs are drawn, because an image that is hard for one model is hard for the other: the interval of the
    differences is far narrower than those of the two means. A pair with a NaN is dropped and counted. The p-value is
    twice the share of resampled differences on the far side of zero, at least 2 / (n + 1), at most 1. `groups` as in
    `bootstrap_mean`. Raises ValueError when the lengths differ.
    """
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if first.shape != second.shape:
        raise ValueError(f"a pair needs both values, but there are {first.size} and {second.size}")
    interval, means = _bootstrap(first - second, n, seed, groups)
    tail = min((means <= 0).sum(), (means >= 0).sum())
    return replace(interval, p_value=min(1.0, 2 * float(tail + 1) / (n + 1)) if interval.n else float("nan"))


def _bootstrap(values: np.ndarray, n: int, seed: int, groups: Values | None) -> tuple[Interval, np.ndarray]:
    """The interval, and the resampled means that it spans."""
    labels = np.arange(values.size) if groups is None else np.asarray(groups)
    if labels.shape != values.shape:
        raise ValueError(f"a label is needed for each of the {values.size} values, not {labels.size} labels")
    known = ~np.isnan(values)
    kept, dropped = values[known], int((~known).sum())
    if not kept.size:
        return Interval(*[float("nan")] * 3, n=0, dropped=dropped), np.empty(0)
    group = np.unique(labels[known], return_inverse=True)[1]
    sums, counts = np.bincount(group, kept), np.bincount(group)
    generator = np.random.default_rng(seed)
    # one sample at a time: a whole n × size matrix of a large test part would need gigabytes
    samples = (generator.integers(sums.size, size=sums.size) for _ in range(n))
    means = np.array([sums[drawn].sum() / counts[drawn].sum() for drawn in samples])
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(kept.mean()), float(low), float(high), kept.size, dropped), means
