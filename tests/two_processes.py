"""Run by test_fitting under torchrun, as one process or as two: a short training, its record in the given file."""

import json
import os
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from lesionkit.fitting import TrainConfig, fit


class Frozen(nn.Module):
    """A small network whose batch statistics stay as they are: over half a batch they would be others."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 1, 1))

    def train(self, mode: bool = True) -> nn.Module:
        super().train(mode)
        self.layers[1].eval()
        return self

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.layers(image)


def main(record: Path) -> None:
    torch.set_num_threads(1)
    image = torch.rand(24, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    data = {"image": image, "mask": (image[:, :1] > image[:, 1:2]).float()}
    torch.manual_seed(0)
    model = Frozen()
    config = TrainConfig(epochs=3, batch_size=8, learning_rate=1e-2, precision="fp32")

    def objective(net: nn.Module, batch: dict) -> torch.Tensor:
        return binary_cross_entropy_with_logits(net(batch["image"]), batch["mask"])

    history = fit(model, data, objective, config, "cpu", log=lambda line: None)
    processes = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    if processes == 1 or torch.distributed.get_rank() == 0:
        weights = torch.cat([p.detach().flatten() for p in model.parameters()]).tolist()
        record.write_text(json.dumps({"processes": processes, "loss": history.loss, "weights": weights}))
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        os._exit(0)  # all is written; an orderly exit now and then aborts over a thread of torch's that still runs


if __name__ == "__main__":
    main(Path(sys.argv[1]))
