"""What earlier notebooks of a run left for later ones: its networks, or the shipped ones in their place."""

from lesionkit.depth import DepthNet
from lesionkit.detector import Detector, load_depth
from lesionkit.runs.parameters import ARTEFACTS
from lesionkit.runs.records import Run


def depth_network(run: Run) -> tuple[DepthNet, str]:
    """The depth network that 02_depth trained in this run, else the shipped one; and which it is, in words."""
    path = run.artefact(ARTEFACTS["02_depth"])
    if path.exists():
        net, which = load_depth(path), "trained by 02_depth in this run"
    else:
        net, which = Detector.from_pretrained("reference", str(run.device)).depth_net, "the shipped reference network"
    run.note(depth_network=which)
    return net, which


def run_detector(run: Run) -> tuple[Detector, str]:
    """The detector that 03_segmentation trained in this run, else the shipped one; and which it is, in words."""
    weights, which = run.artefact(ARTEFACTS["03_segmentation"]), "trained by 03_segmentation in this run"
    if not weights.exists():
        weights, which = "reference", "the shipped reference weights"
    run.note(detector=which)
    return Detector.from_pretrained(weights, str(run.device)), which
