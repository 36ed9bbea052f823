"""The networks' forward pass against a known one: MONAI's FlexibleUNet with an EfficientNet-B0, at the same input.

    pip install monai && python benchmarks/forward.py

Ours is all that runs between preprocessing and fusion: depth network, attention, encoder, decoder; as trained, and as
`detect` runs it, with its batch normalisations folded into the convolutions. MONAI's are folded where `fused` finds
them, in its encoder. A third is the kit's first branch (`lesionkit.first_branch`), which the guidance of today must not
cost more than 1.35 times. All take turns, image by image, so that whatever slows the machine down meets each;
weights do not matter here, and all are random. Beside it: how many images a second ours takes, and how much of the
time is preprocessing where that is done on the device as well (`detect.py` has the rest: files, overlay).
"""

import statistics
from collections.abc import Callable

import click
import report
import torch

from lesionkit.depth import DepthNet
from lesionkit.detector import Detector, DetectorConfig, fused
from lesionkit.devices import resolve
from lesionkit.first_branch import give_first_branch
from lesionkit.preprocess import preprocess
from lesionkit.segmentation import DepthGuidedSegmenter


def untrained(encoder: str, device: str, first: bool = False) -> Detector:
    """A detector with today's branch, or with the first one."""
    segmenter = DepthGuidedSegmenter("depth", encoder, pretrained=False)
    if first:
        give_first_branch(segmenter)
    return Detector(DepthNet(pretrained=False), segmenter, DetectorConfig(encoder=encoder, depth_px=0), device)


def rival(device: torch.device) -> torch.nn.Module:
    try:
        from monai.networks.nets import FlexibleUNet
    except ImportError:
        raise click.ClickException("MONAI is not installed: pip install monai") from None
    net = FlexibleUNet(in_channels=3, out_channels=1, backbone="efficientnet-b0", pretrained=False)
    return net.to(device, memory_format=torch.channels_last).eval()


@torch.inference_mode()
def turns(nets: dict[str, Callable], image: torch.Tensor, repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each call; the first two of each warm up."""
    times = {name: [] for name in nets}
    for _ in range(repeats + 2):
        for name, net in nets.items():
            times[name].append(1e3 * report.seconds(lambda net=net: net(image), image.device))
    return {name: found[2:] for name, found in times.items()}


def times_as_fast(times: dict[str, list[float]], ours: str, theirs: str) -> float:
    return statistics.median(y / x for x, y in zip(times[ours], times[theirs], strict=True))


def rates(times: dict[str, list[float]], batch: int) -> dict[str, float]:
    """Images a second of ours as `detect` runs it, and with preprocessing; and what share of the time that is."""
    alone, whole = (statistics.median(times[name]) for name in ("ours_folded", "with_preprocessing"))
    share = 1 - alone / whole
    return {"per_second": 1e3 * batch / alone, "per_second_whole": 1e3 * batch / whole, "not_network": share}


@click.command()
@click.option("--sizes", default="256,320,352", show_default=True, help="Edges in pixels.")
@click.option("--batches", default="1", show_default=True, help="Images at once.")
@click.option("--repeats", default=20, show_default=True)
@click.option("--encoder", default="efficientnet-lite2", show_default=True)
@click.option("--device", default="auto", show_default=True)
def main(sizes: str, batches: str, repeats: int, encoder: str, device: str) -> None:
    """Measure the forward pass; see the head of this file."""
    facts = report.machine(resolve(device))
    detector, frozen, first = (untrained(encoder, device, first) for first in (False, False, True))
    theirs, results, rows = rival(detector.device), {}, []
    nets = {"ours": detector.maps, "monai": theirs, "ours_folded": frozen.fuse().maps, "monai_folded": fused(theirs)}
    nets["first_folded"] = first.fuse().maps
    nets["with_preprocessing"] = lambda image: frozen.maps(preprocess(image, image.shape[-1]).image)
    for size_px in map(int, sizes.split(",")):
        for batch in map(int, batches.split(",")):
            image = torch.rand(batch, 3, size_px, size_px, device=detector.device)
            times = turns(nets, image.to(memory_format=torch.channels_last), repeats)
            ratios = {
                "times_as_fast": times_as_fast(times, "ours", "monai"),
                "times_as_fast_folded": times_as_fast(times, "ours_folded", "monai_folded"),
                "times_as_fast_in_use": times_as_fast(times, "ours_folded", "monai"),  # each as its users run it
                "times_the_first_branch": times_as_fast(times, "first_folded", "ours_folded"),  # what it costs
            }
            spreads = {f"{name}_ms": report.spread(found) for name, found in times.items()}
            speed = rates(times, batch)
            results[f"{size_px} px, batch {batch}"] = spreads | ratios | speed
            row = {name: f"{spreads[f'{name}_ms']['median']:.1f} ms" for name in nets}
            row |= {name: f"{ratio:.2f}" for name, ratio in ratios.items()}
            row |= {"images a second": f"{speed['per_second']:.0f}", "not network": f"{speed['not_network']:.0%}"}
            rows.append((f"{size_px} px, {batch} at once", *row.values()))
    report.table([("forward", *(name.replace("_", " ") for name in row)), *rows])
    parts = {"depth": detector.depth_net, "segmentation": detector.segmenter, "MONAI": theirs}
    sizes_m = {name: sum(p.numel() for p in net.parameters()) / 1e6 for name, net in parts.items()}
    click.echo("million parameters: " + ", ".join(f"{name} {size:.1f}" for name, size in sizes_m.items()))
    report.write("forward", facts, {"encoder": detector.config.encoder, "repeats": repeats}, results)


if __name__ == "__main__":
    main()
