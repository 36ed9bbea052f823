"""How well the view is found on real frames, and what that costs.

    LESIONKIT_DATA=... python benchmarks/view.py

figures/view_boxes.csv holds the boxes of sixty frames of the sets below LESIONKIT_DATA, drawn and checked by hand:
processors' screens with panels and stills, full frames, blue and dark views. Prints the overlap (IoU) of the boxes that
`preprocess.find_view` gives, by set, and the time of its search as a share of `preprocess` at 352 px, measured side by
side; writes figures/view.csv, a row per frame.
"""

from functools import partial
from pathlib import Path

import click
import pandas as pd
import report
import torch

from lesionkit import datasets
from lesionkit.preprocess import find_view, preprocess

FIGURES = Path(__file__).resolve().parent.parent / "figures"


def overlap(a: list[int], b: list[int]) -> float:
    """IoU of two boxes x, y, width, height."""
    wide, high = (min(a[i] + a[i + 2], b[i] + b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
    common = max(wide, 0) * max(high, 0)
    return common / (a[2] * a[3] + b[2] * b[3] - common)


@click.command()
@click.option("--write/--no-write", default=True, help="whether to write figures/view.csv")
def main(write: bool) -> None:
    """Measure; see the head of this file."""
    rows = []
    for row in pd.read_csv(FIGURES / "view_boxes.csv").itertuples():
        pixels = datasets.read_image(datasets.data_root() / row.image)
        image, box = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255, [*row[2:]]
        found = find_view(image)[0][0].tolist()
        times = {
            "search_s": report.seconds(partial(find_view, image), image.device),
            "preprocess_s": report.seconds(partial(preprocess, image, 352), image.device),
        }
        told = {"image": row.image, "set": row.image.split("/")[0], "iou": overlap(found, box)}
        rows.append(told | dict(zip(("x", "y", "width", "height"), found, strict=True)) | times)
    table = pd.DataFrame(rows)
    if write:
        table.drop(columns=["search_s", "preprocess_s"]).to_csv(FIGURES / "view.csv", index=False, float_format="%.4f")
    by_set = pd.concat([table, table.assign(set="all")]).groupby("set", sort=False)["iou"]
    click.echo(by_set.agg(["count", "mean", "min"]).round(3).to_string())
    click.echo(f"search: {table['search_s'].sum() / table['preprocess_s'].sum():.0%} of the time of preprocess")


if __name__ == "__main__":
    main()
