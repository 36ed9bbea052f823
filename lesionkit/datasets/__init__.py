"""Real data sets: what is known of them, where they lie, how they are read, split, fetched and verified."""

from lesionkit.datasets.reading import (
    SUFFIXES,
    DatasetError,
    InvalidData,
    MissingData,
    UnknownDataset,
    read_image,
    read_mask,
)
from lesionkit.datasets.samples import (
    FOLDER,
    NAMES,
    REGISTRY,
    Dataset,
    Sample,
    check_files,
    check_name,
    data_root,
    folder_of,
    listing,
    load,
    open_dataset,
    pair_files,
    place_of,
    read_sample,
    split_stems,
    splits_of,
    status,
)
from lesionkit.datasets.splits import PARTS
