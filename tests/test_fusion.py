"""Masks back at the original's size, overlays that touch nothing else, and the table of lesions worked out by hand."""

import numpy as np
import pytest
import torch

from lesionkit import fusion
from lesionkit.fusion import find_lesions, overlay, restore, to_array


def test_a_blob_comes_back_to_where_it_was():
    """A 12×6 px blob at (30, 20) of a 100×80 image that was cropped to x 10–70, y 8–72 and seen at 32 px."""
    box, size = (10, 8, 60, 64), 32
    seen = torch.zeros(1, 1, size, size)
    left, right = ((x - box[0]) / box[2] * size for x in (30, 42))
    top, bottom = ((y - box[1]) / box[3] * size for y in (20, 26))
    seen[0, 0, round(top) : round(bottom), round(left) : round(right)] = 1
    whole = restore(seen, box, (80, 100))
    assert whole.shape == (80, 100)
    rows, columns = np.nonzero(whole > 0.5)
    assert columns.min() == pytest.approx(30, abs=2)
    assert columns.max() + 1 == pytest.approx(42, abs=2)
    assert rows.min() == pytest.approx(20, abs=2)
    assert rows.max() + 1 == pytest.approx(26, abs=2)


def test_outside_the_box_stands_zero_or_the_edge():
    maps = torch.full((1, 1, 32, 32), 0.75)
    maps[..., :16] = 0.25
    box, outside = (10, 5, 20, 30), np.ones((50, 60), bool)
    outside[5:35, 10:30] = False
    zero, edge = (restore(maps, box, (50, 60), fill) for fill in ("zero", "edge"))
    assert (zero[outside] == 0).all()
    assert (zero[~outside] > 0.2).all()
    np.testing.assert_array_equal(zero[~outside], edge[~outside])
    np.testing.assert_allclose(edge[:, :10], 0.25, rtol=1e-5)
    np.testing.assert_allclose(edge[:, 30:], 0.75, rtol=1e-5)
    np.testing.assert_array_equal(edge[0], edge[5])


def test_a_full_box_at_its_own_size_is_left_as_it_is():
    maps = torch.rand(1, 1, 32, 32)
    np.testing.assert_array_equal(restore(maps, (0, 0, 32, 32), (32, 32)), maps[0, 0].numpy())


# --- lesions


def by_hand() -> tuple[np.ndarray, np.ndarray]:
    mask = np.zeros((8, 10), bool)
    mask[0, 0] = True
    mask[2:4, 2:4] = mask[4, 4] = mask[5, 3] = True  # joined at corners only: one lesion of 6 pixels
    mask[6:8, 8:10] = True  # in the corner of the image
    probability = np.where(mask, 0.6, 0.1).astype(np.float32)
    probability[6, 8] = 1.0
    return mask, probability


def test_lesions_by_hand():
    found = find_lesions(*by_hand())
    assert [(one.bbox_px, one.area_px) for one in found] == [((2, 2, 3, 4), 6), ((8, 6, 2, 2), 4), ((0, 0, 1, 1), 1)]
    assert [one.score for one in found] == pytest.approx([0.6, (3 * 0.6 + 1) / 4, 0.6])
    assert [one.area_fraction for one in found] == pytest.approx([6 / 80, 4 / 80, 1 / 80])


def test_a_lesion_inside_the_box_of_another_keeps_its_own_score():
    mask = np.zeros((7, 7), bool)
    mask[0], mask[6], mask[:, 0], mask[:, 6] = True, True, True, True
    mask[3, 3] = True
    probability = np.full((7, 7), 0.7, np.float32)
    probability[3, 3] = 0.9
    ring, dot = find_lesions(mask, probability)
    assert (ring.area_px, dot.area_px) == (24, 1)
    assert (ring.score, dot.score) == (pytest.approx(0.7), pytest.approx(0.9))


def test_an_empty_mask_has_no_lesions():
    assert find_lesions(np.zeros((5, 5), bool), np.zeros((5, 5), np.float32)) == ()


def test_values_are_plain_numbers_for_json():
    one = find_lesions(*by_hand())[0]
    assert all(type(value) is int for value in (*one.bbox_px, one.area_px))
    assert type(one.area_fraction) is type(one.score) is float


# --- overlay


def picture(h=60, w=80) -> np.ndarray:
    return np.random.default_rng(0).integers(40, 200, (h, w, 3), dtype=np.uint8)


def test_overlay_changes_the_lesion_and_its_outline_only():
    image, mask = picture(), np.zeros((60, 80), bool)
    mask[20:40, 30:50] = True
    before = image.copy()
    fused = overlay(image, mask)
    assert fused.shape == image.shape
    assert fused.dtype == np.uint8
    np.testing.assert_array_equal(image, before)  # the original is not painted on
    changed = (fused != image).any(axis=2)
    near = np.zeros_like(mask)
    near[18:42, 28:52] = True
    assert not changed[~near].any()
    assert changed[mask].mean() > 0.98
    outline = fused[20, 32:48].astype(int)
    assert np.abs(outline - fusion.FOUND_RGB).max() < 60
    inner = fused[22:38, 32:48].astype(float)
    expected = (1 - fusion.TINT) * image[22:38, 32:48] + fusion.TINT * np.array(fusion.FOUND_RGB)
    assert np.abs(inner - expected).max() <= 1


def test_an_empty_mask_leaves_the_image():
    np.testing.assert_array_equal(overlay(picture(), np.zeros((60, 80), bool)), picture())


def test_views_of_images_can_be_drawn_on():
    image, mask = picture()[::-1, ::-1], np.ones((60, 80), bool)
    assert (overlay(image, mask) != image).any()


def test_a_mask_of_another_size_is_named():
    with pytest.raises(IndexError, match="size of axis is 60 but size of corresponding boolean axis is 59"):
        overlay(picture(), np.zeros((59, 80), bool))


def test_to_array_rounds_and_clamps():
    image = torch.tensor([-0.5, 0.5, 2.0]).view(3, 1, 1)
    assert to_array(image).tolist() == [[[0, 128, 255]]]
