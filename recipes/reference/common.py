"""What both trainings of the recipe use."""

import time

import torch


def log(line: str) -> None:
    print(time.strftime("%H:%M:%S"), line, flush=True)


def mean_of(states: list[tuple[float, dict[str, torch.Tensor]]]) -> dict[str, torch.Tensor]:
    """The weighted mean of several networks' weights; `states` are pairs of a share and a state."""
    first = states[0][1]  # batch norm's counters of steps are whole numbers, and no longer needed
    return {
        name: sum(share * state[name] for share, state in states) if value.is_floating_point() else value
        for name, value in first.items()
    }
