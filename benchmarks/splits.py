"""The splits that the reference weights are trained and measured on: name in the tables -> data set, its split."""

from lesionkit.datasets import Sample, open_dataset

SPLITS = {
    # that of published tables; ClinicDB's test part shares its videos with the training part
    "pranet": {"Kvasir-100": ("kvasir-seg", "pranet"), "ClinicDB-62": ("cvc-clinicdb", "pranet")},
    # ClinicDB's videos kept apart: the honest one
    "sequence": {"Kvasir-100": ("kvasir-seg", "pranet"), "ClinicDB by sequence": ("cvc-clinicdb", "sequence")},
}


def samples_of(part: str, split: str) -> dict[str, tuple[Sample, ...]]:
    """The samples of "train", "validation" or "test" by set."""
    return {label: open_dataset(name).part(part, its_split) for label, (name, its_split) in SPLITS[split].items()}
