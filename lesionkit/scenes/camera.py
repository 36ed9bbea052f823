"""The camera of a rendered scene: its rays, and the way from the light at the lens to what a processor shows.

Letters: b scenes, h × w pixels. Light is linear and without a unit until `expose`; images are RGB in [0, 1].
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import kornia
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from lesionkit.scenes.config import LARGEST_BLUR

Images = Float[Tensor, "b 3 h w"]


@dataclass(frozen=True)
class Camera:
    """Lens, sensor and processor; b×1 unless noted."""

    tan_half_view: Tensor  # across the width
    aspect: Tensor  # width over height of what is seen; the picture itself is square, as after `preprocess`
    distortion: Tensor  # k of a barrel: an undistorted radius is r·(1 + k·r²) / (1 + k)
    gamma: Tensor  # of the display curve
    blur: Tensor  # b×2: sigma along x and y as a share of the picture, defocus and motion
    chroma: Tensor  # 1: colour at half resolution, as video and JPEG keep it
    rotation: Tensor  # b×3×3, camera to tube
    exposure: Tensor  # mean luminance aimed at
    tint: Tensor  # b×3 white balance
    vignette: Tensor
    noise: Tensor
    aperture: Tensor  # 0 full frame, 1 round, 2 octagon
    aperture_radius: Tensor  # of half the frame
    box: Tensor  # b×2: width and height of a dark box in the lower left corner, of the frame; 0 none
    text: Tensor  # 1: a few lines of text burnt into the left margin


def camera_rays(camera: Camera, size_px: int) -> Float[Tensor, "b 3 h w"]:
    """Directions in the tube's frame; one mm along a ray is one mm of depth along the optical axis."""
    side = (torch.arange(size_px, device=camera.aperture.device) + 0.5) / size_px * 2 - 1
    rows, columns = torch.meshgrid(side, side, indexing="ij")
    flat = torch.stack([columns, rows, torch.ones_like(rows)])[None].repeat(camera.rotation.shape[0], 1, 1, 1)
    radius2 = (rows**2 + columns**2)[None]
    k = camera.distortion[:, :, None]
    spread = camera.tan_half_view[:, :, None] * (1 + k * radius2) / (1 + k)  # b h w
    flat[:, 0] *= spread
    flat[:, 1] *= spread / camera.aspect[:, :, None]
    return torch.einsum("bij,bjhw->bihw", camera.rotation, flat)


def intrinsics(camera: Camera, size_px: int) -> Float[Tensor, "b 3 3"]:
    """The matrix that takes (x/z, y/z, 1) to pixels, at the centre of the picture where nothing is distorted."""
    across = size_px / 2 / camera.tan_half_view * (1 + camera.distortion)
    matrix = torch.diag_embed(torch.cat([across, across * camera.aspect, torch.ones_like(across)], dim=1))
    matrix[:, :2, 2] = size_px / 2
    return matrix


def expose(light: Images, camera: Camera, inside: Float[Tensor, "b 1 h w"]) -> Images:
    """Auto-exposure on the mean of what is `inside` the aperture, vignette, tone curve, white balance, gamma."""
    gain = torch.ones(len(light), 1, 1, 1, device=light.device)
    level, gamma = light.mean(dim=1, keepdim=True), camera.gamma[:, :, None, None]
    count = inside.sum(dim=(1, 2, 3), keepdim=True).clamp_min(1)
    for _ in range(4):  # the meter sees the tone-mapped picture, hence a short fixed-point iteration
        shown = (tone(level * gain, gamma) * inside).sum(dim=(1, 2, 3), keepdim=True) / count
        gain = gain * (camera.exposure[:, :, None, None] / shown.clamp_min(1e-4)) ** 1.6
    side = torch.linspace(-1, 1, light.shape[3], device=light.device)
    fall = 1 - camera.vignette[:, :, None, None] * (side[:, None] ** 2 + side**2)
    return tone(light * gain * fall.clamp_min(0.1) * camera.tint[:, :, None, None], gamma)


def tone(light: Tensor, gamma: Tensor) -> Tensor:
    """A shoulder towards saturation, then display gamma."""
    return (1 - torch.exp(-light.clamp_min(0))).clamp_min(1e-6) ** (1 / gamma)


def aperture(camera: Camera, size_px: int) -> Float[Tensor, "b 1 h w"]:
    """1 where the lens lets light through; the rest of the frame is black."""
    columns = torch.linspace(-1, 1, size_px, device=camera.aperture.device)
    rows = columns[:, None]
    kind, size = camera.aperture[:, :, None], camera.aperture_radius[:, :, None]
    square = torch.maximum(rows.abs(), columns.abs()) < size * 0.97
    octagon = square & (rows.abs() + columns.abs() < size * 1.36)
    inside = (kind == 0) | ((kind == 1) & (rows**2 + columns**2 < size**2)) | ((kind == 2) & octagon)
    # the scope guide's picture, a dark box in the lower left corner
    left, low = camera.box[:, 0, None, None], camera.box[:, 1, None, None]
    boxed = (columns < 2 * left - 1) & (rows > 1 - 2 * low) & (left > 0)
    return (inside & ~boxed)[:, None].float()


@lru_cache(maxsize=1)
def noise_bank() -> Float[Tensor, "3 r c"]:
    """White noise of mean 0 and deviation 1."""
    return torch.randn(3, 512, 512, generator=torch.Generator().manual_seed(20142))


def _noise(shift: Tensor, h: int, w: int) -> Images:
    """The bank's noise from each scene's place `shift` b×2 on; the bank repeats."""
    bank, device = noise_bank().to(shift.device), shift.device
    rows = (torch.arange(h, device=device) + shift[:, :1]) % bank.shape[1]
    columns = (torch.arange(w, device=device) + shift[:, 1:]) % bank.shape[2]
    return bank[:, rows[:, :, None], columns[:, None]].transpose(0, 1)


def sensor(image: Images, camera: Camera, shift: Tensor) -> Images:
    """Defocus and motion blur, coarse colour, and noise that grows towards the dark, from a place of the scene's own in
    `noise_bank` (`shift`, b×2 integers): the same on every device and for every batch size."""
    image = coarse_colour(blurred(image, camera.blur), camera.chroma)
    strength = camera.noise[:, :, None, None] * (1.3 - image)
    return (image + _noise(shift, *image.shape[2:]) * strength).clamp(0, 1)


def blurred(image: Images, share: Float[Tensor, "b 2"]) -> Images:
    """A Gaussian of its own sigma along x and y for each image; images without blur are left alone."""
    if not bool((share > 0).any()):
        return image
    width = image.shape[-1]
    sigma_px = (share * width).clamp_min(0.2)
    size = 2 * math.ceil(2.5 * LARGEST_BLUR * width) + 1
    soft = kornia.filters.gaussian_blur2d(image, (size, size), sigma_px.flip(1))  # kornia takes y first
    return torch.where((share > 0).any(dim=1)[:, None, None, None], soft, image)


def coarse_colour(image: Images, on: Float[Tensor, "b 1"]) -> Images:
    """Colour at half the resolution of brightness (4:2:0) where `on` is 1."""
    grey = kornia.color.rgb_to_grayscale(image)
    colour = F.interpolate(F.avg_pool2d(image - grey, 2), scale_factor=2, mode="bilinear", align_corners=False)
    return torch.where(on[:, :, None, None] > 0, (grey + colour).clamp(0, 1), image)


def burn_text(image: Images, camera: Camera, shift: Tensor) -> Images:
    """Five lines of eight 3×5 glyphs at the left margin of the images whose `text` is 1. What they say is noise: it is
    there so that a network learns that such things mean nothing."""
    h, w = image.shape[2:]
    dot, top = max(1, h // 128), int(0.3 * h)
    glyphs = _noise(shift, 5 * 8, 8 * 4)[:, 0] > 0.2
    glyphs[:, torch.arange(40) % 8 >= 5] = False  # the space between lines
    glyphs[:, :, torch.arange(32) % 4 == 3] = False  # and between glyphs
    glyphs = glyphs.repeat_interleave(dot, 1).repeat_interleave(dot, 2)[:, None]
    lit = F.pad(glyphs.float(), (dot, w - dot - glyphs.shape[3], top, h - top - glyphs.shape[2]))
    return torch.maximum(image, 0.85 * lit * (camera.text[:, :, None, None] > 0))
