"""Runs of the notebooks: profiles and parameters, the run of one notebook and its record, the chain of all of them."""

from lesionkit.runs.parameters import (
    EXTRA_NOTEBOOKS,
    EXTRAS,
    NOTEBOOKS,
    PROFILES,
    ParameterError,
    Profile,
    full,
    quick,
    smoke,
)
from lesionkit.runs.records import (
    CHECKPOINT,
    Run,
    begin,
    default_dir,
    depth_network,
    notebooks_dir,
    plain,
    run_detector,
    versions,
    write_bytes,
    write_json,
)

__all__ = [
    "CHECKPOINT", "EXTRAS", "EXTRA_NOTEBOOKS", "NOTEBOOKS", "PROFILES", "ParameterError", "Profile", "Run", "begin",
    "default_dir", "depth_network", "full", "notebooks_dir", "plain", "quick", "run_detector", "smoke", "versions",
    "write_bytes", "write_json",
]  # fmt: skip
