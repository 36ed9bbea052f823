"""The files of a data set with lesion masks: found, paired, dealt into parts, read.

Shapes: H, W = an image's own height and width in pixels.
"""

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lesionkit.datasets.reading import (
    SUFFIXES,
    InvalidData,
    MissingData,
    check_size,
    listing,
    read_image,
    read_mask_values,
)
from lesionkit.datasets.registry import check_folder, check_name, folder_of, not_utf8
from lesionkit.datasets.splits import PARTS, split_stems

Files = tuple[str, str, Sequence[tuple[str, Path]]]  # what they are called, what one without partner lacks, key -> path


@dataclass(frozen=True)
class Sample:
    """One image with its mask; `name` is their common stem, with the folders that both lie in: case1/frame7."""

    name: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class Dataset:
    """The paired files of one data set, in the order of their names; `root` holds images/ and masks/."""

    name: str
    root: Path
    samples: tuple[Sample, ...]

    def part(self, part: str, split: str | None = None) -> tuple[Sample, ...]:
        """The samples of "train", "validation" or "test"; see `split_stems` for how they are chosen.

        Raises InvalidData: unknown part or split, or images of the split that are not there.
        """
        if part not in PARTS:
            raise InvalidData(f"{self.name} has no part {part!r}: choose one of {', '.join(PARTS)}")
        here = {sample.name: sample for sample in self.samples}
        stems = split_stems(self.name, split, here)[part]
        if absent := [stem for stem in stems if stem not in here]:
            lack = f"{self.root} lacks {len(absent)} of the {len(stems)} {part} images ({listing(absent)})"
            advice = f"run `lesionkit verify {self.name}`, or use folder:{self.root} for a data set of your own"
            raise InvalidData(f"{lack}: {advice}")
        return tuple(here[stem] for stem in stems)


def open_dataset(name: str, root: Path | None = None) -> Dataset:
    """Find and pair the files of a data set, in images/ and masks/ of `folder_of(name, root)`, or of each folder in it;
    no image is read. See `find_samples`.

    Raises UnknownDataset, MissingData; InvalidData when images and masks do not pair one to one.
    """
    folder = folder_of(check_name(name), root)
    samples, problems = find_samples(name, folder)
    if problems:
        raise InvalidData(problems[0])
    return Dataset(name, folder, tuple(samples))


def open_images(name: str, root: Path | None = None) -> tuple[Path, ...]:
    """The images of a data set without masks, in images/ of `folder_of(name, root)`: img9 before img10. Raises
    UnknownDataset; MissingData when none are there."""
    folder = folder_of(name, root) / "images"
    check_folder(name, folder)
    found = [path for path in files_below(folder) if path.suffix.lower() in SUFFIXES]
    if not found:
        raise MissingData(f"{folder} holds no image: put files there that end in {', '.join(SUFFIXES)}")
    parts = {path: [int(n) if n.isdigit() else n for n in re.split(r"(\d+)", str(path))] for path in found}
    return tuple(sorted(found, key=parts.__getitem__))


def find_samples(name: str, folder: Path) -> tuple[list[Sample], list[str]]:
    """The samples that pair by their place and stem, and one sentence per problem. Images and masks lie in images/ and
    masks/, perhaps in folders below them, or each patient has a folder that holds both: the name of images/case1/f.png
    and of case1/images/f.png is case1/f. Raises MissingData when there is no images/ or masks/."""
    sides: dict[str, list[tuple[str, Path]]] = {"images": [], "masks": []}
    tops = [folder / part for part in sides]
    for place in tops if any(top.is_dir() for top in tops) else [folder]:
        check_folder(name, place)
        for path in files_below(place):
            *places, _ = path.relative_to(folder).parts
            part = next((one for one in places if one in sides), None)
            if part and path.suffix.lower() in SUFFIXES:
                places.remove(part)
                # in one Unicode form: macOS writes an ä as two characters and others as one
                sides[part].append((unicodedata.normalize("NFC", "/".join((*places, path.stem))), path))
    problems = []
    for top, found in zip(tops, sides.values(), strict=True):
        if not found:
            check_folder(name, top)
            problems.append(f"{top} holds no image: put files there that end in {', '.join(SUFFIXES)}")
        if odd := list(filter(None, (not_utf8(path.relative_to(top.parent)) for _, path in found))):
            problems.append(f"{top} has {len(odd)} file(s) whose path is no UTF-8 ({listing(odd)}): rename them")
    images, masks = ("image(s)", "a mask", sides["images"]), ("mask(s)", "an image", sides["masks"])
    pairs, unpaired = pair(folder, images, masks, "add files of the same stem or remove them")
    return [Sample(*found) for found in pairs], problems + unpaired


def _refuse(error: OSError) -> None:
    raise InvalidData(f"{error.filename} cannot be read ({error.strerror}): check who may open it") from None


def files_below(
    folder: Path, but: Iterable[Path] = (), refuse: Callable[[OSError], object] = _refuse
) -> Iterator[Path]:
    """The visible files below a folder, in order; links to folders are followed, but not in a circle. macOS and Windows
    leave ._x.jpg, .DS_Store and Thumbs.db behind. but: folders below it that are passed over. refuse: told of a folder
    that may not be entered; InvalidData is raised for the first, else."""
    entered = {os.path.realpath(one) for one in but}
    for place, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(place)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))


def pair(folder: Path, left: Files, right: Files, advice: str) -> tuple[list[tuple[str, Path, Path]], list[str]]:
    """(key, left path, right path) of the keys on both sides, in order, and a sentence per kind of problem: a key twice
    on one side (its first file counts), a key on one side only."""
    firsts: list[dict[str, Path]] = []
    problems = []
    for what, _, files in (left, right):
        firsts.append({key: path for key, path in reversed(files)})
        twice = [f"{firsts[-1][key].name} and {path.name}" for key, path in files if path != firsts[-1][key]]
        if twice:
            problems.append(f"{folder} has {len(twice)} {what} twice ({listing(twice)}): keep one file of each")
    both = sorted(firsts[0].keys() & firsts[1].keys())
    for (what, lacks, _), first in zip((left, right), firsts, strict=True):
        if surplus := sorted(first.keys() - both):
            problems.append(f"{folder} has {len(surplus)} {what} without {lacks} ({listing(surplus)}): {advice}")
    return [(key, firsts[0][key], firsts[1][key]) for key in both], problems


def read_sample(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Read one pair: image uint8 H×W×3 RGB and mask bool H×W.

    Raises MissingData, InvalidData as `read_image` and `read_mask` do, and for a mask of another size than its image.
    """
    image, values = read_values(sample)
    return image, values > 127


def read_values(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """As `read_sample`, with the mask's values as `read_mask_values` gives them."""
    image, values = read_image(sample.image), read_mask_values(sample.mask)
    check_size(sample.mask, values.shape[::-1], image.shape[1::-1])
    return image, values
