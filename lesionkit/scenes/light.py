"""Colour and light of a rendered scene: from points on the wall to the light that reaches the lens.

Letters: b scenes, n = h·w pixels, k elements. Light is linear and without a unit: `camera.expose` sets the level.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from lesionkit.scenes.march import length_of, scene_function
from lesionkit.scenes.surface import Elements, Scalars, Tube, Vectors

TILES, TILE_PX = 12, 256
OCCLUSION_MM = 4.0  # creases narrower than this are dark
REFERENCE_MM = 20.0  # where all fall-off exponents give the same light
INNER_SHARE, OUTER_SHARE = 0.6, 0.9  # of the tube's radius: texture lies across the tube within, around it without
BLOTCH, MOTTLE, VESSEL, GRAIN = range(4)


@dataclass(frozen=True)
class Appearance:
    """Colour and texture of a scene; b×1 unless noted."""

    tissue: Tensor  # b×3 albedo
    vessel_strength: Tensor
    vessel_width: Tensor
    fine_vessels: Tensor  # strength of the next order, thinner and denser
    vessel_patches: Tensor  # 0 everywhere alike, 1 they come and go
    blotch: Tensor  # large pale and dark areas of the mucosa
    mottle: Tensor
    texture_mm: Tensor  # the wall's texture repeats after this length
    ripple: Tensor  # how much the wet film breaks up its highlights
    tile_x: Tensor  # where in the texture tile the scene lies, 0..1
    tile_y: Tensor
    tile: Tensor  # which tile of the bank
    gloss: Tensor
    roughness: Tensor
    element_colour: Tensor  # b×k×3 albedo
    element_strength: Tensor  # b×k: how far the albedo moves to element_colour, 0 invisible
    element_pattern: Tensor  # b×k: surface pattern in place of vessels


@dataclass(frozen=True)
class Light:
    """One or two lamps beside the lens; b×1 unless noted. Lengths in mm."""

    lamps: Tensor  # b×2×2: x and y of each in the camera's plane
    balance: Tensor  # share of the first; 1 is a single lamp
    fall_off: Tensor  # exponent of the distance; 2 is physics, other renderers and image processors show less
    wrap: Tensor  # how much a wall lit from the side still shines: tissue scatters
    occlusion: Tensor  # how much darker creases are, where little light gets in
    ambient: Tensor  # light that has been reflected from all around, as if from 20 mm


@lru_cache(maxsize=1)
def texture_bank() -> Float[Tensor, "tiles 4 s s"]:
    """Periodic noise tiles (blotch, mottle, vessels, grain), each of mean 0 and deviation 1: white noise filtered to a
    band of spatial frequencies. Always the same: a scene chooses its tile and place."""
    white = torch.randn(TILES, 4, TILE_PX, TILE_PX, generator=torch.Generator().manual_seed(20141))
    fx, fy = torch.fft.fftfreq(TILE_PX) * TILE_PX, torch.fft.rfftfreq(TILE_PX) * TILE_PX
    frequency = torch.sqrt(fx[:, None] ** 2 + fy[None] ** 2)  # cycles a tile
    centre = torch.tensor([2.5, 14.0, 5.0, 48.0])[:, None, None]
    width = torch.tensor([1.5, 9.0, 3.5, 20.0])[:, None, None]
    band = torch.exp(-0.5 * ((frequency - centre) / width) ** 2)
    band[:, 0, 0] = 0
    noise = torch.fft.irfft2(torch.fft.rfft2(white) * band, s=(TILE_PX, TILE_PX))
    noise = noise / noise.std(dim=(2, 3), keepdim=True)
    noise[:, VESSEL] += noise[:, MOTTLE].roll(17, 1) * 0.05 * 3  # so that vessels wind
    return noise


def place_on_wall(tube: Tube, points: Vectors) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where on the wall the points lie, b×n each: turns around the tube, mm along it, x and y in mm from its centre."""
    x, y, z = tube.straighten(*points.unbind(1))
    centre_x, centre_y = tube.centre(z)
    x, y = x - centre_x, y - centre_y
    return torch.atan2(y, x) / 6.28318, z, x, y


def wall_texture(tube: Tube, look: Appearance, place: tuple[Tensor, ...], rate: float = 1.0) -> Float[Tensor, "b 4 n"]:
    """The noise channels on the wall; `rate` times as fine. They lie around the tube, and across it where the wall
    comes near the axis, as a blind end and high folds do: around it all would meet there in a star."""
    turns, along, x, y = place
    around = torch.round(rate * 6.28318 * tube.radius / look.texture_mm).clamp_min(1)  # whole tiles, or a seam shows
    tiles = F.pad(texture_bank().to(along.device)[look.tile[:, 0].long()], (0, 1, 0, 1), mode="circular")

    def read(u: Tensor, v: Tensor) -> Float[Tensor, "b 4 n"]:
        grid = torch.stack([(u + look.tile_x) % 1.0, (v + look.tile_y) % 1.0], dim=-1)[:, None] * 2 - 1
        return F.grid_sample(tiles, grid, mode="bilinear", padding_mode="border", align_corners=True)[:, :, 0]

    scale = rate / look.texture_mm
    from_axis = torch.sqrt(x**2 + y**2) / tube.radius
    share = ((OUTER_SHARE - from_axis) / (OUTER_SHARE - INNER_SHARE)).clamp(0, 1)
    share = (share * share * (3 - 2 * share))[:, None]
    mixed = (1 - share) * read(turns * around, along * scale) + share * read(x * scale, y * scale)
    return mixed / torch.sqrt(share**2 + (1 - share) ** 2)  # a mean of two noises would be a weaker noise


def albedo(
    tube: Tube, elements: Elements, look: Appearance, points: Vectors, pixel_mm: Scalars
) -> tuple[Vectors, Tensor, Scalars]:
    """Surface colour, the instance number (b×n; i + 1 on lesion i, else 0), and the texture's fine grain."""
    place = place_on_wall(tube, points)
    noise = wall_texture(tube, look, place)
    x, y, z = points.unbind(1)
    instance = torch.zeros_like(x, dtype=torch.long)
    covered = pattern = torch.zeros_like(x)
    colour = look.tissue[:, :, None] * (1 + look.blotch[:, :, None] * noise[:, None, BLOTCH]).clamp(0.35, 1.9)
    wall = tube.inside(x, y, z)
    for i in range(elements.radius.shape[1]):
        reach = elements.footprint(i, x, y, z)
        flat = elements.height[:, i, None] <= 0
        on = torch.where(flat, reach < 1, elements.outside(i, x, y, z) <= wall + 0.02)
        on = on & (elements.radius[:, i, None] > 0) & (reach < 1.6)
        # a flat patch fades out; a raised one changes colour where it leaves the wall
        soft = torch.where(flat, ((1 - reach) * 5).clamp(0, 1), ((1.35 - reach) * 4).clamp(0, 1)) * on
        strength = look.element_strength[:, i, None]
        colour = torch.lerp(colour, look.element_colour[:, i, :, None].expand_as(colour), (soft * strength)[:, None])
        instance = torch.where(on & elements.is_lesion[:, i, None], i + 1, instance)
        covered = torch.maximum(covered, soft * strength.clamp_min(0.15).sqrt())
        pattern = torch.maximum(pattern, soft * look.element_pattern[:, i, None])
    fine = 1 / (1 + (pixel_mm / 0.45) ** 2)  # what is smaller than a pixel averages out
    line = _vessels(tube, look, place, noise) * fine * (1 - covered)
    vessel = torch.tensor([0.22, 0.55, 0.45], device=points.device)[None, :, None]
    grain = 1 + fine[:, None] * (0.35 * look.mottle + 0.35 * pattern)[:, None] * noise[:, None, MOTTLE] * 0.5
    return (colour * (1 - vessel * line[:, None]) * grain).clamp(0.01, 1), instance, noise[:, GRAIN] * fine


def _vessels(tube: Tube, look: Appearance, place: tuple[Tensor, ...], noise: Tensor) -> Scalars:
    """Level sets of a noise are closed loops; where another noise thins them out they become branches."""
    there = 1 - look.vessel_patches * torch.sigmoid(4 * (noise[:, MOTTLE] + 0.7 * noise[:, BLOTCH]))
    width = look.vessel_width * there.clamp_min(0.05)
    line = torch.exp(-((noise[:, VESSEL] / width) ** 2)) * look.vessel_strength
    if bool((look.fine_vessels > 0).any()):
        # the same kind of noise at twice the rate; with some of the first added, its lines leave those of the first
        twig = wall_texture(tube, look, place, rate=2.0)[:, VESSEL] + 0.5 * noise[:, VESSEL]
        line = torch.maximum(line, torch.exp(-((twig / (0.8 * width)) ** 2)) * look.fine_vessels)
    return line * there


def ambient_occlusion(tube: Tube, elements: Elements | None, light: Light, normal: Vectors, points: Vectors) -> Scalars:
    """A factor on the surface colour: 1 on an open wall, towards 1 − occlusion in a crease, which a step of
    OCCLUSION_MM off the surface does not lead away from."""
    if not bool((light.occlusion > 0).any()):
        return torch.ones_like(points[:, 0])
    away = scene_function(tube, elements, *(points + OCCLUSION_MM * normal).unbind(1)) / OCCLUSION_MM
    return 1 - light.occlusion * (1 - away.clamp(0, 1))


def radiance(
    colour: Vectors, normal: Vectors, points: Vectors, rotation: Tensor, look: Appearance, light: Light, grain: Scalars
) -> Vectors:
    """Light that reaches the lens: Lambert, a wet highlight, fall-off with the distance from each lamp, and what the
    walls throw back at each other. Without a unit, since `expose` sets the level. No lamp casts a shadow that the lens
    could see: both are a few mm apart. `rotation` b×3×3 is the camera's, which carries the lamps."""
    to_eye = -F.normalize(points, dim=1)
    total = colour * (light.ambient / REFERENCE_MM**2)[:, None]
    for i, share in enumerate((light.balance, 1 - light.balance)):
        if not bool((share > 0).any()):
            continue
        to_lamp = torch.einsum("bij,bj->bi", rotation[:, :, :2], light.lamps[:, i])[:, :, None] - points
        distance = length_of(to_lamp)[:, None]
        to_lamp = to_lamp / distance
        facing = (normal * to_lamp).sum(dim=1).clamp(0, 1)
        half_way = F.normalize(to_lamp + to_eye, dim=1)
        wet = ((normal * half_way).sum(dim=1) + look.ripple * grain).clamp(0, 1)
        highlight = look.gloss * torch.exp((wet - 1) * look.roughness)
        # tissue scatters light sideways, which lifts what the lamp only grazes
        body = colour * (light.wrap + (1 - light.wrap) * facing)[:, None]
        fall = (REFERENCE_MM / distance) ** light.fall_off[:, :, None] / REFERENCE_MM**2
        total = total + share[:, :, None] * (body + highlight[:, None]) * fall
    return total
