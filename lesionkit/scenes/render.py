"""Rendered endoluminal scenes with exact depth, masks and lesion sizes: the kit's embedded data.

A camera inside a bent, folded tube; lesions as bumps on its wall; lamps beside the lens. Every scene is drawn from its
own random stream, keyed by the seed and its number: scene 7 of seed 0 is the same picture whatever the batch, the
device (up to rounding) or the number of scenes asked for. `config` says what is drawn, `sampling` draws it, `surface`
is the geometry, `march` finds where rays meet it, `light` is colour and light, `camera` what a processor makes of it.

Letters: b scenes, h = w = size_px, k elements a scene. Depth in mm along the optical axis, near is small.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lesionkit.devices import resolve
from lesionkit.scenes.camera import Camera, aperture, burn_text, camera_rays, expose, intrinsics, sensor
from lesionkit.scenes.config import MAX_ELEMENTS, SceneConfig
from lesionkit.scenes.light import Appearance, Light, albedo, ambient_occlusion, radiance
from lesionkit.scenes.march import coarse_to_fine, length_of, march, normals
from lesionkit.scenes.sampling import Arrays, SceneParameters, sample_scenes
from lesionkit.scenes.surface import Elements, Tube

CHUNK = 16  # scenes rendered at a time: bounds the memory, and fits a processor's cache
CHUNK_PX, LARGEST_CHUNK = 2**23, 512  # on a GPU as many scenes as have so many pixels: a few GB keep it busy
MIN_VISIBLE_PX = 6  # a lesion of which less can be seen is no lesion to anybody


class SceneError(ValueError):
    """A scene cannot be rendered as asked."""


@dataclass(frozen=True)
class Lesion:
    """One lesion of one scene."""

    paris: str
    size_mm: float  # largest diameter
    distance_mm: float  # from the lens to where it sits on the wall
    contrast: float  # 0 the colour of the wall, 1 a colour of its own
    area_px: int  # what of it can be seen
    index: int  # its number in the scene's instance map


@dataclass(frozen=True)
class Scenes:
    """Rendered scenes: image in [0, 1], depth in mm, mask {0, 1}, lesions per scene, instance (0 no lesion, else
    Lesion.index), intrinsics (camera matrix in pixels; pixel centres at halves), distortion (`Camera`'s k)."""

    image: Float[Tensor, "b 3 h w"]
    depth: Float[Tensor, "b 1 h w"]
    mask: Float[Tensor, "b 1 h w"]
    lesions: tuple[tuple[Lesion, ...], ...]
    instance: Float[Tensor, "b 1 h w"]
    intrinsics: Float[Tensor, "b 3 3"]
    distortion: Float[Tensor, " b"]

    def __len__(self) -> int:
        return self.image.shape[0]

    def __getitem__(self, item: slice) -> "Scenes":
        return Scenes(**{name: value[item] for name, value in vars(self).items()})

    @staticmethod
    def join(parts: list["Scenes"]) -> "Scenes":
        tensors = {name: torch.cat([getattr(p, name) for p in parts]) for name in vars(parts[0]) if name != "lesions"}
        return Scenes(lesions=tuple(one for p in parts for one in p.lesions), **tensors)


def render_scenes(
    n: int, size_px: int = 128, seed: int = 0, device: str | torch.device = "auto",
    config: SceneConfig | None = None, first: int = 0, workers: int = 0,
) -> Scenes:  # fmt: skip
    """Render `n` scenes of size_px × size_px pixels, numbers first, first + 1, … of the stream `seed`.

    workers: processes of torch's DataLoader that draw the random numbers ahead of the renderer, which on a GPU waits
    for them otherwise; on macOS and Windows a script that asks for them needs `if __name__ == "__main__"`. Raises
    SceneError when n < 1, or size_px is no multiple of 4 or below 32 (the march starts at a quarter).
    """
    return Scenes.join(list(stream_scenes(n, size_px, seed, device, config, first, workers)))


def stream_scenes(
    n: int, size_px: int = 128, seed: int = 0, device: str | torch.device = "auto",
    config: SceneConfig | None = None, first: int = 0, workers: int = 0,
) -> Iterator[Scenes]:  # fmt: skip
    """As `render_scenes`, in chunks: the memory stays the same however many are asked for."""
    check_request(n, size_px)
    config, device = config or SceneConfig.standard(), resolve(str(device))
    # a loader takes a number from its generator, which the global one would miss
    how = {"batch_size": chunk_size(size_px, device), "num_workers": workers, "generator": torch.Generator()}
    for sampled in DataLoader(range(first, first + n), collate_fn=partial(sample_scenes, seed, (config,)), **how):
        yield _render(sampled, size_px, device)


def chunk_size(size_px: int, device: torch.device) -> int:
    """How many scenes are rendered at a time."""
    return CHUNK if device.type == "cpu" else max(1, min(LARGEST_CHUNK, CHUNK_PX // size_px**2))


def check_request(n: int, size_px: int) -> None:
    """Raises SceneError for a number or a size that cannot be rendered."""
    if n < 1:
        raise SceneError(f"cannot render {n} scenes: ask for at least one")
    if size_px < 32 or size_px % 4:
        raise SceneError(f"cannot render at {size_px} px: use a multiple of 4, at least 32")


def render_variants(
    configs: Sequence[SceneConfig], size_px: int = 128, seed: int = 0, device: str = "auto", number: int = 0
) -> Scenes:
    """One scene, number `number` of the stream `seed`, once under each configuration: what differs between the
    pictures is what differs between the configurations. For a handful of them; they are rendered in one go."""
    return _render(sample_scenes(seed, configs, (number,)), size_px, resolve(str(device)))


@torch.no_grad()
def _render(sampled: SceneParameters, size_px: int, device: torch.device) -> Scenes:
    tube, camera = as_tensors(Tube, sampled.tube, device), as_tensors(Camera, sampled.camera, device)
    look, light = as_tensors(Appearance, sampled.appearance, device), as_tensors(Light, sampled.light, device)
    rays, inside = camera_rays(camera, size_px), aperture(camera, size_px)
    elements = place_elements(sampled, tube, rays, inside)
    depth = coarse_to_fine(tube, elements, rays)
    points, pixel_mm = (rays * depth[:, None]).flatten(2), depth.flatten(1) * camera.tan_half_view * 2 / size_px
    colour, instance, grain = albedo(tube, elements, look, points, pixel_mm)
    normal = normals(tube, elements, points)
    colour = colour * ambient_occlusion(tube, elements, light, normal, points)[:, None]
    lit = radiance(colour, normal, points, camera.rotation, look, light, grain).view_as(rays)
    shift = torch.from_numpy(sampled.noise_shift).to(device)
    image = burn_text(sensor(expose(lit, camera, inside), camera, shift) * inside, camera, shift)
    instance, lesions = _visible_lesions(sampled, elements, instance.view_as(inside) * inside.long())
    mask, matrix = (instance > 0).float(), intrinsics(camera, size_px)
    return Scenes(image, depth[:, None], mask, lesions, instance.float(), matrix, camera.distortion[:, 0])


def place_elements(sampled: SceneParameters, tube: Tube, rays: Tensor, inside: Tensor) -> Elements:
    """Puts every element where a randomly chosen pixel meets the wall, so that it can be seen."""
    pixels = torch.from_numpy(sampled.candidates).to(rays.device)  # b×k×t×2 in [-1, 1], t tries for each element
    places = pixels.flatten(1, 2)[:, None]
    found = F.grid_sample(torch.cat([rays, inside], dim=1), places, mode="nearest", align_corners=False)[:, :, 0]
    direction, seen = found[:, :3], found[:, 3]
    depth = march(tube, None, direction, torch.full_like(seen, 0.5), steps=44)
    base = direction * depth[:, None]
    b, k, tries = pixels.shape[:3]
    distance = length_of(base).view(b, k, tries)
    usable = (seen.view(b, k, tries) > 0.5) & (distance > 9) & (distance < 75)
    choice = torch.argmax(usable.float(), dim=2, keepdim=True)  # the first usable candidate
    base = base.view(b, 3, k, tries).gather(3, choice[:, None].expand(-1, 3, -1, -1))[..., 0]
    distance, good = (values.gather(2, choice)[:, :, 0] for values in (distance, usable))
    # the lens cannot be inside a lesion: what sits close is kept small
    return _build_elements(sampled, base, normals(tube, None, base), 0.33 * distance * good)


def _build_elements(sampled: SceneParameters, base: Tensor, up: Tensor, largest: Tensor) -> Elements:
    """base, up: b×3×k; largest: the radius b×k that an element may have."""
    device, base, up = base.device, base.transpose(1, 2), up.transpose(1, 2)
    shape = {name: torch.from_numpy(values).to(device) for name, values in sampled.shape.items()}
    shape["radius"] = torch.minimum(shape["radius"], largest)
    shape["height"] = shape["height"] * shape["radius"]
    turn = shape.pop("turn")[..., None]
    helper = torch.tensor([0.3, 0.2, 1.0], device=device).expand_as(up)
    side = F.normalize(torch.linalg.cross(up, helper), dim=2)
    along = side * torch.cos(turn) + torch.linalg.cross(up, side) * torch.sin(turn)
    across, is_lesion = torch.linalg.cross(up, along), torch.from_numpy(sampled.paris != "").to(device)
    height = sampled.shape["height"]
    raised, sunk = (tuple(np.flatnonzero(one.any(axis=0)).tolist()) for one in (height > 0, height < 0))
    return Elements(base, up, along, across, is_lesion=is_lesion, raised=raised, sunk=sunk, **shape)


def _visible_lesions(
    sampled: SceneParameters, elements: Elements, instance: Tensor
) -> tuple[Tensor, tuple[tuple[Lesion, ...], ...]]:
    """Keeps of the instance map what is a lesion and can be seen, and lists those lesions."""
    counts = torch.stack([(instance == i + 1).sum(dim=(1, 2, 3)) for i in range(MAX_ELEMENTS)], dim=1)
    seen = elements.is_lesion & (elements.radius > 0) & (counts >= MIN_VISIBLE_PX)  # b×k
    distance = length_of(elements.base.transpose(1, 2))
    # in the order of Lesion's fields
    listed = [values.tolist() for values in (sampled.paris, 2 * elements.radius, distance, sampled.strength, counts)]
    lesions: list[list[Lesion]] = [[] for _ in sampled.paris]
    for row, i in seen.nonzero().tolist():
        lesions[row].append(Lesion(*(values[row][i] for values in listed), i + 1))
    kept = F.pad(seen, (1, 0)).gather(1, instance.flatten(1))  # number 0 is no element
    return instance * kept.view_as(instance), tuple(map(tuple, lesions))


def as_tensors(cls: type, arrays: Arrays, device: torch.device) -> Tube | Camera | Appearance | Light:
    """A dataclass of tensors on the device."""
    return cls(**{field.name: torch.from_numpy(arrays[field.name]).to(device) for field in fields(cls)})
