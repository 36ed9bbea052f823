"""The files of a data set with lesion masks: found, paired, dealt into parts, read.

Shapes: H, W = an image's own height and width in pixels.
"""

import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lesionkit.datasets.reading import SUFFIXES, InvalidData, check_size, image_size, listing, read_image, read_mask
from lesionkit.datasets.registry import check_folder, check_name, folder_of, is_utf8, readable
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
            raise InvalidData(
                f"{self.root} lacks {len(absent)} of the {len(stems)} {part} images ({listing(absent)}): "
                f"run `lesionkit verify {self.name}`, or use folder:{self.root} for a data set of your own"
            )
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


def find_samples(name: str, folder: Path) -> tuple[list[Sample], list[str]]:
    """The samples that pair by their place and stem, and one sentence per problem. Images and masks lie in images/ and
    masks/, perhaps in folders below them, or each patient has a folder that holds both: the name of images/case1/f.png
    and of case1/images/f.png is case1/f. Raises MissingData when there is no images/ or masks/."""
    check_folder(name, folder)
    tops, sides, problems = [folder / part for part in ("images", "masks")], [], []
    is_flat = any(top.is_dir() for top in tops)
    for top in tops:
        place = top if is_flat else folder
        check_folder(name, place)
        found = list(_keyed(folder, place, top.name))
        if not found:
            check_folder(name, top)
            problems.append(f"{top} holds no image: put files there that end in {', '.join(SUFFIXES)}")
        if odd := [readable(path.name) for key, path in found if not is_utf8(key)]:
            problems.append(f"{top} has {len(odd)} file(s) whose path is no UTF-8 ({listing(odd)}): rename them")
        sides.append([(key, path) for key, path in found if is_utf8(key)])
    images, masks = ("image(s)", "a mask", sides[0]), ("mask(s)", "an image", sides[1])
    pairs, unpaired = pair(folder, images, masks, "add files of the same stem or remove them")
    return [Sample(*found) for found in pairs], problems + unpaired


def _keyed(folder: Path, place: Path, part: str) -> Iterator[tuple[str, Path]]:
    """The image files below `place` that lie in a folder `part`, each with its path within `folder` but for that folder
    and the suffix; in one Unicode form, since macOS writes an ä as two characters and others as one."""
    for path in _below(place):
        *places, _ = path.relative_to(folder).parts
        if part in places and path.suffix.lower() in SUFFIXES:
            places.remove(part)
            yield unicodedata.normalize("NFC", "/".join((*places, path.stem))), path


def _below(folder: Path) -> Iterator[Path]:
    """The visible files below a folder, in order; links to folders are followed, but not in a circle. macOS and Windows
    leave ._x.jpg, .DS_Store and Thumbs.db behind."""
    entered: set[str] = set()
    for place, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        real = os.path.realpath(place)
        if real in entered:
            names.clear()
        folders[:] = sorted(name for name in folders if real not in entered and not name.startswith("."))
        entered.add(real)
        paths = (Path(place, name) for name in sorted(names) if not name.startswith("."))
        yield from (path for path in paths if path.is_file())


def _refuse(error: OSError) -> None:
    raise InvalidData(f"{error.filename} cannot be read ({error.strerror}): check who may open it") from None


def pair(folder: Path, left: Files, right: Files, advice: str) -> tuple[list[tuple[str, Path, Path]], list[str]]:
    """(key, left path, right path) of the keys on both sides, in order, and a sentence per kind of problem: a key twice
    on one side (its first file counts), a key on one side only."""
    firsts: tuple[dict[str, Path], dict[str, Path]] = ({}, {})
    problems = []
    for (what, _, files), first in zip((left, right), firsts, strict=True):
        twice = []
        for key, path in files:
            if key in first:
                twice.append(f"{first[key].name} and {path.name}")
            first.setdefault(key, path)
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
    image, mask = read_image(sample.image), read_mask(sample.mask)
    check_size(sample.mask, mask.shape[::-1], image.shape[1::-1])
    return image, mask


def check_files(samples: Iterable[Sample]) -> None:
    """Whether every file is whole and every mask of its image's size, without decoding it all: a second per thousand
    images, where that takes ten. Raises as `read_sample` does, for the first that is not."""
    for sample in samples:
        check_size(sample.mask, image_size(sample.mask), image_size(sample.image))
