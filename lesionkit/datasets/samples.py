"""The files of a data set with lesion masks: found, paired, dealt into parts, read.

Shapes: H, W = an image's own height and width in pixels.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lesionkit.datasets.errors import InvalidData, MissingData, listing
from lesionkit.datasets.reading import SUFFIXES, check_size, image_size, read_image, read_mask
from lesionkit.datasets.registry import check_name, folder_of, is_folder
from lesionkit.datasets.splits import PARTS, split_stems


@dataclass(frozen=True)
class Sample:
    """One image with its mask; `name` is their common stem."""

    name: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class Dataset:
    """The paired files of one data set, in the order of their stems; `root` holds images/ and masks/."""

    name: str
    root: Path
    samples: tuple[Sample, ...]

    def part(self, part: str, split: str | None = None) -> tuple[Sample, ...]:
        """The samples of "train", "validation" or "test"; see `split_stems` for how they are chosen.

        Raises:
            InvalidData: unknown part or split, or images of the split that are not there.
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
    """Find and pair the files of a data set; no image is read.

    Args:
        name: one of `registry.NAMES` (images/ and masks/ under root/name) or "folder:PATH" (the same under PATH).
        root: the folder of all data sets; None means `data_root()`.

    Raises:
        UnknownDataset, MissingData; InvalidData when images and masks do not pair one to one.
    """
    folder = folder_of(check_name(name), root)
    samples, problems = find_samples(name, folder)
    if problems:
        raise InvalidData(problems[0])
    return Dataset(name, folder, tuple(samples))


def find_samples(name: str, folder: Path) -> tuple[list[Sample], list[str]]:
    """The samples that pair by stem, and one sentence per problem; MissingData without the two folders."""
    images, problems = _by_stem(name, folder / "images")
    masks, more = _by_stem(name, folder / "masks")
    advice = "add a file of the same stem to {}/ or remove them"
    both, unpaired = pair(
        folder,
        ("image(s) without a mask", images, advice.format("masks")),
        ("mask(s) without an image", masks, advice.format("images")),
    )
    return [Sample(stem, images[stem], masks[stem]) for stem in both], problems + more + unpaired


def _by_stem(name: str, folder: Path) -> tuple[dict[str, Path], list[str]]:
    if not folder.is_dir():
        if is_folder(name):
            raise MissingData(f"{folder} does not exist: {name} must hold images/ and masks/")
        raise MissingData(
            f"{folder} does not exist: run `lesionkit fetch {name}` or set LESIONKIT_DATA to the folder that holds "
            f"{name}/"
        )
    # macOS and Windows leave ._x.jpg, .DS_Store and Thumbs.db behind
    visible = (path for path in sorted(folder.iterdir()) if not path.name.startswith("."))
    images = [path for path in visible if path.suffix.lower() in SUFFIXES and path.is_file()]
    found, problems = by_key(folder, "stem(s)", ((path.stem, path) for path in images))
    if not found:
        problems.append(f"{folder} holds no image: put files there that end in {', '.join(SUFFIXES)}")
    return found, problems


# --- pairing, of masks and of depth -----------------------------------------------------------------------


def by_key(folder: Path, what: str, paths: Iterable[tuple[str, Path]]) -> tuple[dict[str, Path], list[str]]:
    """key -> its first path, and a sentence if a key has two; `what` the keys are called."""
    found: dict[str, Path] = {}
    twice = []
    for key, path in paths:
        if found.setdefault(key, path) is not path:
            twice.append(f"{found[key].name} and {path.name}")
    problem = f"{folder} has {len(twice)} {what} twice ({listing(twice)}): keep one file of each"
    return found, [problem] if twice else []


def pair(folder: Path, *sides: tuple[str, dict[str, Path], str]) -> tuple[list[str], list[str]]:
    """The keys that both sides have, in order, and a sentence for each side that has more.

    sides: what its surplus is called, key -> path, what to do about a surplus.
    """
    both = sides[0][1].keys() & sides[1][1].keys()
    problems = []
    for what, paths, advice in sides:
        if surplus := sorted(paths.keys() - both):
            problems.append(f"{folder} has {len(surplus)} {what} ({listing(surplus)}): {advice}")
    return sorted(both), problems


# --- reading ----------------------------------------------------------------------------------------------


def read_sample(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Read one pair: image uint8 H×W×3 RGB and mask bool H×W.

    Raises:
        MissingData, InvalidData: as `read_image` and `read_mask` do, and for a mask of another size than its image.
    """
    image, mask = read_image(sample.image), read_mask(sample.mask)
    check_size(sample.mask, mask.shape[::-1], image.shape[1::-1])
    return image, mask


def check_files(samples: Iterable[Sample]) -> None:
    """Whether every file is whole and every mask of its image's size, without decoding it all: a second per thousand
    images, where that takes ten. Raises as `read_sample` does, for the first that is not."""
    for sample in samples:
        check_size(sample.mask, image_size(sample.mask), image_size(sample.image))
