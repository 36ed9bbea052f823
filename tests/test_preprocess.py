"""Preprocessing on synthetic frames of which every step's result is known."""

import cv2
import numpy as np
import pytest
import torch
from scipy import ndimage
from view import overlap

from lesionkit.frames import on_screen, rendered_frames
from lesionkit.preprocess import (
    ImageError,
    check,
    close_gaps,
    crop_resize,
    dilate,
    even_colour,
    even_exposure,
    find_view,
    highlight_mask,
    preprocess,
    soften_highlights,
    view_mask,
)

TISSUE = torch.tensor([0.6, 0.35, 0.3]).view(3, 1, 1)


def frame(h=120, w=160, box=(20, 10, 100, 90), seed=0) -> torch.Tensor:
    """Tissue in a box (x, y, width, height) of a black frame."""
    x, y, width, height = box
    image = torch.zeros(1, 3, h, w)
    grain = torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(seed)) * 0.1
    image[:, :, y : y + height, x : x + width] = TISSUE + grain
    return image


def boxes_of(image: torch.Tensor) -> torch.Tensor:
    return find_view(image)[0]


def ones(image: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(image[:, :1])


# --- the view area


@pytest.mark.parametrize("box", [(20, 10, 100, 90), (0, 0, 160, 120), (1, 0, 159, 119)])
def test_box_is_found_to_the_pixel(box):
    assert boxes_of(frame(box=box)).tolist() == [list(box)]


def test_boxes_of_a_batch_are_independent():
    boxes = [(20, 10, 100, 90), (5, 30, 60, 60)]
    assert boxes_of(torch.cat([frame(box=b) for b in boxes])).tolist() == [list(b) for b in boxes]


def test_burnt_in_text_and_a_grey_surround_are_not_content():
    pixels = (frame(box=(60, 10, 90, 100))[0].permute(1, 2, 0) * 255).to(torch.uint8).contiguous().numpy()
    pixels[pixels.max(axis=2) == 0] = 22  # ClinicDB's surround
    cv2.putText(pixels, "12:03", (2, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.35, (255, 255, 255), 1)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    assert (image[:, :, :, :55] > 0.5).any()
    assert boxes_of(image).tolist() == [[60, 10, 90, 100]]


def test_a_black_box_in_a_corner_is_inside_the_box_but_no_content():
    image = frame(96, 96, (0, 0, 96, 96))
    image[:, :, 64:, :32] = 0  # the position image of some processors
    assert boxes_of(image).tolist() == [[0, 0, 96, 96]]
    view = view_mask(image)[0, 0]
    assert view[70:, :26].sum() == 0
    assert view[:60].mean() == 1
    assert view[70:, 36:].mean() == 1


def test_a_dark_lumen_is_content():
    image = frame(96, 96, (0, 0, 96, 96))
    image[:, :, 40:60, 40:60] = 0
    assert view_mask(image).mean() == 1


def test_a_lumen_that_runs_out_of_the_frame_leaves_no_gap():
    """Below the middle of the lumen nothing is bright, in three columns down to the edge."""
    image = frame(96, 96, (0, 0, 96, 96))
    image[:, :, 40:96, 47:50] = 0
    assert view_mask(image).mean() == 1
    octagon = torch.ones(1, 1, 96, 96)
    octagon *= (torch.arange(96)[:, None] + torch.arange(96)[None] > 30).float()
    assert torch.equal(view_mask(frame(96, 96, (0, 0, 96, 96)) * octagon), octagon)  # its corners stay
    image[:, :, 40:96, 20:80] = 0  # a wide dark region may as well be a surround
    assert view_mask(image)[0, 0, 60:, 40:60].sum() == 0


def test_closing_and_growing_are_the_textbooks():
    """Against scipy's: the two passes along columns and rows are one square."""
    torch.manual_seed(0)
    mask = (torch.nn.functional.avg_pool2d(torch.rand(1, 1, 40, 61), 5, 1, 2) > 0.52).float()
    array, square = mask[0, 0].bool().numpy(), np.ones((5, 5), bool)
    assert 0.1 < array.mean() < 0.9
    grown = dilate(mask, 5)[0, 0].bool().numpy()
    np.testing.assert_array_equal(grown, ndimage.binary_dilation(array, square))
    wide = np.pad(array, 20)
    closed = ndimage.binary_closing(wide, np.ones((9, 9), bool))[20:-20, 20:-20]
    np.testing.assert_array_equal(close_gaps(mask)[0, 0].bool().numpy(), closed)


def test_a_black_frame_with_a_line_of_text_is_kept_whole():
    image = torch.zeros(2, 3, 480, 640)
    image[0, :, 20:32, 30:150] = 1  # a fifth of each of its rows, a fortieth of each column
    image[1, :, 100:300, 200:500] = 1
    assert boxes_of(image).tolist() == [[0, 0, 640, 480], [200, 100, 300, 200]]


def test_a_black_frame_is_kept_whole_and_finite():
    seen = preprocess(torch.zeros(1, 3, 50, 70), 32)
    assert seen.box.tolist() == [[0, 0, 70, 50]]
    assert seen.view.sum() == 0
    assert seen.image.abs().max() < 1e-6


# --- the view on a processor's screen


@pytest.fixture(scope="module")
def tissue() -> np.ndarray:
    """A rendered view of 360 px; its lumen is dark."""
    raw = rendered_frames("test", 3, 384, seed=3).raw[2]
    return (raw[:, 12:372, 12:372] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255


COLOURS = {
    "white light": lambda view: view,
    "blue": lambda view: view[..., ::-1],
    "green": lambda view: view[..., [1, 0, 2]],
    "narrow band": lambda view: (view[..., [1, 1, 2]] * [0.6, 1, 1]).astype(np.uint8),
    "dim": lambda view: (view * 0.4).astype(np.uint8),
}


@pytest.mark.parametrize("colour", COLOURS)
def test_the_view_is_found_beside_panel_still_and_text(tissue, colour):
    view = COLOURS[colour](tissue)
    screen, box = on_screen(view, still=view)
    seen = preprocess(tensor(screen), 128)
    assert overlap(seen.found[0].tolist(), box) > 0.97
    assert 0.8 < seen.view.mean() <= 0.95  # an octagon
    assert seen.image[seen.view.expand(-1, 3, -1, -1) == 0].sum() == 0


def test_a_panel_over_the_view_is_no_tissue(tissue):
    screen, (left, _, width, _) = on_screen(tissue)
    screen[220:, left : left + 120] = (38, 182, 143)
    screen[300:304, left + 20 : left + 90] = 60  # its drawing
    seen = preprocess(tensor(screen), 352)
    assert overlap(seen.found[0].tolist(), (left, 0, width, 360)) > 0.97
    assert seen.view[..., 240:, :100].mean() < 0.02
    assert seen.view[..., 100:200, 100:260].mean() == 1


def test_a_dark_view_with_a_bright_rim_and_a_lumen_as_dark_as_the_surround_is_kept():
    rows, columns = torch.meshgrid(torch.arange(240) - 119.5, torch.arange(320) - 159.5, indexing="ij")
    radius = (rows.square() + columns.square()).sqrt()
    grain = 0.05 * torch.rand(1, 3, 240, 320, generator=torch.Generator().manual_seed(0))
    image = torch.where((radius < 110) & (radius > 95), 0.5 * TISSUE + grain, 0.0)
    seen = preprocess(image, 96)
    assert overlap(seen.found[0].tolist(), (50, 10, 220, 220)) > 0.97
    assert seen.view[..., 30:66, 30:66].mean() == 1


def test_tissue_behind_a_wide_dark_lumen_is_kept_and_a_still_that_touches_the_view_is_not(tissue):
    rows, columns = torch.meshgrid(torch.arange(240) - 119.5, torch.arange(320) - 159.5, indexing="ij")
    round_view, lumen = rows.square() + columns.square() < 110**2, (rows + columns - 40).abs() < 25
    image = frame(240, 320, (0, 0, 320, 240)) * (round_view & ~lumen)
    assert overlap(boxes_of(image)[0].tolist(), (50, 10, 220, 220)) > 0.97
    screen, box = on_screen(tissue)
    screen[:60, box[0] - 60 : box[0]] = cv2.resize(tissue, (60, 60))  # where the octagon's corner is cut
    assert overlap(boxes_of(tensor(screen))[0].tolist(), box) > 0.97


@pytest.mark.parametrize("box", [(0, 0, 320, 180), (0, 0, 200, 180), (120, 40, 200, 140)])
def test_views_may_fill_the_frame_or_touch_its_edges(box):
    assert boxes_of(frame(180, 320, box)).tolist() == [list(box)]


def test_a_frame_without_a_view_keeps_its_box_and_marks_nothing(tissue):
    panel = np.full((180, 320, 3), (38, 182, 143), np.uint8)
    still, _ = on_screen(np.full((180, 180, 3), 17, np.uint8), still=tissue)
    for pixels in (panel, still[:, :320], np.full((180, 320, 3), 17, np.uint8)):
        seen = preprocess(tensor(pixels), 64)
        assert seen.found.tolist() == [[0, 0, 320, 180]]
        assert seen.view.sum() == 0
        assert seen.image.sum() == 0


@pytest.mark.parametrize(("h", "w"), [(60, 180), (180, 60)])
def test_a_strip_gets_margins_instead_of_being_squeezed_into_a_square(h, w):
    seen = preprocess(frame(h, w, (0, 0, w, h)), 96)
    assert seen.found.tolist() == [[0, 0, w, h]]
    x, y, width, height = seen.box[0].tolist()
    assert max(width / height, height / width) == pytest.approx(1.4, abs=0.02)
    assert (x + width / 2, y + height / 2) == (pytest.approx(w / 2, abs=1), pytest.approx(h / 2, abs=1))
    assert seen.view.mean() == pytest.approx(1.4 / 3, abs=0.02)


def test_nothing_is_cut_off_where_the_whole_frame_is_asked_for(tissue):
    screen, _ = on_screen(tissue)
    seen = preprocess(tensor(screen), 96, view="whole")
    assert seen.found.tolist() == [[0, 0, 640, 360]]
    assert seen.view[..., 60:80, 5:20].mean() == 1  # the panel too


# --- geometry


@pytest.mark.parametrize("size", [32, 64, 96])  # shrinks, and grows
def test_a_marked_pixel_lands_where_it_should(size):
    box, marked = (10, 20, 60, 40), (34, 31)  # x, y in the original
    image = torch.zeros(1, 1, 80, 100)
    image[..., marked[1] - 1 : marked[1] + 2, marked[0] - 1 : marked[0] + 2] = 1
    small = crop_resize(image, torch.tensor([box]), size)[0, 0]
    assert small.shape == (size, size)
    rows, columns = (torch.arange(size) + 0.5 for _ in range(2))
    x, y = (small.sum(0) * columns).sum() / small.sum(), (small.sum(1) * rows).sum() / small.sum()
    assert x.item() == pytest.approx((marked[0] + 0.5 - box[0]) / box[2] * size, abs=0.6)
    assert y.item() == pytest.approx((marked[1] + 0.5 - box[1]) / box[3] * size, abs=0.6)


def test_shrinking_keeps_the_mean():
    image = torch.rand(1, 3, 97, 131, generator=torch.Generator().manual_seed(0))
    small = crop_resize(image, torch.tensor([[0, 0, 131, 97]]), 32)
    assert small.mean().item() == pytest.approx(image.mean().item(), abs=0.01)
    assert small.std() < 0.5 * image.std()  # averaged, not picked: no aliasing


def test_nearest_places_pixels_as_the_images_crop_does_and_mixes_none():
    maps = torch.zeros(1, 1, 80, 100)
    maps[..., 24:32, 40:52] = 5
    small = crop_resize(maps, torch.tensor([[20, 8, 64, 64]]), 32, "nearest-exact")[0, 0]
    assert sorted(small.unique().tolist()) == [0, 5]
    assert (small[8:12, 10:16] == 5).all()
    assert small.sum() == 5 * 4 * 6


# --- light and colour


@pytest.mark.parametrize("level", [0.25, 0.45, 0.6])
def test_exposure_reaches_the_target_and_keeps_the_order(level):
    image = torch.linspace(0.8, 1.2, 64).view(1, 1, 1, 64).expand(1, 3, 64, 64) * level
    even = even_exposure(image, ones(image))
    assert even.mean().item() == pytest.approx(0.45, abs=0.01)
    assert bool((even[0, 0, 0].diff() > 0).all())


def test_exposure_looks_at_the_content_only():
    image = torch.full((1, 3, 64, 64), 0.3)
    image[..., :32] = 0
    even = even_exposure(image, (image[:, :1] > 0).float())
    assert even[..., 32:].mean().item() == pytest.approx(0.45, abs=1e-4)
    assert even[..., :32].sum() == 0


def test_exposure_is_one_curve_for_the_whole_image():
    """What is twice as bright stays brighter by one rule everywhere: depth is read from brightness."""
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 0.5 + 0.05
    even = even_exposure(image, ones(image))
    gamma = torch.log(even) / torch.log(image)
    torch.testing.assert_close(gamma, gamma.mean().expand_as(gamma), rtol=1e-4, atol=0)


def test_a_colour_cast_is_halved():
    image = torch.tensor([0.62, 0.42, 0.35 * 1.44]).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    red, green, blue = even_colour(image, ones(image)).mean(dim=(0, 2, 3))
    assert (blue / red).item() == pytest.approx(0.35 / 0.62 * 1.2, rel=1e-4)  # the root of 1.44 remains
    assert (green / red).item() == pytest.approx(0.42 / 0.62, rel=1e-4)


def test_a_highlight_is_filled_and_the_rest_is_unchanged():
    image = TISSUE.expand(3, 96, 96)[None].clone()
    clean = image.clone()
    image[..., 40:44, 50:54] = 0.97
    soft = soften_highlights(image, ones(image))
    assert (soft - clean)[..., 40:44, 50:54].abs().max() < 0.02
    beyond = torch.ones(96, 96, dtype=torch.bool)
    beyond[36:48, 46:58] = False
    torch.testing.assert_close(soft[..., beyond], clean[..., beyond], rtol=0, atol=1e-6)


def test_bright_tissue_and_coloured_spots_are_no_highlights():
    image = torch.full((1, 3, 64, 64), 0.7)  # bright everywhere: nothing stands out
    assert highlight_mask(image).sum() == 0
    spot = TISSUE.expand(3, 64, 64)[None].clone()
    spot[:, :, 30:33, 30:33] = torch.tensor([1.0, 0.65, 0.1]).view(3, 1, 1)  # residue, yellow
    assert highlight_mask(spot).sum() == 0


# --- the whole step


def test_the_whole_step_stays_in_range_and_keeps_the_order():
    generator = torch.Generator().manual_seed(2)
    images = torch.cat([torch.rand(1, 3, 100, 140, generator=generator) * s for s in (0.2, 1.0, 0.6)])
    images[2, :, 30:33, 30:33] = 1
    seen = preprocess(images, 64)
    assert seen.image.min() >= 0
    assert seen.image.max() <= 1
    for i in range(3):
        alone = preprocess(images[i : i + 1], 64)
        torch.testing.assert_close(alone.image[0], seen.image[i])
        assert torch.equal(alone.box[0], seen.box[i])


def test_the_same_scene_under_other_light_looks_the_same():
    image = frame()
    dim = preprocess(image * 0.6, 64).image
    left = (dim - preprocess(image, 64).image).abs().mean()
    assert left < 0.35 * (image * 0.6 - image)[image > 0].abs().mean()  # a gamma changes the contrast a little


@pytest.mark.parametrize(
    ("image", "size", "words"),
    [
        (torch.full((1, 3, 40, 40), float("nan")), 64, "NaN"),
        (torch.full((1, 3, 40, 40), 200.0), 64, r"200.*\[0, 1\]"),
        (torch.full((1, 3, 40, 40), -0.5), 64, r"\[0, 1\]"),
        (torch.zeros(1, 3, 0, 40), 64, "1×3×0×40"),
        (torch.zeros(1, 3, 40, 40), 40, "multiple of 32"),
        (torch.zeros(1, 3, 40, 40), 0, "multiple of 32"),
    ],
)
def test_bad_input_is_one_line(image, size, words):
    with pytest.raises(ImageError, match=words) as caught:
        preprocess(image, size)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(3, 40, 40), (1, 1, 40, 40), (1, 4, 40, 40)])
def test_a_wrong_shape_is_named(shape):
    # `check` is what users meet; under pytest the annotation of `preprocess` would be faster
    with pytest.raises(ImageError, match="×".join(map(str, shape))):
        check(torch.zeros(shape), 64)
