"""Figures: what is drawn and what is written, by facts about the axes and the files."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from lesionkit import figures
from lesionkit.metrics.statistics import Interval


@pytest.fixture(autouse=True)
def _no_figure_left():
    yield
    plt.close("all")


def test_signed_maps_have_their_neutral_colour_at_zero():
    lopsided = [np.array([[-0.1, 0.0], [0.0, 2.0]])]
    axis = figures.gallery([figures.Row("", lopsided, "signed")]).axes[0]
    low, high = axis.images[0].get_clim()
    assert low == pytest.approx(-high)


def test_weights_have_their_neutral_colour_at_one():
    axis = figures.gallery([figures.Row("", [np.array([[0.5, 1.0], [1.0, 4.0]])], "weight")]).axes[0]
    low, high = axis.images[0].get_clim()
    assert (low + high) / 2 == pytest.approx(1.0)


def test_a_row_can_share_its_range():
    maps = torch.tensor([[[[0.0, 1.0]]], [[[0.0, 9.0]]]])
    apart = figures.gallery([figures.Row("", maps, "error")]).axes
    together = figures.gallery([figures.Row("", maps, "error", limits="row")]).axes
    assert apart[0].images[0].get_clim() != apart[1].images[0].get_clim()
    assert together[0].images[0].get_clim() == together[1].images[0].get_clim()


def test_a_row_can_take_each_columns_range_from_other_maps():
    exact = torch.tensor([[[[1.0, 10.0]]], [[[2.0, 50.0]]]])
    row = figures.Row("half the range", exact**0.5, "depth", limits=exact)
    axes = figures.gallery([row]).axes
    for axis, (low, high) in zip(axes, [(1, 10), (2, 50)], strict=True):
        drawn_low, drawn_high = axis.images[0].get_clim()
        assert np.log(low) < drawn_low < drawn_high < np.log(high), "the 1st and 99th percentile of the exact depth"
        assert drawn_high - drawn_low > 0.9 * np.log(high / low)


def test_notes_stand_on_their_own_column():
    axes = figures.gallery([figures.Row("", torch.rand(2, 3, 8, 8), notes=["3–50 mm", "5–90 mm"])]).axes
    assert [axis.texts[0].get_text() for axis in axes] == ["3–50 mm", "5–90 mm"]


def test_a_span_is_shaded_and_a_place_is_a_line():
    curves = {"depth": [1.0, 2.0, 3.0]}
    assert len(figures.lines(curves, None, "", "", mark=(1.5, 2.5)).axes[0].patches) == 1
    axis = figures.lines(curves, None, "", "", mark=2.0).axes[0]
    assert not axis.patches
    assert list(axis.lines[-1].get_xdata()) == [2.0, 2.0]


def test_depth_is_drawn_by_its_logarithm_and_only_where_it_is_known():
    depth = torch.tensor([[[[1.0, 10.0], [100.0, 0.0]]]])
    inside = torch.tensor([[[[1.0, 1.0], [0.0, 1.0]]]])
    axis = figures.gallery([figures.Row("", depth, "depth", inside=inside)]).axes[0]
    drawn = axis.images[0].get_array().filled(np.nan)
    assert drawn[0, 1] == pytest.approx(np.log(10))
    assert np.isnan(drawn[1, 0]), "outside the content"
    assert np.isnan(drawn[1, 1]), "no depth"


def test_outlines_are_drawn_for_masks_that_are_not_empty():
    mask = torch.zeros(2, 1, 8, 8)
    mask[0, 0, 2:5, 2:5] = 1
    axes = figures.gallery([figures.Row("", torch.rand(2, 3, 8, 8), truth=mask)]).axes
    assert len(axes[0].collections) == 1
    assert len(axes[1].collections) == 0


def test_intervals_stand_where_their_numbers_are():
    values = {"a": Interval(0.5, 0.4, 0.7, n=9), "b": Interval(-0.1, -0.2, 0.1, n=9)}
    axis = figures.intervals(values, "difference", zero=True).axes[0]
    spans = [tuple(line.get_xdata()) for line in axis.lines if len(line.get_xdata()) == 2]
    assert (0.4, 0.7) in spans
    assert (-0.2, 0.1) in spans
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b"]


def test_show_keeps_the_picture_and_what_it_shows(tmp_path):
    table = pd.DataFrame({"dice": [0.25, 0.5]}, index=["a", "b"])
    figures.show(figures.bars({"dice": table["dice"]}, ["a", "b"], "", "Dice"), tmp_path / "new", "dice", table)
    with Image.open(tmp_path / "new" / "dice.png") as picture:
        assert picture.size[0] > 500
    assert pd.read_csv(tmp_path / "new" / "dice.csv", index_col=0)["dice"].tolist() == [0.25, 0.5]


@pytest.mark.parametrize(("kind", "encoding"), [("plot", "PNG"), ("photograph", "JPEG")])
def test_show_takes_the_encoding_that_suits_the_picture(tmp_path, monkeypatch, kind, encoding):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    if kind == "plot":
        fig = figures.lines({"loss": [3.0, 2.0, 1.0]}, None, "epoch", "loss")
    else:
        noise = torch.rand(4, 3, 96, 96, generator=torch.Generator().manual_seed(0))
        fig = figures.gallery([figures.Row("", noise)])
    figures.show(fig, tmp_path, "a_figure")
    head = shown[0].data[:4]
    assert (head == b"\x89PNG") == (encoding == "PNG")
    assert not plt.fignum_exists(fig.number), "a figure that was shown is closed"
