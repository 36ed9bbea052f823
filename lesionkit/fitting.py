"""Steps [30–33] of docs/method.md in one loop: predict, compare with the labels, minimise the loss.

What is fitted, and to what, comes in as an *objective*: a function of the model and a batch that returns a scalar loss.
The loop knows nothing of depth or lesions. What this method fits stands in `training`.
"""

import io
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from lesionkit.files import write_bytes
from lesionkit.preprocess import resize

Batch = dict[str, Tensor]
Objective = Callable[[nn.Module, Batch], Tensor]
BRANCH = {"depth_features", "attention"}  # modules whose parameters learn at `branch_lr_scale`


class TrainingError(RuntimeError):
    """Training cannot start or go on; one sentence."""


@dataclass(frozen=True)
class TrainConfig:
    """How long and how fast; the defaults are for fine-tuning a pretrained encoder on a few hundred images."""

    epochs: int = 10
    batch_size: int = 16  # over all processes together
    learning_rate: float = 2e-3  # of AdamW, at the peak
    encoder_lr_scale: float = 0.5  # the pretrained encoder moves slower, or it forgets what it knew
    branch_lr_scale: float = 0.1  # what guides moves slower still, or it learns a few hundred frames by heart
    weight_decay: float = 1e-4
    warmup: float = 0.1  # share of the steps; AdamW's first estimates are poor
    clip_norm: float = 1.0  # one odd batch must not throw the weights away
    ema_decay: float = 0.98  # decay of the exponential moving average of the weights, what is kept at the end
    sizes_px: tuple[int, ...] = ()  # multi-scale: each batch is resized to one of these edges; empty leaves it alone
    precision: str = "auto"  # bf16 where the device is faster with it, else fp32
    seed: int = 0


@dataclass(frozen=True)
class History:
    """Mean training loss per epoch."""

    loss: tuple[float, ...]


def fit(
    model: nn.Module,
    data: Batch | Callable[[int], Batch],
    objective: Objective,
    config: TrainConfig,
    device: torch.device | str = "cpu",
    augment: Callable[[Batch], Batch] | None = None,
    log: Callable[[str], None] = print,
    checkpoint: Path | None = None,
    label: str = "",
) -> History:
    """Train `model` in place; at the end it holds the moving average of its weights, on `device`, in eval mode. Under
    `torchrun` the processes share each batch, and the first of them logs and writes.

    data: tensors with one row per sample, on any device; or a function that gives them for an epoch (0, 1, …), always
    as many and by the epoch alone: new scenes straight from the renderer, say. It is asked for epoch 0 in any case.
    augment: from batch to batch, on the device. checkpoint: a file written after every epoch; when it exists the
    training goes on from it, if it is of the same configuration, number of samples and `label`, which says what else
    makes this training. Raises TrainingError when it is not, when there are no samples or another number in a later
    epoch, or when the loss is no longer finite.
    """
    given = data if callable(data) else lambda epoch: data
    samples = given(0)
    count = _count(samples)
    if not count:
        raise TrainingError("there is not one training sample: check the data set and the number of images asked for")
    accelerator = make_accelerator(model, device, config.precision)

    def pick(rows: list[int]) -> Batch:  # in one go, wherever the tensors are
        return {name: value[torch.tensor(rows, device=value.device)] for name, value in samples.items()}

    torch.manual_seed(config.seed)
    order = torch.Generator()  # of its own, so that every process deals out the same batches
    whole = count >= config.batch_size  # a last batch of one or two would spoil the batch statistics
    how = {"shuffle": True, "drop_last": whole, "generator": order, "collate_fn": pick}
    loader = DataLoader(range(count), config.batch_size, **how)
    optimiser = torch.optim.AdamW(_groups(model, config), weight_decay=config.weight_decay, fused=True)
    schedule = _schedule(optimiser, config, steps=config.epochs * len(loader))
    model = model.to(accelerator.device, memory_format=torch.channels_last)
    average = moving_average(model, config.ema_decay)
    state = {"model": model, "average": average, "optimiser": optimiser, "schedule": schedule}
    made_by = {"config": asdict(config), "samples": count, "label": label}
    prepared, optimiser, loader, schedule = accelerator.prepare(model, optimiser, loader, schedule)
    history = _load_checkpoint(checkpoint, state, made_by)
    if not accelerator.is_main_process:
        log, checkpoint = (lambda line: None), None
    if history:
        log(f"going on after epoch {len(history)}/{config.epochs}")
    for epoch in range(len(history), config.epochs):
        if epoch:
            samples = None  # there may not be room for both
            samples = given(epoch)
            if _count(samples) != count:
                raise TrainingError(f"epoch {epoch + 1} has {_count(samples)} samples, the first {count}")
        # an epoch is the same whether or not it follows a restart; augmentation differs from process to process
        order.manual_seed(config.seed * 1000 + epoch)
        torch.manual_seed(config.seed * 1000 + epoch + 1_000_003 * accelerator.process_index)
        prepared.train()
        total = 0
        for batch in loader:
            batch = rescale(augment(batch) if augment else batch, config.sizes_px)
            with accelerator.autocast():
                loss = objective(prepared, batch)  # predict, and compare with the labels
            accelerator.backward(loss)  # minimise
            accelerator.clip_grad_norm_(prepared.parameters(), config.clip_norm)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad()
            average.update_parameters(model)
            total += loss.detach().float()
        history.append(float(accelerator.reduce(total, "mean")) / len(loader))
        if not math.isfinite(history[-1]):
            raise TrainingError(f"the loss is {history[-1]} in epoch {epoch + 1}: lower the learning rate")
        log(f"epoch {epoch + 1}/{config.epochs}  loss {history[-1]:.4f}")
        if checkpoint:
            content = {name: part.state_dict() for name, part in state.items()}
            torch.save({**content, "made_by": made_by, "history": history}, buffer := io.BytesIO())
            write_bytes(checkpoint, buffer.getvalue())  # a kill while writing leaves the previous epoch's file
    model.load_state_dict(average.module.state_dict())
    model.eval()
    return History(tuple(history))


def _count(samples: Batch) -> int:
    return len(next(iter(samples.values())))


def rescale(batch: Batch, sizes_px: tuple[int, ...]) -> Batch:
    """Every map of the batch resized to one of the edges, if there are any, drawn from torch's global generator."""
    if not sizes_px:
        return batch
    size_px = sizes_px[int(torch.randint(len(sizes_px), ()))]
    if size_px == batch["image"].shape[-1]:
        return batch
    modes = {name: "bilinear" if name == "image" else "nearest-exact" for name in batch}
    return {name: resize(value, size_px, modes[name]) for name, value in batch.items()}


def make_accelerator(model: nn.Module, device: torch.device | str, precision: str) -> Accelerator:
    """accelerate's device and precision; its process-wide state is reset, as one notebook fits several models."""
    device = torch.device(device)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    AcceleratorState._reset_state(reset_partial_state=True)
    chosen = best_precision(model, device) if precision == "auto" else precision
    how = DataLoaderConfiguration(split_batches=True)  # a batch is dealt out, not one more for each process
    return Accelerator(cpu=device.type == "cpu", mixed_precision=chosen.replace("fp32", "no"), dataloader_config=how)


def best_precision(model: nn.Module, device: torch.device) -> str:
    """bf16 where it is faster than fp32: CUDA from Ampere on; and CPUs with matrix tiles (AMX), but not for depthwise
    convolutions, whose backward pass took twice as long there. Other CPUs emulate bf16 slowly."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    depthwise = any(isinstance(part, nn.Conv2d) and part.groups > 1 for part in model.modules())
    tiles = device.type == "cpu" and torch.cpu._is_amx_tile_supported()
    return "bf16" if tiles and not depthwise else "fp32"


def _groups(model: nn.Module, config: TrainConfig) -> list[dict]:
    """AdamW's groups of parameters, by the modules that a parameter's name leads through: BRANCH, encoder, the rest.
    A group without parameters is left out."""
    scales = {"rest": 1.0, "encoder": config.encoder_lr_scale, "branch": config.branch_lr_scale}
    groups = {name: {"params": [], "lr": config.learning_rate * scale} for name, scale in scales.items()}
    for name, parameter in model.named_parameters():
        parts = set(name.split("."))
        kind = "branch" if parts & BRANCH else "encoder" if "encoder" in parts else "rest"
        groups[kind]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]


def _schedule(optimiser: torch.optim.Optimizer, config: TrainConfig, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up, then half a cosine down to one per cent."""
    warmup = max(1, int(config.warmup * steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(1, steps - warmup)
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    return torch.optim.lr_scheduler.LambdaLR(optimiser, factor)


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """The exponential moving average of weights and batch statistics; `update_parameters` is one step of it. Early on
    it follows faster than `decay` says, or it would remember the untrained weights."""

    @torch.no_grad()
    def follow(kept: list[Tensor], new: list[Tensor], _: Tensor) -> None:
        n = int(average.n_averaged)  # on the CPU, where the argument would wait for the device
        if kept[0].is_floating_point():
            get_ema_multi_avg_fn(min(decay, n / (9 + n)))(kept, new, None)
        else:  # batch norm's counters of steps
            for old, count in zip(kept, new, strict=True):
                old.copy_(count)

    average = AveragedModel(model, multi_avg_fn=follow, use_buffers=True)
    average.n_averaged.fill_(1)  # the untrained weights are the first: at 0 they would be thrown away
    return average


def _load_checkpoint(path: Path | None, state: dict, made_by: dict) -> list[float]:
    if path is None or not path.exists():
        return []
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        theirs, history = content["made_by"], list(content["history"])
    except Exception:  # torch raises whatever the damage leads to: KeyError, EOFError, UnpicklingError …
        raise TrainingError(f"{path} is no checkpoint or is damaged: delete it to begin anew") from None
    if theirs != made_by:
        raise TrainingError(f"{path.name} comes from another configuration: delete it or name another file")
    try:
        for name, part in state.items():
            part.load_state_dict(content[name])
    except (KeyError, RuntimeError, ValueError):  # the model, the optimiser
        raise TrainingError(f"{path.name} comes from another network: delete it or name another file") from None
    return history
