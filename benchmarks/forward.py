"""The networks' forward pass against a known one: MONAI's FlexibleUNet with an EfficientNet-B0, at the same input.

    pip install monai && python benchmarks/forward.py

Ours is all that runs between preprocessing and fusion: depth network, attention, encoder, decoder. The two take turns,
image by image, so that whatever slows the machine down meets both; weights do not matter here, and MONAI's are random.
"""

import statistics
from collections.abc import Callable

import click
import report
import torch

from lesionkit.detector import Detector
from lesionkit.devices import resolve


def rival(device: torch.device) -> torch.nn.Module:
    try:
        from monai.networks.nets import FlexibleUNet
    except ImportError:
        raise click.ClickException("MONAI is not installed: pip install monai") from None
    net = FlexibleUNet(in_channels=3, out_channels=1, backbone="efficientnet-b0", pretrained=False)
    return net.to(device, memory_format=torch.channels_last).eval()


@torch.inference_mode()
def turns(ours: Callable, theirs: Callable, image: torch.Tensor, repeats: int) -> tuple[list[float], list[float]]:
    """Seconds of each call; the first two of each warm up."""
    times = ([], [])
    for _ in range(repeats + 2):
        for found, net in zip(times, (ours, theirs), strict=True):
            found.append(report.seconds(lambda net=net: net(image), image.device))
    return times[0][2:], times[1][2:]


@click.command()
@click.option("--sizes", default="256,352", show_default=True, help="Edges in pixels.")
@click.option("--batches", default="1", show_default=True, help="Images at once.")
@click.option("--repeats", default=20, show_default=True)
@click.option("--weights", default="reference", show_default=True)
@click.option("--device", default="auto", show_default=True)
def main(sizes: str, batches: str, repeats: int, weights: str, device: str) -> None:
    """Measure the forward pass; see the head of this file."""
    facts = report.machine(resolve(device))
    detector = Detector.from_pretrained(weights, device).freeze()
    theirs, results, rows = rival(detector.device), {}, []
    for size_px in map(int, sizes.split(",")):
        for batch in map(int, batches.split(",")):
            image = torch.rand(batch, 3, size_px, size_px, device=detector.device)
            image = image.to(memory_format=torch.channels_last)
            a, b = turns(detector.maps, theirs, image, repeats)
            ratio = statistics.median(y / x for x, y in zip(a, b, strict=True))
            rates = {"ours_ms": report.spread([1e3 * t for t in a]), "monai_ms": report.spread([1e3 * t for t in b])}
            results[f"{size_px} px, batch {batch}"] = {**rates, "times_as_fast": ratio}
            medians = [f"{rates[name]['median']:.0f} ms" for name in ("ours_ms", "monai_ms")]
            rows.append((f"{size_px} px, {batch} at once", *medians, f"{ratio:.2f}"))
    report.table([("forward", "lesionkit", "FlexibleUNet", "times as fast"), *rows])
    nets = {"depth": detector.depth_net, "segmentation": detector.segmenter, "MONAI": theirs}
    sizes_m = {name: sum(p.numel() for p in net.parameters()) / 1e6 for name, net in nets.items()}
    click.echo("million parameters: " + ", ".join(f"{name} {size:.1f}" for name, size in sizes_m.items()))
    report.write("forward", facts, {"encoder": detector.config.encoder, "repeats": repeats}, results)


if __name__ == "__main__":
    main()
