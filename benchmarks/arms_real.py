"""Does depth help on real images? Three of the arms of `arms.py`, trained on real ones.

    LESIONKIT_DATA=... python benchmarks/arms_real.py

Trained on the training parts of Kvasir-SEG (PraNet's split) and CVC-ClinicDB (by sequence: PraNet's test part shares
its videos with the training part), with lesion-free crops; operating points are fixed on a validation part of the same.
Tested on Kvasir-100, ClinicDB by sequence, and the centres of PolypGen's single frames that lie in
LESIONKIT_DATA/polypgen-single. Depth is estimated by the shipped network, which has seen rendered scenes alone. The
measures are those of `arms.py`, at the networks' size. Runs are kept after every arm, in results/arms_real.json or in
--json FILE; without --json also written: figures/arms_real.csv and figures/arms_real_differences.csv.
"""

from functools import lru_cache
from pathlib import Path

import arms
import click
import report
import torch
from splits import CENTRES, pooled, samples_of
from torch import Tensor, nn

from lesionkit import datasets
from lesionkit.datasets import Sample
from lesionkit.devices import resolve
from lesionkit.frames import Frames, join, lesion_free_crops, real_frames


class RealData(arms.Data):
    """As `arms.Data`; a seed changes no images, only first weights, order and augmentation."""

    def __init__(self, settings: arms.Settings, depth_net: nn.Module, device: torch.device):
        super().__init__(settings, depth_net, device)
        self.part = lru_cache(maxsize=2)(self._part)

    def _of_seed(self, part: str, seed: int) -> tuple[Frames, Tensor]:
        return self.part(part)

    def _part(self, part: str) -> tuple[Frames, Tensor]:
        real = real_frames(pooled(part, "sequence"), self.settings["size"])
        return self._with_depth(join([real, lesion_free_crops(real, len(real) // 6)]))

    def _test(self, samples: tuple[Sample, ...]) -> tuple[Frames, Tensor]:
        return self._with_depth(real_frames(samples, self.settings["size"]))


def tests() -> dict[str, tuple[Sample, ...]]:
    """The samples by set."""
    elsewhere = samples_of("test", "elsewhere") if datasets.folder_of("polypgen-single").is_dir() else {}
    return samples_of("test", "sequence") | {label: one for label, one in elsewhere.items() if label in CENTRES}


@click.command()
@click.option("--arms", "names", default="plain,depth,luminance", callback=arms.listed(arms.SIX[:4]), show_default=True)
@click.option("--seeds", default="1,2,3", callback=arms.seeds_of, show_default=True)
@click.option("--size", default=160, show_default=True, help="Edge of the segmenter's frames in pixels.")
@click.option("--epochs", default=8, show_default=True)
@click.option("--weights", default="reference", show_default=True, help="Whose depth network estimates.")
@click.option("--device", default="auto", show_default=True)
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write this and nothing else.")
def main(
    names: list[str], seeds: list[int], size: int, epochs: int, weights: str, device: str, path: Path | None
) -> None:
    """Train and measure the arms; see the head of this file."""
    data = RealData(
        {"size": size, "epochs": epochs, "batch_size": 8}, arms.depth_network(weights, device), resolve(device)
    )
    table = arms.all_runs(data, names, seeds, tests(), path or report.RESULTS / "arms_real.json")
    if path is None:
        table.to_csv(arms.FIGURES / "arms_real.csv", index=False, float_format="%.5f")
        arms.differences(table).to_csv(arms.FIGURES / "arms_real_differences.csv", index=False, float_format="%.5f")
    arms.tell(table)


if __name__ == "__main__":
    main()
