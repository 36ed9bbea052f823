"""How much work a run does: for tests, for the tutorial, for figures that may be quoted."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Profile:
    """How much a run computes. The defaults are the `quick` profile: what Run All in JupyterLab does."""

    name: str = "quick"
    size_px: int = 128  # edge of an image in the network: fit for a CPU, and lesions still span 10 to 40 px
    train_scenes: int = 320  # depth is learned from far fewer; masks gain up to here, then the clock decides
    validation_scenes: int = 64  # fixes thresholds; enough that a change of 0.02 in Dice is no accident
    test_scenes: int = 64  # reported, never looked at while anything is chosen
    depth_epochs: int = 8  # AbsRel 0.085 after these, 0.076 after twelve; the floor is 0.15
    segmentation_epochs: int = 9  # under two minutes on two CPU cores; the loss still falls slowly
    ablation_scenes: int = 128  # five pairs of losses and six arms train anew, so each gets fewer frames
    ablation_epochs: int = 3  # and fewer epochs: enough to tell them apart, too few to be good
    batch_size: int = 8  # for so few images steps count: 16 reached Dice 0.76 where 8 reaches 0.8 in the same time
    train_images: int = 240  # at most so many real training images (data sets other than `scenes`)
    test_images: int = 100  # at most so many real test images


def smoke() -> Profile:
    """For tests: every cell runs, the numbers mean nothing; at most 15 s a notebook."""
    return Profile(
        name="smoke",
        size_px=64,  # the smallest edge that still has a pixel at the encoder's last stage
        train_scenes=24,
        ablation_scenes=12,
        validation_scenes=8,
        test_scenes=8,
        depth_epochs=1,
        segmentation_epochs=1,
        ablation_epochs=1,
        train_images=16,
        test_images=8,
    )


def quick() -> Profile:
    """The tutorial: at most two minutes a notebook on two CPU cores."""
    return Profile()


def full() -> Profile:
    """For a GPU: figures that may be quoted."""
    return Profile(
        name="full",
        size_px=352,  # the edge that the polyp literature reports at
        train_scenes=2048,  # 9 GB as tensors
        ablation_scenes=1024,
        validation_scenes=256,
        test_scenes=512,
        depth_epochs=40,
        segmentation_epochs=40,
        ablation_epochs=15,
        batch_size=16,  # a GPU takes more at once
        train_images=100_000,  # all of them
        test_images=100_000,
    )


PROFILES: dict[str, Callable[[], Profile]] = {"smoke": smoke, "quick": quick, "full": full}
