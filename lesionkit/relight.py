"""Other light and other textures for rendered images whose exact depth is known, drawn anew in every epoch.

A renderer ties brightness to depth in one way, the cameras and renderers of others in another; and what it draws a
thousand scenes with is soon learned by heart. Both change here at the price of an augmentation: light by a power of
the depth, and a pattern that sticks to the surface, read from noise at each pixel's place in space.

Letters: b images, h × w pixels.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lesionkit.camera import tone
from lesionkit.preprocess import even_exposure
from lesionkit.shading import BLOTCH, MOTTLE, VESSEL, texture_bank

DISPLAY_GAMMA = 2.2


@dataclass(frozen=True)
class RelightConfig:
    """Ranges, uniform unless said otherwise."""

    probability: float = 0.7  # the rest stays as rendered
    fall_off: tuple[float, float] = (-0.5, 1.8)  # power of the depth; with 2, far walls are as bright as near ones
    texture_mm: tuple[float, float] = (25.0, 110.0)  # log-uniform; length after which the pattern repeats
    blotch: float = 0.35  # up to which areas are paler or darker, as a logarithm
    mottle: float = 0.3  # the same for small spots
    vessels: float = 1.2  # up to which lines are darker
    vessel_width: tuple[float, float] = (0.05, 0.4)  # of the noise's deviation
    tan_half_view: tuple[float, float] = (0.8, 1.7)  # of the lens; the pattern only has to look as if it stuck
    exposure: tuple[float, float] = (0.3, 0.65)  # mean brightness before the exposure is evened


class Relight(nn.Module):
    """image b×3×h×w in [0, 1], depth and content b×1×h×w → image. Random numbers come from torch's global generator."""

    def __init__(self, config: RelightConfig | None = None):
        super().__init__()
        self.config = config or RelightConfig()

    @torch.no_grad()
    def forward(
        self, image: Float[Tensor, "b 3 h w"], depth: Float[Tensor, "b 1 h w"], content: Float[Tensor, "b 1 h w"]
    ) -> Float[Tensor, "b 3 h w"]:
        c, b = self.config, len(image)

        def draw(low: float, high: float, channels: int = 1) -> Tensor:
            return torch.empty(b, channels, 1, 1, device=image.device).uniform_(low, high)

        tile_mm = torch.exp(draw(*(float(torch.tensor(x).log()) for x in c.texture_mm)))
        noise = solid_noise(depth, tile_mm, draw(*c.tan_half_view), draw(0, 1, channels=3))
        strength = draw(0, 1, channels=3)  # how much each colour takes part
        tone_of = c.blotch * draw(0, 1) * noise[:, BLOTCH, None] + c.mottle * draw(0, 1) * noise[:, MOTTLE, None]
        line = torch.exp(-((noise[:, VESSEL, None] / draw(*c.vessel_width)) ** 2))
        pattern = torch.exp(tone_of * (0.5 + 0.5 * strength) - c.vessels * draw(0, 1) * line * (1 - 0.6 * strength))
        relative = depth / depth.flatten(1).median(dim=1).values.view(-1, 1, 1, 1)
        light = image.clamp_min(1e-4) ** DISPLAY_GAMMA * relative.clamp(0.1, 10) ** draw(*c.fall_off) * pattern
        shown = even_exposure(_exposed(light, content, draw(*c.exposure)), content)
        return torch.where(draw(0, 1) < c.probability, shown * content, image)


def solid_noise(
    depth: Float[Tensor, "b 1 h w"], tile_mm: Tensor, tan_half_view: Tensor, offset: Float[Tensor, "b 3 1 1"]
) -> Float[Tensor, "b 4 h w"]:
    """The channels of `shading.texture_bank` at each pixel's place in space, the mean over the three coordinate planes:
    near pixels show it large, far ones small, and it bends with the surface."""
    b, _, h, w = depth.shape
    rows = torch.linspace(-1, 1, h, device=depth.device).view(1, 1, h, 1) * tan_half_view
    columns = torch.linspace(-1, 1, w, device=depth.device).view(1, 1, 1, w) * tan_half_view
    x, y, z = ((axis * depth / tile_mm + offset[:, i, None]) % 1 for i, axis in enumerate((columns, rows, 1)))
    bank = texture_bank().to(depth.device)
    tiles = F.pad(bank[torch.randint(len(bank), (b,))], (0, 1, 0, 1), mode="circular")
    planes = [torch.cat(pair, dim=1).permute(0, 2, 3, 1) * 2 - 1 for pair in ((x, y), (y, z), (z, x))]
    read = [F.grid_sample(tiles, plane, align_corners=True, padding_mode="border") for plane in planes]
    return sum(read) / 3**0.5  # the deviation stays 1


def _exposed(light: Float[Tensor, "b 3 h w"], content: Tensor, target: Tensor) -> Float[Tensor, "b 3 h w"]:
    """Gain such that the mean of what is shown becomes `target`; what is too bright saturates."""
    count = content.sum(dim=(1, 2, 3), keepdim=True).clamp_min(1)
    gain, level = torch.ones_like(target), light.mean(dim=1, keepdim=True)
    for _ in range(4):
        shown = (tone(level * gain, DISPLAY_GAMMA) * content).sum(dim=(1, 2, 3), keepdim=True) / count
        gain = gain * (target / shown.clamp_min(1e-4)) ** 1.6
    return tone(light * gain, DISPLAY_GAMMA)
