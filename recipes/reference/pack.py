"""Packs what the reference is trained on for a machine without the data sets: frames cut to their view, small.

    LESIONKIT_DATA=... python recipes/reference/pack.py FOLDER

Writes FOLDER/NAME/images and masks, to be used as LESIONKIT_DATA: the training images of Kvasir-SEG and CVC-ClinicDB
and the lesion-free sequences, each `--size-px` square: 30 MB.
"""

from itertools import chain
from pathlib import Path

import click
from PIL import Image
from splits import FREE, free_sequences, samples_of

from lesionkit import fusion
from lesionkit.frames import Frames, lesion_free_frames, real_frames


@click.command()
@click.argument("folder", type=Path)
@click.option("--size-px", default=352)
@click.option("--quality", default=78, help="of the JPEG files")
def main(folder: Path, size_px: int, quality: int) -> None:
    for name, samples in samples_of("train", "pranet").items():
        held_out = samples_of("validation", "pranet")[name]
        for sample in (*samples, *held_out):
            write(folder / name, sample.name, real_frames([sample], size_px), quality)
    sequences = (paths for part in FREE for paths in free_sequences(part).values())
    for path in chain.from_iterable(sequences):  # all of them: which is for what, their names decide together
        write(folder / "polypgen-negative", path.stem, lesion_free_frames([path], size_px), quality)


def write(folder: Path, name: str, frame: Frames, quality: int) -> None:
    pictures = [("images", "jpg", fusion.to_array(frame.raw[0] * frame.view[0]))]
    if frame.mask.any():
        pictures.append(("masks", "png", frame.mask[0, 0].numpy() > 0))
    for part, ending, pixels in pictures:
        (folder / part).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / part / f"{name}.{ending}", quality=quality)


if __name__ == "__main__":
    main()
