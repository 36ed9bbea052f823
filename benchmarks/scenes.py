"""How fast scenes are rendered, and what marching from coarse to fine gains; or what another program gains.

    python benchmarks/scenes.py
    python benchmarks/scenes.py --config hard [--compiled]
    python benchmarks/scenes.py --device cuda --kernel --workers 8 --count 2048 --repeats 2

Two measurements, each the median of several repeats after one that does not count:

- scenes a second, `render_scenes` from seed to finished image;
- the march alone, `march.coarse_to_fine` against `march.march` on every pixel all the way, the two in turn on the
  same scenes. All the way takes as many steps as the three levels together, so that both can come equally far. How far
  each is from the surface that a march of 400 steps finds is printed beside the time: speed alone would prove nothing.

--compiled measures instead `render_scenes` as it is against rendering within `scenes.compiled` (by torch.compile),
--kernel against `by_kernel` of recipes/reference (a CUDA kernel): the two in turn on the same scenes, and how far the
depths are from each other.
"""

import inspect
import statistics
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from unittest import mock

import click
import report
import torch
from torch import Tensor

from lesionkit import scenes
from lesionkit.devices import resolve
from lesionkit.scenes import march, surface

CONFIGS = ("basic", "standard", "hard", "examination", "blind_end")
EXACT_STEPS = 400
FAR_OFF = 0.01  # a pixel whose depth differs by more than this share is counted as another surface


def geometry(count: int, size_px: int, seed: int, device: torch.device, config: scenes.SceneConfig) -> list[tuple]:
    """What the renderer hands to the march, chunk by chunk: (tube, elements, rays)."""
    with mock.patch.object(scenes.render, "coarse_to_fine", wraps=march.coarse_to_fine) as spy:
        scenes.render_scenes(count, size_px, seed, device, config)
    return [call.args for call in spy.call_args_list]


def steps_of(chunk: tuple) -> int:
    """How many steps the levels of coarse_to_fine take together."""
    with mock.patch.object(march, "march", wraps=march.march) as spy:
        march.coarse_to_fine(*chunk)
    calls = [inspect.signature(march.march).bind(*call.args, **call.kwargs) for call in spy.call_args_list]
    return sum(call.arguments["steps"] for call in calls)


def all_the_way(tube: surface.Tube, elements: surface.Elements, rays: Tensor, steps: int) -> Tensor:
    """Every pixel marched from the lens; the plain way that coarse_to_fine replaces."""
    flat = rays.flatten(2)
    start = torch.full_like(flat[:, 0], march.NEAR_MM)
    return march.march(tube, elements, flat, start, steps).view(rays.shape[0], *rays.shape[2:])


def deviation(found: list[Tensor], exact: list[Tensor]) -> dict[str, float]:
    """Median relative error of depths, and the share of pixels that are FAR_OFF."""
    error = torch.cat([((depth - e).abs() / e).flatten() for depth, e in zip(found, exact, strict=True)])
    return {"median": error.median().item(), "far_off": (error > FAR_OFF).float().mean().item()}


def in_turn(ways: dict[str, Callable[[], object]], repeats: int, device: torch.device) -> dict:
    """Seconds of two ways, the fast one first, taken in turn so that what else the machine does hits both; the ratio is
    taken pair by pair."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            taken[name].append(report.seconds(way, device))
    ratios = [slow / fast for fast, slow in zip(*taken.values(), strict=True)]
    return {"seconds": {name: report.spread(values) for name, values in taken.items()}, "ratio": report.spread(ratios)}


@torch.inference_mode()
def compare_marches(chunks: list[tuple], repeats: int, device: torch.device) -> dict:
    """The march from coarse to fine and all the way."""
    steps = steps_of(chunks[0])
    ways = {"coarse_to_fine": march.coarse_to_fine, "all_the_way": partial(all_the_way, steps=steps)}
    runs = {name: lambda way=way: [way(*chunk) for chunk in chunks] for name, way in ways.items()}
    exact = [all_the_way(*chunk, steps=EXACT_STEPS) for chunk in chunks]
    error = {name: deviation(run(), exact) for name, run in runs.items()}  # warms up as well
    return in_turn(runs, repeats, device) | {"relative_error": error, "steps": steps}


def program_of(name: str) -> AbstractContextManager[None]:
    """Inside it scenes are rendered by the program of that name."""
    if name == "compiled":
        return scenes.compiled()
    sys.path.insert(0, str(Path(__file__).parents[1] / "recipes" / "reference"))
    import fused

    return fused.by_kernel()


def compare_program(name: str, render: Callable[[], scenes.Scenes], repeats: int, device: torch.device) -> dict:
    """Rendering by another program and plain; also how long the first call takes, which makes the program."""
    other = program_of(name)(render)
    first = report.seconds(other, device)
    difference = deviation([other().depth], [render().depth])  # warms up as well
    measured = in_turn({name: other, "plain": render}, repeats, device)
    return measured | {"first_call_s": first, "relative_difference": difference}


def report_program(found: dict, count: int, size_px: int) -> None:
    """What `compare_program` found, in words."""
    for name, value in found["seconds"].items():
        click.echo(f"{name}: {count / value['median']:.1f} scenes of {size_px} px a second")
    ratio, apart = found["ratio"], found["relative_difference"]
    click.echo(f"ratio {ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})")
    click.echo(f"first call {found['first_call_s']:.0f} s; {apart['far_off']:.2%} of pixels differ by > 1 %")


@click.command()
@click.option("--count", default=64, show_default=True, help="Scenes a repeat.")
@click.option("--size-px", default=128, show_default=True)
@click.option("--repeats", default=5, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--config", default="standard", type=click.Choice(CONFIGS), show_default=True)
@click.option("--workers", default=0, show_default=True, help="Processes that draw ahead of the renderer.")
@click.option("--compiled", "program", flag_value="compiled", help="Measure what compiling gains, and nothing else.")
@click.option("--kernel", "program", flag_value="kernel", help="Measure what a CUDA kernel gains, and nothing else.")
def main(
    count: int, size_px: int, repeats: int, seed: int, device: str, config: str, workers: int, program: str | None
) -> None:
    """Measure the renderer; see the head of this file."""
    on = resolve(device)
    facts = report.machine(on)
    drawn = getattr(scenes.SceneConfig, config)()
    settings = {"count": count, "size_px": size_px, "seed": seed, "config": config, "workers": workers}
    render = partial(scenes.render_scenes, count, size_px, seed, on, drawn, workers=workers)
    if program:
        found = compare_program(program, render, repeats, on)
        report_program(found, count, size_px)
        report.write(f"scenes_{program}_{config}", facts, settings, found)
        return
    chunks = geometry(count, size_px, seed, on, drawn)  # warms up as well
    taken = [report.seconds(render, on) for _ in range(repeats)]
    rate = report.spread([count / value for value in taken])
    marches = compare_marches(chunks, repeats, on)
    report.table([
        ("", "median", "min", "max"),
        (f"scenes a second ({count} of {size_px} px)", *(f"{rate[key]:.1f}" for key in ("median", "min", "max"))),
        *(
            (f"march {name}, s", *(f"{values[key]:.2f}" for key in ("median", "min", "max")))
            for name, values in marches["seconds"].items()
        ),
        ("all the way / coarse to fine", *(f"{marches['ratio'][key]:.2f}" for key in ("median", "min", "max"))),
    ])  # fmt: skip
    for name, error in marches["relative_error"].items():
        click.echo(f"{name}: error {error['median']:.1e} (median), {error['far_off']:.2%} of pixels off by > 1 %")
    share = marches["seconds"]["coarse_to_fine"]["median"] / statistics.median(taken)
    click.echo(f"the march is {share:.0%} of rendering")
    name = "scenes" if config == "standard" else f"scenes_{config}"
    report.write(name, facts, settings, {"scenes_per_second": rate, "march": marches, "march_share": share})


if __name__ == "__main__":
    main()
