"""What training images are varied by: geometry for an image and its maps together, colour for the image alone.

Letters: b images of h × w pixels, float32 RGB in [0, 1] on the way in and on the way out.
"""

from dataclasses import dataclass

from kornia import augmentation as A
from torch import Tensor, nn


@dataclass(frozen=True)
class AugmentConfig:
    """Ranges, and the probability of a blur."""

    degrees: float = 180.0  # there is no up in a colon
    scale: tuple[float, float] = (0.75, 1.3)
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.25
    hue: float = 0.03
    blur: float = 0.2


class Augment(nn.Module):
    """Call with the image b×3×h×w and any number of maps b×1×h×w (mask, depth, view); returns them in that order. Where
    a warp opens a corner, all are 0. Random numbers come from torch's global generator."""

    def __init__(self, config: AugmentConfig | None = None):
        super().__init__()
        config = config or AugmentConfig()
        self.stages = A.AugmentationSequential(*geometry_stages(config), *colour_stages(config), data_keys=None)

    def forward(self, image: Tensor, *maps: Tensor) -> list[Tensor]:
        # every map goes in as a mask: warped with the image, nearest, never colour-jittered
        image, *maps = self.stages(image, *maps, data_keys=["image"] + ["mask"] * len(maps))
        return [image.clamp(0, 1), *maps]


def geometry_stages(config: AugmentConfig, padding: str = "zeros") -> list[nn.Module]:
    """What moves things. padding: what a warp lays bare, nothing ("zeros") or the frame mirrored ("reflection")."""
    warp = A.RandomAffine(config.degrees, translate=(0.08, 0.08), scale=config.scale, p=0.9, padding_mode=padding)
    return [A.RandomHorizontalFlip(p=0.5), A.RandomVerticalFlip(p=0.5), warp]


def colour_stages(config: AugmentConfig) -> list[nn.Module]:
    """What changes the image alone and leaves everything where it is: colours and blur."""
    jitter = A.ColorJitter(config.brightness, config.contrast, config.saturation, config.hue, p=0.9)
    return [jitter, A.RandomGaussianBlur((5, 5), (0.3, 1.5), p=config.blur)]
