"""The fit loop with a model of a few hundred weights: it learns, repeats itself, and goes on after a kill."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from lesionkit import fitting
from lesionkit.augment import Augment
from lesionkit.fitting import TrainConfig, TrainingError, fit
from lesionkit.losses import binary_cross_entropy
from lesionkit.training import augmented

CONFIG = TrainConfig(epochs=3, batch_size=4, learning_rate=1e-2, precision="fp32", seed=0)
SIZE = 32


class Tiny(nn.Module):
    """Convolution with batch statistics and an `encoder`, as the real models have."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Conv2d(8, 1, 1)

    def forward(self, image):
        return self.head(self.encoder(image))


def data(n=12) -> dict[str, torch.Tensor]:
    """The mask is where red exceeds green: learnable."""
    image = torch.rand(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    image = nn.functional.avg_pool2d(image, 5, 1, 2)
    return {"image": image, "mask": (image[:, :1] > image[:, 1:2]).float()}


def objective(model, batch):
    return binary_cross_entropy(model(batch["image"]), batch["mask"])


def train(config=CONFIG, checkpoint=None, loss=objective, augment=True, log=lambda text: None):
    torch.manual_seed(config.seed)
    model = Tiny()
    how = {"augment": augmented(Augment()) if augment else None, "log": log, "checkpoint": checkpoint}
    history = fit(model, data(), loss, config, "cpu", **how)
    return model, history


def weights(model) -> torch.Tensor:
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


# --- several processes


def test_two_processes_train_as_one_does(tmp_path):
    """The same global batch, shared by two: the same losses and the same weights."""
    script, found = Path(__file__).with_name("two_processes.py"), {}
    for count in (1, 2):
        record = tmp_path / f"{count}.json"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        done = subprocess.run([*command, str(script), str(record)], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        found[count] = json.loads(record.read_text())
        assert found[count]["processes"] == count
    torch.testing.assert_close(torch.tensor(found[2]["loss"]), torch.tensor(found[1]["loss"]), rtol=1e-4, atol=1e-5)
    weights = [torch.tensor(found[count]["weights"]) for count in (1, 2)]
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-4)
    assert found[1]["loss"][2] < found[1]["loss"][0]


# --- learning


def test_the_loss_falls_and_is_told_once_an_epoch():
    lines = []
    model, history = train(replace(CONFIG, epochs=8, learning_rate=3e-2), augment=False, log=lines.append)
    assert len(history.loss) == len(lines) == 8
    assert lines[-1] == f"epoch 8/8  loss {history.loss[-1]:.4f}"
    assert history.loss[-1] < 0.7 * history.loss[0]
    assert not model.training
    found = (model(data()["image"]) > 0).float()
    assert (found == data()["mask"]).float().mean() > 0.8


def test_same_seed_same_weights_and_another_seed_others():
    short = replace(CONFIG, epochs=2)
    one, again, other = train(short), train(short), train(replace(short, seed=1))
    assert torch.equal(weights(one[0]), weights(again[0]))
    assert one[1] == again[1]
    assert not torch.allclose(weights(one[0]), weights(other[0]))


def test_samples_can_be_others_in_every_epoch(tmp_path):
    """A function of the epoch: asked once for each, also after a break; what always says the same is as tensors are."""
    whole, asked = data(), []

    def given(epoch: int) -> dict[str, torch.Tensor]:
        asked.append(epoch)
        return {name: value.roll(epoch, dims=0) for name, value in whole.items()}

    def trained(samples, config=CONFIG, log=lambda line: None, **how) -> nn.Module:
        torch.manual_seed(0)
        model = Tiny()
        fit(model, samples, objective, config, "cpu", log=log, **how)
        return model

    unbroken = trained(given)
    assert asked == [0, 1, 2]
    assert not torch.equal(weights(unbroken), weights(trained(whole)))
    assert torch.equal(weights(trained(lambda epoch: whole)), weights(trained(whole)))

    def killed(line: str) -> None:
        if "epoch 2" in line:
            raise KeyboardInterrupt

    checkpoint = tmp_path / "fit.pt"
    with pytest.raises(KeyboardInterrupt):
        trained(given, log=killed, checkpoint=checkpoint)
    asked.clear()
    assert torch.equal(weights(trained(given, checkpoint=checkpoint)), weights(unbroken))
    assert asked in ([0, 1, 2], [0, 2])  # 0 for the number of samples; then from where it was broken


def test_another_number_of_samples_in_a_later_epoch_is_refused():
    with pytest.raises(TrainingError, match="epoch 2 has 8 samples, the first 12"):
        fit(Tiny(), lambda epoch: data(12 - 4 * epoch), objective, CONFIG, "cpu", log=lambda line: None)


def test_what_was_drawn_before_does_not_matter():
    torch.manual_seed(0)
    model = Tiny()
    torch.rand(77)
    fit(model, data(), objective, CONFIG, "cpu", augment=augmented(Augment()), log=lambda text: None)
    assert torch.equal(weights(model), weights(train()[0]))


def test_multi_scale_resizes_a_batch_as_one():
    """Every edge occurs; image and maps stay together; maps keep their values, the lesion its share."""
    batch = {"image": torch.rand(2, 3, 64, 64), "mask": torch.zeros(2, 1, 64, 64)}
    batch["depth"] = torch.full((2, 1, 64, 64), 7.0)
    batch["mask"][:, :, :32] = 1
    torch.manual_seed(0)
    seen = set()
    for _ in range(20):
        found = fitting.rescale(batch, (32, 64, 96))
        seen.add(found["image"].shape[-1])
        assert {value.shape[-2:] for value in found.values()} == {found["image"].shape[-2:]}
        assert set(found["mask"].unique().tolist()) == {0.0, 1.0}
        assert found["mask"].mean() == 0.5
        assert (found["depth"] == 7).all()
    assert seen == {32, 64, 96}
    assert fitting.rescale(batch, ()) is batch


def test_the_encoder_learns_slower():
    groups = fitting._groups(Tiny(), replace(CONFIG, encoder_lr_scale=0.25))
    assert [group["lr"] for group in groups] == [1e-2, 0.25e-2]
    assert [sum(p.numel() for p in group["params"]) for group in groups] == [9, 3 * 8 * 9 + 8 + 16]


def test_the_encoder_is_found_inside_a_larger_model():
    both = nn.ModuleDict({"depth": nn.Conv2d(3, 1, 1), "segmenter": Tiny()})
    groups = fitting._groups(both, replace(CONFIG, encoder_lr_scale=0.25))
    assert [sum(p.numel() for p in group["params"]) for group in groups] == [9 + 4, 3 * 8 * 9 + 8 + 16]


def test_what_guides_learns_slowest_its_own_encoder_too():
    guide = nn.ModuleDict({"encoder": nn.Linear(2, 2), "mix": nn.Linear(2, 3)})
    model = nn.ModuleDict(
        {"encoder": nn.Linear(1, 1), "depth_features": guide, "attention": nn.Linear(1, 4), "head": nn.Linear(1, 5)}
    )
    groups = fitting._groups(model, replace(CONFIG, encoder_lr_scale=0.5, branch_lr_scale=0.1))
    found = {round(group["lr"] / CONFIG.learning_rate, 3): sum(p.numel() for p in group["params"]) for group in groups}
    assert found == {1.0: 10, 0.5: 2, 0.1: 6 + 9 + 8}


def test_the_schedule_warms_up_and_ends_low():
    optimiser = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule, rates = fitting._schedule(optimiser, replace(CONFIG, warmup=0.1), steps=100), []
    for _ in range(100):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == pytest.approx(1.0)
    assert rates[54] == pytest.approx(0.01 + 0.99 * 0.5, abs=0.02)
    assert rates[-1] == pytest.approx(0.01, abs=0.005)


# --- the moving average


@pytest.mark.parametrize(("steps", "decay"), [(0, 1 / 10), (1, 2 / 11), (1000, 0.9)])
def test_the_average_follows_its_formula(steps, decay):
    """Early it follows faster: its decay is (1 + steps) / (10 + steps), and 0.9 at most."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = fitting.moving_average(model, decay=0.9)
    average.n_averaged += steps
    nn.init.ones_(model.weight)
    average.update_parameters(model)
    assert average.module.weight.item() == pytest.approx(1 - decay)
    average.n_averaged.fill_(1001)
    average.update_parameters(model)
    assert average.module.weight.item() == pytest.approx(1 - 0.9 * decay)


def test_batch_statistics_are_averaged_and_counters_copied():
    model = nn.BatchNorm2d(1)
    average = fitting.moving_average(model, decay=0.9)
    model.running_mean.fill_(1.0)
    model.num_batches_tracked.fill_(7)
    average.update_parameters(model)
    assert average.module.running_mean.item() == pytest.approx(0.9)
    assert average.module.num_batches_tracked.item() == 7


def test_the_model_holds_the_average_at_the_end():
    last, averaged = (train(replace(CONFIG, ema_decay=a))[0] for a in (0.0, 0.98))
    assert not torch.allclose(weights(last), weights(averaged))


# --- interruption


def interrupted_after(epochs: int):
    calls = 0

    def loss(model, batch):
        nonlocal calls
        calls += 1
        if calls > epochs * 3:  # three batches an epoch
            raise KeyboardInterrupt
        return objective(model, batch)

    return loss


def test_resuming_gives_the_weights_of_an_unbroken_run(tmp_path):
    path = tmp_path / "state" / "checkpoint.pt"
    with pytest.raises(KeyboardInterrupt):
        train(checkpoint=path, loss=interrupted_after(2))
    assert [p.name for p in path.parent.iterdir()] == ["checkpoint.pt"]
    lines = []
    resumed, unbroken = train(checkpoint=path, log=lines.append), train()
    assert [line[:9] for line in lines] == ["going on ", "epoch 3/3"]
    assert torch.equal(weights(resumed[0]), weights(unbroken[0]))
    assert resumed[1] == unbroken[1]


def test_a_finished_run_is_not_trained_again(tmp_path):
    lines = []
    first = train(checkpoint=tmp_path / "checkpoint.pt")
    again = train(checkpoint=tmp_path / "checkpoint.pt", log=lines.append)
    assert lines == ["going on after epoch 3/3"]
    assert torch.equal(weights(first[0]), weights(again[0]))
    assert first[1] == again[1]


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path):
    train(checkpoint=tmp_path / "checkpoint.pt")
    with pytest.raises(TrainingError, match=r"checkpoint\.pt comes from another configuration: delete it"):
        train(replace(CONFIG, seed=3), checkpoint=tmp_path / "checkpoint.pt")


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    path = tmp_path / "checkpoint.pt"
    how = {"log": lambda line: None, "checkpoint": path}
    fit(Tiny(), data(), objective, CONFIG, label="dice, guidance depth", **how)
    with pytest.raises(TrainingError, match=r"checkpoint\.pt comes from another configuration"):
        fit(Tiny(), data(), objective, CONFIG, label="dice, guidance none", **how)
    fewer = {name: value[:-1] for name, value in data().items()}
    with pytest.raises(TrainingError, match=r"checkpoint\.pt comes from another configuration"):
        fit(Tiny(), fewer, objective, CONFIG, label="dice, guidance depth", **how)
    larger = nn.Sequential(Tiny(), nn.Conv2d(1, 1, 1))
    with pytest.raises(TrainingError, match=r"checkpoint\.pt comes from another network"):
        fit(larger, data(), objective, CONFIG, label="dice, guidance depth", **how)


@pytest.mark.parametrize("content", ["half a file", "of another program"])
def test_a_damaged_checkpoint_is_named(tmp_path, content):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"half a file")
    if content == "of another program":
        torch.save({"weights": torch.zeros(1)}, path)
    with pytest.raises(TrainingError, match=r"checkpoint\.pt .*delete it"):
        train(checkpoint=path)


# --- errors


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path):
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(TrainingError, match="the loss is nan in epoch 1"):
        train(loss=lambda model, batch: objective(model, batch) * float("nan"), checkpoint=path)
    assert not path.exists()  # or a restart would go on with broken weights


def test_no_samples_are_an_error():
    with pytest.raises(TrainingError, match="not one training sample"):
        fit(Tiny(), {name: value[:0] for name, value in data().items()}, objective, CONFIG)


def test_fewer_samples_than_a_batch_are_trained_on():
    few = {name: value[:3] for name, value in data().items()}
    history = fit(Tiny(), few, objective, replace(CONFIG, epochs=1), log=lambda text: None)
    assert 0 < history.loss[0] < 2
