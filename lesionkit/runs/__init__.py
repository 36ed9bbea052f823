"""Runs of the notebooks: profiles and parameters, the run of one notebook and its record, the chain of all of them."""

from lesionkit.runs.parameters import EXTRA_NOTEBOOKS, NOTEBOOKS, PROFILES, ParameterError, Profile, full, quick, smoke
from lesionkit.runs.records import Run, begin, default_dir, notebooks_dir, run_detector, versions
