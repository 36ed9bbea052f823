"""The arms: that they are what they are called, that a run is kept, and the arithmetic of their differences."""

import json

import arms
import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from lesionkit.depth import DepthNet

SMALL = ["--size", "64", "--scenes", "8", "--epochs", "1", "--test-scenes", "4", "--device", "cpu"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(arms, "kept_frames", arms.frames.rendered_frames)  # nothing into the user's cache


def run(*options, **how):
    return CliRunner().invoke(arms.main, [*SMALL, *options], **how)


def test_a_run_writes_its_file_alone_and_an_unbroken_one_is_that_of_two_halves(tmp_path, monkeypatch):
    whole, halves = tmp_path / "whole.json", tmp_path / "halves.json"
    monkeypatch.setattr(arms, "write_figures", lambda runs: pytest.fail("figures were written"))
    assert run("--arms", "plain,depth", "--seeds", "1", "--json", str(whole)).exit_code == 0
    trained, train = [], arms.one_run

    def counted(arm, *rest):
        trained.append(arm)
        if trained == ["plain", "depth"]:
            raise KeyboardInterrupt
        return train(arm, *rest)

    monkeypatch.setattr(arms, "one_run", counted)
    for _ in range(2):
        run("--arms", "plain,depth", "--seeds", "1", "--json", str(halves))
    assert trained == ["plain", "depth", "depth"]  # plain was finished
    one, two = (json.loads(path.read_text())["runs"] for path in (whole, halves))
    for row in one + two:
        del row["seconds"]
    assert one == two
    assert {row["arm"] for row in one} == {"plain", "depth"}
    assert set(one[0]) >= {
        "arm",
        "seed",
        "config",
        "dice",
        "average_precision",
        "boundary_f1",
        "found",
        "false_regions",
    }


def test_every_arm_trains_and_is_tested_on_every_configuration_from_one_training(tmp_path):
    path = tmp_path / "arms.json"
    names = [arm for arm in arms.ARMS if arm not in ("plain", "depth")]
    found = run("--arms", ",".join(names), "--seeds", "2", "--config", "standard,shift", "--json", str(path))
    assert found.exit_code == 0, found.output
    rows = json.loads(path.read_text())["runs"]
    assert [(row["arm"], row["config"]) for row in rows] == [(a, c) for a in names for c in ("standard", "shift")]
    assert all(rows[i]["loss"] == rows[i + 1]["loss"] for i in range(0, len(rows), 2))


def test_the_map_shows_the_same_scenes_under_other_colour_relief_and_light():
    cells = {name: arms.kept_frames("test", 2, 64, 911, one) for name, one in arms.test_configs(["map"]).items()}
    assert len(cells) == 24
    base = cells["contrast 0.3, relief 1, light 1"]
    paler, dimmer, flat = (
        cells[name]
        for name in (
            "contrast 0.1, relief 1, light 1",
            "contrast 0.3, relief 1, light 0.6",
            "contrast 0.3, relief 0, light 1",
        )
    )
    for other in (paler, dimmer):
        assert torch.equal(other.depth, base.depth)
        assert torch.equal(other.mask, base.mask)
        assert not torch.equal(other.image, base.image)
    assert not torch.equal(flat.depth, base.depth)
    assert flat.mask.sum() > 0.5 * base.mask.sum() > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--arms", "plain,dept"], "'dept' does not exist: use plain, depth, learned"),
        (["--seeds", "1,x"], "is no list of whole numbers"),
        (["--config", "easy"], "'easy' does not exist: use standard, shift"),
    ],
)
def test_what_does_not_exist_is_refused_in_one_line(options, words):
    found = run(*options)
    assert found.exit_code == 2
    assert [line for line in found.output.splitlines() if words in line]


@pytest.mark.parametrize("content", ["{}", "nothing", '{"settings": {"size": 32}, "runs": []}'])
def test_a_file_of_something_else_is_left_alone(tmp_path, content):
    path = tmp_path / "arms.json"
    path.write_text(content)
    found = run("--seeds", "1", "--json", str(path))
    assert found.exit_code == 1
    assert "name another file or delete it" in found.output
    assert path.read_text() == content


@torch.no_grad()
def test_ceilings_and_the_borrowed_encoder_are_what_they_are_called():
    torch.manual_seed(0)
    net, image, depth = DepthNet(), torch.rand(2, 3, 64, 64), 20 + 5 * torch.rand(2, 1, 64, 64)
    alone, both, borrowed = (arms.untrained(arm, net).eval() for arm in ("alone", "concatenated", "from_depth"))
    assert torch.equal(alone(image, depth).logits, alone(1 - image, depth).logits)
    assert not torch.equal(alone(image, depth).logits, alone(image, depth.flip(0)).logits)
    for other in ((1 - image, depth), (image, depth.flip(0))):
        assert not torch.equal(both(image, depth).logits, both(*other).logits)
    first = next(net.global_net.encoder.parameters())
    first += 1
    assert not torch.equal(next(borrowed.encoder.parameters()), first)
    borrowed = arms.untrained("from_depth", net)
    assert torch.equal(next(borrowed.encoder.parameters()), first)
    assert torch.equal(borrowed(image, depth).logits, borrowed(image, depth.flip(0)).logits)


def test_differences_are_paired_by_seed_with_students_interval():
    rows = [
        {"arm": arm, "seed": seed, "config": "standard", **dict.fromkeys(arms.MEASURES, value)}
        for arm, values in {"depth": (0.80, 0.84, 0.78), "plain": (0.78, 0.81, 0.77)}.items()
        for seed, value in enumerate(values)
    ]
    one = arms.differences(pd.DataFrame(rows)).set_index("measure").loc["dice"]
    assert one["mean"] == pytest.approx(0.02)
    assert one["high"] - one["mean"] == pytest.approx(4.3027 * 0.01 / np.sqrt(3), rel=1e-3)  # t of two degrees
    assert np.isnan(one["p_holm"])  # the primary comparison stands alone


def test_holm_by_hand():
    found = arms.holm(pd.Series([0.01, 0.04, np.nan, 0.03]))
    assert found.tolist()[:2] + found.tolist()[3:] == pytest.approx([0.03, 0.06, 0.06])


def test_average_precision_by_hand():
    probability, mask = torch.tensor([0.9, 0.8, 0.7, 0.1]), torch.tensor([1.0, 0.0, 1.0, 0.0])
    assert arms.average_precision(probability, mask) == pytest.approx((1 + 2 / 3) / 2)
