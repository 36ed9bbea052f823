"""Real data sets: what is known of them, where they lie, how they are read, split, fetched and verified."""

from lesionkit.datasets.depth import DepthSample, open_depth, read_depth_sample
from lesionkit.datasets.fetching import fetch
from lesionkit.datasets.reading import (
    SUFFIXES,
    DatasetError,
    InvalidData,
    MissingData,
    UnknownDataset,
    read_image,
    read_mask,
)
from lesionkit.datasets.registry import DEPTH_NAMES, FOLDER, NAMES, REGISTRY, check_name, data_root, folder_of, status
from lesionkit.datasets.samples import Dataset, Sample, open_dataset, open_images, read_sample
from lesionkit.datasets.splits import PARTS, split_stems, splits_of
from lesionkit.datasets.verifying import Report, verify
