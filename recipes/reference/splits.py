"""The splits that the reference weights are trained and measured on: name in the tables -> data set, its split."""

from collections.abc import Sequence
from pathlib import Path

from lesionkit.datasets import InvalidData, Sample, open_dataset, open_images, status
from lesionkit.datasets.splits import groups_of, rank

SPLITS = {
    # that of published tables; ClinicDB's test part shares its videos with the training part
    "pranet": {"Kvasir-100": ("kvasir-seg", "pranet"), "ClinicDB-62": ("cvc-clinicdb", "pranet")},
    # ClinicDB's videos kept apart: the honest one
    "sequence": {"Kvasir-100": ("kvasir-seg", "pranet"), "ClinicDB by sequence": ("cvc-clinicdb", "sequence")},
}


# of hospitals that nothing was trained on, for measuring only: every image is of the test part
ELSEWHERE = {"ETIS": ("etis-laribpolypdb", ""), "ColonDB": ("cvc-colondb", "")}  # and how their images' names begin
CENTRES = {f"PolypGen {centre}": ("polypgen-single", centre) for centre in ("C1", "C2", "C4", "C6")}
FREE = {"train": 6, "threshold": 2, "test": 3}  # how many of the lesion-free sequences of PolypGen
MEASURED = (*SPLITS, "elsewhere")


def videos_of(label: str, names: Sequence[str]) -> list[str]:
    """The video (or pair of near-duplicates) of each image of a set; an image of none that is known is one of its own.
    label: as `samples_of` gives it."""
    sets = {label: name for split in (*SPLITS.values(), ELSEWHERE, CENTRES) for label, (name, _) in split.items()}
    known = groups_of(sets.get(label, label))
    return [known.get(name, name) for name in names]


def samples_of(part: str, split: str) -> dict[str, tuple[Sample, ...]]:
    """The samples of "train", "validation" or "test" by set; only a test part has the label of the tables. Of the sets
    from elsewhere whichever are here. Raises MissingData where a set is missing, or all from elsewhere; InvalidData."""
    if split == "elsewhere":
        return _elsewhere(part)
    sets = SPLITS[split].items()
    return {(label if part == "test" else name): open_dataset(name).part(part, kind) for label, (name, kind) in sets}


def pooled(part: str, split: str) -> list[Sample]:
    """The samples of all sets in one list."""
    return [sample for samples in samples_of(part, split).values() for sample in samples]


def _elsewhere(part: str) -> dict[str, tuple[Sample, ...]]:
    if part != "test":
        raise InvalidData(f"the sets from elsewhere have no {part} part: measure them with --part test")
    sets, here = ELSEWHERE | CENTRES, {row["name"] for row in status() if row["present"]}
    present = {label: one for label, one in sets.items() if one[0] in here} or sets  # with none, reading says so
    samples = {name: open_dataset(name).samples for name, _ in present.values()}
    return {
        label: tuple(sample for sample in samples[name] if sample.name.startswith(begins))
        for label, (name, begins) in present.items()
    }


def free_sequences(part: str) -> dict[str, tuple[Path, ...]]:
    """The lesion-free frames of "train", "threshold" or "test" by sequence, in order; whole sequences are dealt out, by
    a hash of their names. Raises MissingData."""
    frames: dict[str, list[Path]] = {}
    for path in open_images("polypgen-negative"):
        frames.setdefault(path.stem.split("_")[0], []).append(path)
    ranked = sorted(frames, key=rank)
    first = sum(list(FREE.values())[: list(FREE).index(part)])
    return {name: tuple(frames[name]) for name in ranked[first : first + FREE[part]]}
