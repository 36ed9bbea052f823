"""What earlier notebooks of a run left, or else what is shipped in its place."""

from lesionkit.depth import DepthNet
from lesionkit.detector import Detector, load_depth
from lesionkit.runs.records import Run

# Removed before the notebook runs again, so that nobody else's is taken for it.
ARTEFACTS = {"02_depth": "depth.safetensors", "03_segmentation": "reference.safetensors"}


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
    path = run.artefact(ARTEFACTS["03_segmentation"])
    if path.exists():
        weights, which = path, "trained by 03_segmentation in this run"
    else:
        weights, which = "reference", "the shipped reference weights"
    run.note(detector=which)
    return Detector.from_pretrained(weights, str(run.device)), which
