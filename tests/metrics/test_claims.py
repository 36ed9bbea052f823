"""The three claims on arms that are drawn by hand, so that every threshold and every value can be said beforehand."""

import pandas as pd
import pytest
import torch

from lesionkit import metrics
from lesionkit.metrics import claims

NAMES = ("one", "two")


def square(row: int, column: int, side: int = 6) -> torch.Tensor:
    mask = torch.zeros(1, 64, 64)
    mask[:, row : row + side, column : column + side] = 1
    return mask


TRUTH = torch.stack([square(5, 5), square(5, 5)])  # a lesion of 36 pixels, under one per cent, in both frames


def arm(lesion: tuple[float, float], elsewhere: tuple[float, float]) -> torch.Tensor:
    """Probabilities on the lesion and on a place without one, for each of the two frames."""
    return torch.stack([a * square(5, 5) + b * square(40, 40) for a, b in zip(lesion, elsewhere, strict=True)])


CALM = arm((0.9, 0.9), (0.0, 0.7))  # finds both, one false region at 0.5
EAGER = arm((0.9, 0.4), (0.8, 0.6))  # at 0.5: one lesion, two false regions


@pytest.fixture
def points(monkeypatch) -> dict[str, pd.Series]:
    monkeypatch.setattr(claims, "FALSE_REGIONS", 0.5)  # a frame: one in two
    monkeypatch.setattr(claims, "FOUND", 1.0)
    return {name: claims.operating_point(p, TRUTH) for name, p in (("calm", CALM), ("eager", EAGER))}


def test_every_arm_comes_to_one_operating_point(points):
    assert points["calm"].tolist() == [0.5, 0.5, 0.5]
    assert points["eager"]["edges"] == 0.5
    # one false region is left above 0.6 and below 0.8, the nearest to 0.5 of those is 0.6 itself (p > t)
    assert points["eager"]["same false"] == 0.6
    # both lesions are found below 0.4
    assert points["eager"]["same found"] == 0.35


def test_values_are_taken_at_each_claims_own_point(points):
    calm, eager = (claims.values(p, points[name], TRUTH, NAMES) for name, p in (("calm", CALM), ("eager", EAGER)))
    assert list(calm.columns) == list(claims.CLAIMS)
    assert list(calm.index) == list(NAMES)
    assert calm[claims.CLAIMS[0]].tolist() == [1, 1]
    assert eager[claims.CLAIMS[0]].tolist() == [1, 0]  # above 0.6
    assert calm[claims.CLAIMS[2]].tolist() == [0, 1]
    assert eager[claims.CLAIMS[2]].tolist() == [1, 1]  # above 0.35
    assert eager[claims.CLAIMS[1]].tolist() == metrics.evaluate_masks(EAGER > 0.5, TRUTH)["boundary_f1"].tolist()


def test_a_frame_that_says_nothing_about_a_claim_is_nan(points):
    large, none = torch.ones(1, 1, 64, 64), torch.zeros(1, 1, 64, 64)
    truth, marked = torch.cat([large, none]), torch.full((2, 1, 64, 64), 0.9)
    found = claims.values(marked, points["calm"], truth, NAMES)
    assert found[claims.CLAIMS[0]].isna().all()  # a large lesion, and none
    assert found[claims.CLAIMS[1]].isna().tolist() == [False, True]
    assert found[claims.CLAIMS[2]].tolist() == [0, 1]
