"""What earlier notebooks of a run left for later ones, or the shipped networks in its place."""

from lesionkit.detector import Detector
from lesionkit.runs.parameters import ARTEFACTS
from lesionkit.runs.records import Run


def run_detector(run: Run) -> tuple[Detector, str]:
    """The detector that 03_segmentation trained in this run, else the shipped one; and which it is, in words."""
    weights, which = run.artefact(ARTEFACTS["03_segmentation"]), "trained by 03_segmentation in this run"
    if not weights.exists():
        weights, which = "reference", "the shipped reference weights"
    run.note(detector=which)
    return Detector.from_pretrained(weights, str(run.device)), which
