"""Rendered endoluminal scenes with exact depth, masks and lesion sizes: the kit's embedded data.

A camera inside a bent, folded tube; lesions as bumps on its wall; one lamp beside the lens. Every scene is drawn from
its own random stream, keyed by the seed and its number: scene 7 of seed 0 is the same picture whatever the batch, the
device (up to rounding) or the number of scenes asked for.

Letters: b scenes, h = w = size_px, k elements a scene. Depth in mm along the optical axis, near is small.
Paris classes (Endoscopic Classification Review Group, Endoscopy 37:570, 2005): 0-Ip pedunculated, 0-Is sessile,
0-IIa slightly elevated, 0-IIb flat, 0-IIc slightly depressed.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from lesionkit import shading
from lesionkit.devices import resolve
from lesionkit.raymarch import Elements, Tube, coarse_to_fine, length_of, march, normals

MAX_ELEMENTS = 5  # lesions and look-alikes a scene
CHUNK = 16  # scenes rendered at a time: bounds the memory, and fits a processor's cache
MIN_VISIBLE_PX = 6  # a lesion of which less can be seen is no lesion to anybody


class SceneError(ValueError):
    """A scene cannot be rendered as asked."""


@dataclass(frozen=True)
class SceneConfig:
    """What scenes are drawn from. Ranges are (low, high); uniform unless said otherwise."""

    name: str
    classes: tuple[str, ...] = ("0-Ip", "0-Is", "0-IIa")  # drawn with equal chance
    size_mm: tuple[float, float] = (4.0, 20.0)  # largest diameter, log-uniform as small polyps are most frequent
    lesions: tuple[int, int] = (1, 2)
    lesion_free: float = 0.15  # share of frames without any lesion, as most of an examination has none
    contrast: tuple[float, float] = (0.15, 0.7)  # colour against the mucosa, independent of relief; 0 is invisible
    lookalikes: tuple[int, int] = (0, 2)  # residue and erythema: colour without being a lesion
    radius_mm: tuple[float, float] = (14.0, 26.0)  # an inflated colon is 3 to 6 cm wide
    fold_depth_mm: tuple[float, float] = (1.5, 8.0)
    fold_spacing_mm: tuple[float, float] = (16.0, 38.0)
    tilt_degrees: float = 38.0  # how far the camera looks away from the tube's axis at the most
    off_centre: float = 0.5  # how far it stands from the axis, of the radius
    view_degrees: tuple[float, float] = (90.0, 125.0)  # across the frame; scopes have up to 140 or more, across the corners
    noise: tuple[float, float] = (0.003, 0.02)
    relief: float = 1.0  # factor on every lesion's height, for the explorer's slider; 1 leaves a scene as drawn
    light: float = 1.0  # factor on the exposure, likewise

    @classmethod
    def basic(cls) -> "SceneConfig":
        """Large, raised, coloured lesions, one in every frame: for a first look and for fast tests."""
        return cls(
            "basic", classes=("0-Ip", "0-Is"), size_mm=(8.0, 20.0), lesions=(1, 1), lesion_free=0.0,
            contrast=(0.4, 0.8), lookalikes=(0, 0), fold_depth_mm=(1.0, 4.0), tilt_degrees=25.0,
        )  # fmt: skip

    @classmethod
    def standard(cls) -> "SceneConfig":
        """The default of the notebooks: 0-Ip, 0-Is and 0-IIa of 4 to 20 mm, visible by colour or relief or both."""
        return cls("standard")

    @classmethod
    def hard(cls) -> "SceneConfig":
        """All five classes from 2 to 30 mm, colour from none to strong, many look-alikes, walls seen close and oblique."""
        return cls(
            "hard", classes=("0-Ip", "0-Is", "0-IIa", "0-IIb", "0-IIc"), size_mm=(2.0, 30.0), lesions=(1, 3),
            lesion_free=0.25, contrast=(0.0, 0.6), lookalikes=(0, 2), fold_depth_mm=(1.0, 10.0), tilt_degrees=65.0,
            off_centre=0.65, view_degrees=(90.0, 140.0), noise=(0.005, 0.035),
        )  # fmt: skip


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
    """Rendered scenes: image b×3×h×w in [0, 1], depth b×1×h×w in mm, mask b×1×h×w {0, 1}, lesions per scene,
    instance b×1×h×w (0 no lesion, else Lesion.index)."""

    image: Float[Tensor, "b 3 h w"]
    depth: Float[Tensor, "b 1 h w"]
    mask: Float[Tensor, "b 1 h w"]
    lesions: tuple[tuple[Lesion, ...], ...]
    instance: Float[Tensor, "b 1 h w"]

    def __len__(self) -> int:
        return self.image.shape[0]

    def __getitem__(self, item: slice) -> "Scenes":
        return Scenes(self.image[item], self.depth[item], self.mask[item], self.lesions[item], self.instance[item])

    @staticmethod
    def join(parts: list["Scenes"]) -> "Scenes":
        tensors = {name: torch.cat([getattr(p, name) for p in parts]) for name in ("image", "depth", "mask", "instance")}
        return Scenes(lesions=tuple(one for p in parts for one in p.lesions), **tensors)


def render_scenes(
    n: int,
    size_px: int = 128,
    seed: int = 0,
    device: str | torch.device = "auto",
    config: SceneConfig | None = None,
    first: int = 0,
) -> Scenes:
    """Render `n` scenes of size_px × size_px pixels, numbers first, first + 1, … of the stream `seed`.

    Raises SceneError when n < 1, or size_px is no multiple of 4 or below 32 (the march starts at a quarter).
    """
    return Scenes.join(list(stream_scenes(n, size_px, seed, device, config, first)))


def stream_scenes(
    n: int,
    size_px: int = 128,
    seed: int = 0,
    device: str | torch.device = "auto",
    config: SceneConfig | None = None,
    first: int = 0,
) -> Iterator[Scenes]:
    """As `render_scenes`, in chunks: the memory stays the same however many are asked for."""
    if n < 1:
        raise SceneError(f"cannot render {n} scenes: ask for at least one")
    if size_px < 32 or size_px % 4:
        raise SceneError(f"cannot render at {size_px} px: use a multiple of 4, at least 32")
    config, device = config or SceneConfig.standard(), resolve(str(device))
    for begin in range(first, first + n, CHUNK):
        numbers = range(begin, min(begin + CHUNK, first + n))
        yield _render([_Draw(np.random.default_rng([seed, number]), config) for number in numbers], size_px, device)


def render_variants(
    configs: Sequence[SceneConfig], size_px: int = 128, seed: int = 0, device: str | torch.device = "auto", number: int = 0
) -> Scenes:
    """One scene, number `number` of the stream `seed`, once under each configuration: what differs between the
    pictures is what differs between the configurations. For a handful of them; they are rendered in one go."""
    draws = [_Draw(np.random.default_rng([seed, number]), config) for config in configs]
    return _render(draws, size_px, resolve(str(device)))


@torch.no_grad()
def _render(draws: list["_Draw"], size_px: int, device: torch.device) -> Scenes:
    tube, camera = _stack(draws, "tube", Tube, device), _stack(draws, "camera", shading.Camera, device)
    rays = _camera_rays(camera, size_px)
    inside = shading.aperture(camera, size_px, size_px)
    elements = _place_elements(draws, tube, rays, inside)
    look = _stack(draws, "look", shading.Look, device)
    depth = coarse_to_fine(tube, elements, rays)
    points = (rays * depth[:, None]).flatten(2)
    pixel_mm = depth.flatten(1) * camera.tan_half_view * 2 / size_px
    colour, instance, grain = shading.albedo(tube, elements, look, points, pixel_mm)
    light = shading.radiance(colour, normals(tube, elements, points), points, look, grain)
    image = shading.expose(light.view(len(draws), 3, size_px, size_px), camera, inside)
    shift = torch.tensor([draw.noise_shift for draw in draws], device=device)
    image = shading.sensor(image, camera, shift) * inside
    instance = instance.view(len(draws), 1, size_px, size_px) * inside.long()
    instance, lesions = _visible_lesions(draws, instance)
    return Scenes(image, depth[:, None], (instance > 0).float(), lesions, instance.float())


def _camera_rays(camera: shading.Camera, size_px: int) -> Float[Tensor, "b 3 h w"]:
    """Directions in the tube's frame; one mm along a ray is one mm of depth along the optical axis."""
    side = (torch.arange(size_px, device=camera.aperture.device) + 0.5) / size_px * 2 - 1
    rows, columns = torch.meshgrid(side, side, indexing="ij")
    flat = torch.stack([columns, rows, torch.ones_like(rows)])[None].repeat(camera.rotation.shape[0], 1, 1, 1)
    flat[:, :2] *= camera.tan_half_view[:, :, None, None]
    return torch.einsum("bij,bjhw->bihw", camera.rotation, flat)


def _place_elements(draws: list["_Draw"], tube: Tube, rays: Tensor, inside: Tensor) -> Elements:
    """Puts every element where a randomly chosen pixel meets the wall, so that it can be seen."""
    b, device = len(draws), rays.device
    pixels = torch.tensor(np.stack([draw.candidates for draw in draws]), device=device)  # b×k×t×2 in [-1, 1]
    candidate = F.grid_sample(
        torch.cat([rays, inside], dim=1), pixels.flatten(1, 2)[:, None].float(), align_corners=False, mode="nearest"
    )[:, :, 0]
    direction, seen = candidate[:, :3], candidate[:, 3]
    start = torch.full_like(seen, 0.5)
    depth = march(tube, None, direction, start, steps=44)
    base = direction * depth[:, None]
    k, tries = pixels.shape[1:3]
    distance = length_of(base).view(b, k, tries)
    usable = (seen.view(b, k, tries) > 0.5) & (distance > 9) & (distance < 75)
    choice = torch.argmax(usable.float(), dim=2, keepdim=True)  # the first usable candidate
    good = usable.gather(2, choice)[:, :, 0]
    base = base.view(b, 3, k, tries).gather(3, choice[:, None].expand(-1, 3, -1, -1))[..., 0]
    up = normals(tube, None, base)
    distance = distance.gather(2, choice)[:, :, 0]
    return _build_elements(draws, base, up, distance, good)


def _build_elements(draws: list["_Draw"], base: Tensor, up: Tensor, distance: Tensor, good: Tensor) -> Elements:
    shape = {
        name: torch.tensor([[e[name] for e in draw.elements] for draw in draws], device=base.device, dtype=torch.float32)
        for name in ("radius", "aspect", "height", "lift", "lumps", "lump_phase", "turn")
    }
    # the lens cannot be inside a lesion: what sits close is kept small
    radius = torch.minimum(shape["radius"], 0.33 * distance) * good
    for draw, radii, far in zip(draws, radius.tolist(), distance.tolist(), strict=True):
        draw.placed = list(zip(radii, far, strict=True))
    up = up.transpose(1, 2)
    helper = torch.tensor([0.3, 0.2, 1.0], device=base.device).expand_as(up)
    side = F.normalize(torch.linalg.cross(up, helper), dim=2)
    other = torch.linalg.cross(up, side)
    turn = shape["turn"][..., None]
    along = side * torch.cos(turn) + other * torch.sin(turn)
    return Elements(
        base=base.transpose(1, 2), up=up, along=along, across=torch.linalg.cross(up, along), radius=radius,
        aspect=shape["aspect"], height=shape["height"] * radius, lift=shape["lift"], lumps=shape["lumps"],
        lump_phase=shape["lump_phase"],
        is_lesion=torch.tensor([[bool(e["paris"]) for e in draw.elements] for draw in draws], device=base.device),
        raised=_columns(draws, lambda e: e["height"] > 0), sunk=_columns(draws, lambda e: e["height"] < 0),
    )  # fmt: skip


def _columns(draws: list["_Draw"], test: Callable[[dict], bool]) -> tuple[int, ...]:
    return tuple(i for i in range(MAX_ELEMENTS) if any(test(draw.elements[i]) for draw in draws))


def _visible_lesions(draws: list["_Draw"], instance: Tensor) -> tuple[Tensor, tuple[tuple[Lesion, ...], ...]]:
    """Keeps of the instance map what is a lesion and can be seen, and lists those lesions."""
    everything = []
    counts = torch.stack([(instance == i + 1).sum(dim=(1, 2, 3)) for i in range(MAX_ELEMENTS)], dim=1).tolist()
    keep = torch.zeros(len(draws), MAX_ELEMENTS + 1, dtype=torch.bool)
    for row, (draw, count) in enumerate(zip(draws, counts, strict=True)):
        lesions = []
        for i, (element, (radius, distance)) in enumerate(zip(draw.elements, draw.placed, strict=True)):
            if element["paris"] and radius > 0 and count[i] >= MIN_VISIBLE_PX:
                lesions.append(Lesion(element["paris"], 2 * radius, distance, element["strength"], count[i], i + 1))
                keep[row, i + 1] = True
        everything.append(tuple(lesions))
    kept = keep.to(instance.device).gather(1, instance.flatten(1)).view_as(instance)
    return instance * kept, tuple(everything)


def _stack(draws: list["_Draw"], part: str, cls: type, device: torch.device) -> object:
    """One dataclass of tensors from the draws of all scenes."""
    values = {}
    for field in fields(cls):
        rows = np.stack([np.asarray(getattr(draw, part)[field.name], dtype=np.float32) for draw in draws])
        values[field.name] = torch.from_numpy(rows if rows.ndim > 1 else rows[:, None]).to(device)
    return cls(**values)


class _Draw:
    """Every random number of one scene, drawn in a fixed order from the scene's own generator."""

    def __init__(self, rng: np.random.Generator, config: SceneConfig):
        self.rng, self.config = rng, config
        self.tube = self._tube()
        self.camera = self._camera()
        self.elements = self._elements()
        self.candidates = rng.uniform(-0.8, 0.8, size=(MAX_ELEMENTS, 24, 2))
        self.look = self._look()
        self.noise_shift = rng.integers(0, 60_000, size=2).tolist()
        self.placed: list[tuple[float, float]] = []  # radius and distance of each element, known once it stands

    def _between(self, span: tuple[float, float]) -> float:
        return float(self.rng.uniform(*span))

    def _tube(self) -> dict[str, float]:
        radius = self._between(self.config.radius_mm)
        angle, away = self._between((0, 6.283)), radius * self.config.off_centre * np.sqrt(self.rng.uniform())
        rate_x, rate_y = (6.283 / self._between((110, 320)) for _ in range(2))
        blind = self.rng.uniform() < 0.2  # the cecum, or a bend that looks like it
        return {
            "radius": radius, "offset_x": away * np.cos(angle), "offset_y": away * np.sin(angle),
            # a slope above 0.6 would let the centre line overtake the march
            "bend_x": self._between((0, 0.6)) / rate_x, "bend_y": self._between((0, 0.6)) / rate_y,
            "bend_rate_x": rate_x, "bend_rate_y": rate_y,
            "bend_phase_x": self._between((0, 6.283)), "bend_phase_y": self._between((0, 6.283)),
            "fold_depth": min(self._between(self.config.fold_depth_mm), 0.3 * radius),
            "fold_spacing": self._between(self.config.fold_spacing_mm), "fold_phase": self._between((0, 6.283)),
            "fold_sharpness": self._between((1.0, 7.0)), "fold_tilt": self._between((0, 7.0)),
            "triangle": self._between((0, 1)), "turn": self._between((0, 6.283)),
            "end": self._between((35, 110)) if blind else 400.0,
        }  # fmt: skip

    def _camera(self) -> dict[str, object]:
        tilt = np.radians(self.config.tilt_degrees) * self.rng.uniform() ** 0.7
        about, roll = self._between((0, 6.283)), self._between((0, 6.283))
        view = np.radians(self._between(self.config.view_degrees))
        kind = int(self.rng.choice(3, p=(0.3, 0.3, 0.4)))
        warm = self._between((-0.08, 0.12))
        return {
            "tan_half_view": np.tan(view / 2), "rotation": _rotation(tilt, about, roll),
            "exposure": self._between((0.34, 0.52)) * self.config.light, "tint": np.array([1 + warm, 1.0, 1 - 0.8 * warm]),
            "vignette": self._between((0.0, 0.3)), "noise": self._between(self.config.noise),
            "aperture": kind, "aperture_radius": self._between((0.92, 1.12)),
        }  # fmt: skip

    def _elements(self) -> list[dict[str, object]]:
        config, rng = self.config, self.rng
        count = 0 if rng.uniform() < config.lesion_free else int(rng.integers(config.lesions[0], config.lesions[1] + 1))
        others = int(rng.integers(config.lookalikes[0], config.lookalikes[1] + 1))
        # lesions last: where both are, the lesion is seen
        built = [self._lookalike() for _ in range(others)] + [self._lesion() for _ in range(count)]
        absent = {**self._lookalike(), "radius": 0.0, "height": 0.0}
        return [absent] * (MAX_ELEMENTS - len(built)) + built

    def _lesion(self) -> dict[str, object]:
        rng = self.rng
        paris = str(rng.choice(self.config.classes))
        low, high = np.log(self.config.size_mm)
        # height and lift in radii, by the class's definition: IIa is lower than a closed forceps, about 2.5 mm
        height, lift = {
            "0-Ip": ((0.75, 1.0), (0.9, 1.5)), "0-Is": ((0.6, 1.0), (0.0, 0.0)), "0-IIa": ((0.18, 0.4), (0.0, 0.0)),
            "0-IIb": ((0.0, 0.0), (0.0, 0.0)), "0-IIc": ((-0.3, -0.12), (0.0, 0.0)),
        }[paris]  # fmt: skip
        # against whatever mucosa it sits on, since contrast is what the eye sees: most are redder, some paler
        red, pale = np.array([0.92, 0.42, 0.44]), np.array([1.15, 1.55, 1.65])
        colour = (red if rng.uniform() < 0.65 else pale) + rng.normal(0, 0.04, 3)
        return {
            "paris": paris, "radius": float(np.exp(rng.uniform(low, high))) / 2, "aspect": self._between((0.65, 1.0)),
            "height": self._between(height) * self.config.relief, "lift": self._between(lift), "lumps": self._between((0.0, 0.14)),
            "lump_phase": self._between((0, 6.283)), "turn": self._between((0, 6.283)), "against_tissue": colour,
            "strength": self._between(self.config.contrast), "pattern": self._between((0.2, 1.0)),
        }  # fmt: skip

    def _lookalike(self) -> dict[str, object]:
        residue = self.rng.uniform() < 0.5
        colour = np.array([0.72, 0.48, 0.05]) if residue else np.array([0.72, 0.17, 0.13])
        return {
            "paris": "", "radius": self._between((1.5, 7.0)), "aspect": self._between((0.5, 1.0)),
            "height": 0.0, "lift": 0.0,
            "lumps": self._between((0.1, 0.3)), "lump_phase": self._between((0, 6.283)),
            "turn": self._between((0, 6.283)), "colour": colour + self.rng.normal(0, 0.04, 3),
            "strength": self._between((0.5, 0.95)) if residue else self._between((0.2, 0.6)),
            "pattern": 0.8 if residue else 0.0,
        }  # fmt: skip

    @staticmethod
    def _colour(element: dict[str, object], tissue: np.ndarray) -> np.ndarray:
        return tissue * element["against_tissue"] if element["paris"] else element["colour"]

    def _look(self) -> dict[str, object]:
        pink, yellow = np.array([0.74, 0.29, 0.21]), np.array([0.72, 0.38, 0.17])
        tissue = pink + (yellow - pink) * self.rng.uniform() + self.rng.normal(0, 0.035, 3)
        return {
            "tissue": tissue.clip(0.1, 0.95), "vessel_strength": self._between((0.0, 0.8)),
            "vessel_width": self._between((0.06, 0.2)), "mottle": self._between((0.05, 0.25)),
            "tile_x": self._between((0, 1)), "tile_y": self._between((0, 1)), "tile": int(self.rng.integers(12)),
            "gloss": self._between((0.1, 1.5)), "roughness": self._between((150, 700)),
            "element_colour": np.stack([self._colour(e, tissue) for e in self.elements]).clip(0.03, 0.95),
            "element_strength": np.array([e["strength"] for e in self.elements]),
            "element_pattern": np.array([e["pattern"] for e in self.elements]),
        }  # fmt: skip


def _rotation(tilt: float, about: float, roll: float) -> np.ndarray:
    """Camera to tube: a roll about the optical axis, then a tilt of it towards the direction `about`."""
    axis = np.array([-np.sin(about), np.cos(about), 0.0])
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    lean = np.eye(3) + np.sin(tilt) * cross + (1 - np.cos(tilt)) * cross @ cross
    spin = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    return lean @ spin
