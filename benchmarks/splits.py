"""The splits that the reference weights are trained and measured on: name in the tables -> data set, its split."""

from collections.abc import Sequence

from lesionkit.datasets import Sample, open_dataset
from lesionkit.splitting import groups_of

SPLITS = {
    # that of published tables; ClinicDB's test part shares its videos with the training part
    "pranet": {"Kvasir-100": ("kvasir-seg", "pranet"), "ClinicDB-62": ("cvc-clinicdb", "pranet")},
    # ClinicDB's videos kept apart: the honest one
    "sequence": {"Kvasir-100": ("kvasir-seg", "pranet"), "ClinicDB by sequence": ("cvc-clinicdb", "sequence")},
}


def videos_of(names: Sequence[str]) -> list[str]:
    """The video (or pair of near-duplicates) of each image; an image of none is one of its own."""
    known = groups_of("cvc-clinicdb") | groups_of("kvasir-seg")
    return [known.get(name, name) for name in names]


def samples_of(part: str, split: str) -> dict[str, tuple[Sample, ...]]:
    """The samples of "train", "validation" or "test" by set; only a test part has the label of the tables."""
    sets = SPLITS[split].items()
    return {(label if part == "test" else name): open_dataset(name).part(part, kind) for label, (name, kind) in sets}
