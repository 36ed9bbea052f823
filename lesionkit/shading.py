"""Colour, light and camera of a rendered scene: from surface points to what an endoscope's processor would show.

Letters: b scenes, n = h·w pixels, k elements. Radiance is linear until `expose`; images are RGB in [0, 1].
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from lesionkit.raymarch import Elements, Tube, length_of

TILE_PX = 256
TILE_MM = 42.0  # the wall's texture repeats after this length
BLOTCH, MOTTLE, VESSEL, GRAIN = range(4)


@dataclass(frozen=True)
class Look:
    """Appearance of a scene; b×1 unless noted."""

    tissue: Tensor  # b×3 albedo
    vessel_strength: Tensor
    vessel_width: Tensor
    mottle: Tensor
    tile_x: Tensor  # where in the texture tile the scene lies, 0..1
    tile_y: Tensor
    tile: Tensor  # which tile of the bank
    gloss: Tensor
    roughness: Tensor
    element_colour: Tensor  # b×k×3 albedo
    element_strength: Tensor  # b×k: how far the albedo moves to element_colour, 0 invisible
    element_pattern: Tensor  # b×k: surface pattern in place of vessels


@dataclass(frozen=True)
class Camera:
    """The imaging chain; b×1 unless noted."""

    tan_half_view: Tensor
    rotation: Tensor  # b×3×3, camera to tube
    exposure: Tensor  # mean luminance aimed at
    tint: Tensor  # b×3 white balance
    vignette: Tensor
    noise: Tensor
    aperture: Tensor  # 0 full frame, 1 round, 2 octagon
    aperture_radius: Tensor  # of half the frame


@lru_cache(maxsize=2)
def texture_bank(tiles: int = 12) -> Float[Tensor, "tiles 4 s s"]:
    """Periodic noise tiles (blotch, mottle, vessels, grain), each of mean 0 and deviation 1.

    Filtered white noise: a band of spatial frequencies a channel. Made once, always the same: a scene chooses its
    tile and place, so the bank's own seed is not the run's.
    """
    generator = torch.Generator().manual_seed(20141)
    white = torch.randn(tiles, 4, TILE_PX, TILE_PX, generator=generator)
    fx, fy = torch.fft.fftfreq(TILE_PX) * TILE_PX, torch.fft.rfftfreq(TILE_PX) * TILE_PX
    frequency = torch.sqrt(fx[:, None] ** 2 + fy[None] ** 2)  # cycles a tile
    centre = torch.tensor([2.5, 14.0, 5.0, 48.0])[:, None, None]
    width = torch.tensor([1.5, 9.0, 3.5, 20.0])[:, None, None]
    band = torch.exp(-0.5 * ((frequency - centre) / width) ** 2)
    band[:, 0, 0] = 0
    noise = torch.fft.irfft2(torch.fft.rfft2(white) * band, s=(TILE_PX, TILE_PX))
    noise = noise / noise.std(dim=(2, 3), keepdim=True)
    # the vessel channel is bent by the mottle, so that vessels wind
    shift = noise[:, MOTTLE : MOTTLE + 1].roll(17, 2) * 0.05
    noise[:, VESSEL : VESSEL + 1] += shift * 3
    return noise


def wall_texture(tube: Tube, look: Look, points: Float[Tensor, "b 3 n"]) -> Float[Tensor, "b 4 n"]:
    """The noise channels at surface points, by angle around and length along the tube."""
    x, y, z = points.unbind(1)
    centre_x, centre_y = tube.centre(z)
    angle = torch.atan2(y - centre_y, x - centre_x) / 6.28318
    around = torch.round(6.28318 * tube.radius / TILE_MM).clamp_min(1)  # whole tiles, or a seam would show
    u = (angle * around + look.tile_x) % 1.0
    v = (z / TILE_MM + look.tile_y) % 1.0
    bank = texture_bank().to(points.device)
    tiles = F.pad(bank[look.tile[:, 0].long()], (0, 1, 0, 1), mode="circular")
    grid = torch.stack([u, v], dim=-1)[:, None] * 2 - 1
    return F.grid_sample(tiles, grid, mode="bilinear", padding_mode="border", align_corners=True)[:, :, 0]


def albedo(
    tube: Tube, elements: Elements, look: Look, points: Float[Tensor, "b 3 n"], pixel_mm: Float[Tensor, "b n"]
) -> tuple[Float[Tensor, "b 3 n"], Tensor, Tensor]:
    """Surface colour, the instance number (b×n; i + 1 on lesion i, else 0), and the texture's fine grain."""
    noise = wall_texture(tube, look, points)
    x, y, z = points.unbind(1)
    instance = torch.zeros_like(x, dtype=torch.long)
    covered = torch.zeros_like(x)
    colour = look.tissue[:, :, None] * (1 + look.mottle[:, :, None] * 0.6 * noise[:, None, BLOTCH])
    pattern = torch.zeros_like(x)
    wall = tube.inside(x, y, z)
    for i in range(elements.count):
        reach = elements.footprint(i, x, y, z)
        flat = elements.height[:, i, None] <= 0
        on = torch.where(flat, reach < 1, elements.outside(i, x, y, z) <= wall + 0.02)
        on = on & (elements.radius[:, i, None] > 0) & (reach < 1.6)
        # a flat patch fades out; a raised one changes colour where it leaves the wall
        soft = torch.where(flat, ((1 - reach) * 5).clamp(0, 1), ((1.35 - reach) * 4).clamp(0, 1)) * on
        blend = soft * look.element_strength[:, i, None]
        colour = torch.lerp(colour, look.element_colour[:, i, :, None].expand_as(colour), blend[:, None])
        instance = torch.where(on & elements.is_lesion[:, i, None], i + 1, instance)
        covered = torch.maximum(covered, soft * look.element_strength[:, i, None].clamp_min(0.15).sqrt())
        pattern = torch.maximum(pattern, soft * look.element_pattern[:, i, None])
    fine = 1 / (1 + (pixel_mm / 0.45) ** 2)  # what is smaller than a pixel averages out
    line = torch.exp(-((noise[:, VESSEL] / look.vessel_width) ** 2)) * fine * (1 - covered)
    vessel = torch.tensor([0.22, 0.55, 0.45], device=points.device)[None, :, None] * look.vessel_strength[:, :, None]
    grain = 1 + fine[:, None] * (0.35 * look.mottle + 0.35 * pattern)[:, None] * noise[:, None, MOTTLE] * 0.5
    return (colour * (1 - vessel * line[:, None]) * grain).clamp(0.01, 1), instance, noise[:, GRAIN] * fine


def radiance(
    colour: Float[Tensor, "b 3 n"],
    normal: Float[Tensor, "b 3 n"],
    points: Float[Tensor, "b 3 n"],
    look: Look,
    grain: Float[Tensor, "b n"],
) -> Float[Tensor, "b 3 n"]:
    """Light from the lens: Lambert, a wet highlight, fall-off with the squared distance (as r²·L, see `expose`)."""
    distance = length_of(points)[:, None]
    facing = -(normal * points / distance).sum(dim=1).clamp(-1, 1)
    wet = (facing + 0.02 * grain).clamp(0, 1)
    highlight = look.gloss * torch.exp((wet - 1) * look.roughness)
    # tissue scatters light sideways, which lifts what the lamp only grazes
    body = colour * (0.22 + 0.78 * facing.clamp_min(0))[:, None]
    return (body + highlight[:, None]) / distance.square()


def expose(light: Float[Tensor, "b 3 h w"], camera: Camera, inside: Float[Tensor, "b 1 h w"]) -> Tensor:
    """Auto-exposure on the mean of the visible part, vignette, tone curve, white balance, gamma."""
    b, _, h, w = light.shape
    gain = torch.ones(b, 1, 1, 1, device=light.device)
    level = light.mean(dim=1, keepdim=True)
    count = inside.sum(dim=(1, 2, 3), keepdim=True).clamp_min(1)
    for _ in range(4):  # the meter sees the tone-mapped picture, hence a short fixed-point iteration
        shown = (tone(level * gain) * inside).sum(dim=(1, 2, 3), keepdim=True) / count
        gain = gain * (camera.exposure[:, :, None, None] / shown.clamp_min(1e-4)) ** 1.6
    rows = torch.linspace(-1, 1, h, device=light.device)[:, None]
    columns = torch.linspace(-1, 1, w, device=light.device)[None]
    fall = 1 - camera.vignette[:, :, None, None] * (rows**2 + columns**2)
    return tone(light * gain * fall.clamp_min(0.1) * camera.tint[:, :, None, None])


def tone(light: Tensor) -> Tensor:
    """A shoulder towards saturation, then display gamma."""
    return (1 - torch.exp(-light.clamp_min(0))).clamp_min(1e-6) ** (1 / 2.2)


def aperture(camera: Camera, h: int, w: int) -> Float[Tensor, "b 1 h w"]:
    """1 where the lens lets light through; the rest of the frame is black."""
    device = camera.aperture.device
    rows = torch.linspace(-1, 1, h, device=device)[None, :, None]
    columns = torch.linspace(-1, 1, w, device=device)[None, None]
    size = camera.aperture_radius[:, :, None]
    round_ = (rows**2 + columns**2) < size**2
    box = torch.maximum(rows.abs(), columns.abs()) < size * 0.97
    octagon = box & ((rows.abs() + columns.abs()) < size * 1.36)
    kind = camera.aperture[:, :, None]
    inside = torch.where(kind == 0, True, torch.where(kind == 1, round_, octagon))
    return inside[:, None].float()


@lru_cache(maxsize=1)
def noise_bank() -> Float[Tensor, "3 r c"]:
    """White noise of mean 0 and deviation 1, read by `sensor` at a place of each scene's own."""
    return torch.randn(3, 512, 512, generator=torch.Generator().manual_seed(20142))


def sensor(image: Float[Tensor, "b 3 h w"], camera: Camera, shift: Tensor) -> Float[Tensor, "b 3 h w"]:
    """Adds noise that grows towards the dark. It is read from a bank at a place of the scene's own (`shift`, b×2
    integers), so that it is the same on every device and for every batch size."""
    bank = noise_bank().to(image.device)
    rows = (torch.arange(image.shape[2], device=image.device) + shift[:, :1]) % bank.shape[1]
    columns = (torch.arange(image.shape[3], device=image.device) + shift[:, 1:]) % bank.shape[2]
    noise = bank[:, rows[:, :, None], columns[:, None]].transpose(0, 1)
    strength = camera.noise[:, :, None, None] * (1.3 - image)
    return (image + noise * strength).clamp(0, 1)
