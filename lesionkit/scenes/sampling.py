"""The sampling of a scene: every random number of it, in a fixed order, from the scene's own generators."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lesionkit.scenes.config import LARGEST_BLUR, MAX_ELEMENTS, SceneConfig

Arrays = dict[str, np.ndarray]  # float32, one row a scene
SHAPE = ("radius", "aspect", "height", "lift", "lumps", "lump_phase", "turn")  # of an element, beside its looks
TURN = 6.283  # radians
PINK, YELLOW = np.array([0.74, 0.29, 0.21]), np.array([0.72, 0.38, 0.17])  # healthy mucosa
RED, PALE = np.array([0.92, 0.42, 0.44]), np.array([1.15, 1.55, 1.65])  # lesions, as factors on the mucosa

# height and lift in radii, by the class's definition: IIa is lower than a closed forceps, about 2.5 mm
HEIGHT_LIFT = {
    "0-Ip": ((0.75, 1.0), (0.9, 1.5)),
    "0-Is": ((0.6, 1.0), (0.0, 0.0)),
    "0-IIa": ((0.18, 0.4), (0.0, 0.0)),
    "0-IIb": ((0.0, 0.0), (0.0, 0.0)),
    "0-IIc": ((-0.3, -0.12), (0.0, 0.0)),
}

# what of them is not as on other look-alikes; ranges are tuples: a bubble, a strand of mucus, a diverticulum
ODD_LOOKALIKES = (
    {"radius": (0.7, 2.5), "aspect": 1.0, "height": (0.6, 0.9), "lumps": 0.0,
     "against_tissue": np.array([1.1, 1.2, 1.2]), "strength": (0.1, 0.6), "pattern": 0.0},
    {"radius": (3.0, 9.0), "aspect": (0.1, 0.35),
     "colour": np.array([0.85, 0.78, 0.6]), "strength": (0.3, 0.8), "pattern": 0.3},
    {"radius": (1.5, 4.0), "aspect": (0.7, 1.0), "height": (-1.0, -0.6),
     "against_tissue": np.array([0.8, 0.7, 0.7]), "strength": (0.0, 0.5), "pattern": 0.0},
)  # fmt: skip


@dataclass(frozen=True)
class SceneParameters:
    """The random numbers of b scenes with k elements each: what the renderer puts on its device."""

    tube: Arrays
    camera: Arrays
    appearance: Arrays
    light: Arrays
    shape: Arrays  # b×k each: the elements'
    candidates: np.ndarray  # b×k×t×2 in [−1, 1]: places in the picture where an element may stand, tried in turn
    noise_shift: np.ndarray  # b×2
    paris: np.ndarray  # b×k: class of each element; "" is a look-alike
    strength: np.ndarray  # b×k: contrast of each element


def sample_scenes(seed: int, configs: Sequence[SceneConfig], numbers: Sequence[int]) -> SceneParameters:
    """The scenes with these numbers of the stream `seed`, all of them under each of the configurations."""
    scenes = [SceneSampler(seed, number, config) for config in configs for number in numbers]

    def stack(part: str) -> Arrays:
        rows = {name: np.float32([getattr(one, part)[name] for one in scenes]) for name in getattr(scenes[0], part)}
        return {name: values if values.ndim > 1 else values[:, None] for name, values in rows.items()}

    def of_elements(name: str) -> np.ndarray:
        return np.array([[element[name] for element in one.elements] for one in scenes])

    return SceneParameters(
        **{part: stack(part) for part in ("tube", "camera", "appearance", "light")},
        shape={name: of_elements(name).astype(np.float32) for name in SHAPE},
        candidates=np.float32([one.candidates for one in scenes]),
        noise_shift=np.array([one.noise_shift for one in scenes]),
        paris=of_elements("paris"),
        strength=of_elements("strength"),
    )


class SceneSampler:
    """Every random number of scene `number` of the stream `seed`, sampled in a fixed order from its own generators."""

    def __init__(self, seed: int, number: int, config: SceneConfig):
        self.config, self.rng = config, np.random.default_rng([seed, number])
        # what came later draws from a stream of its own, so that the scenes of the lessons stay the ones they were
        self.extra, self.later = self.rng.spawn(2)
        self.tube = self._tube()
        self.camera = self._camera()
        self.elements = self._elements()
        self.candidates = self.rng.uniform(-0.8, 0.8, size=(MAX_ELEMENTS, 24, 2))
        self.appearance = self._appearance()
        self.light = self._light()
        self.noise_shift = self.rng.integers(0, 60_000, size=2)

    def _tube(self) -> dict[str, float]:
        config, uniform, extra, later = self.config, self.rng.uniform, self.extra.uniform, self.later.uniform
        radius = uniform(*config.radius_mm)
        angle, away = uniform(0, TURN), radius * config.off_centre * np.sqrt(uniform())
        rate_x, rate_y = (TURN / uniform(110, 320) for _ in range(2))
        blind = uniform() < config.blind
        corner = extra() < config.corners
        swell_length = extra(14, 50)
        swell = min(extra(*config.swell_mm), 0.08 * swell_length)
        slope = 0.3 if corner else 0.6  # a larger one would let the centre line overtake the march
        tube = {
            "radius": radius,
            "bend_x": uniform(0, slope) / rate_x, "bend_y": uniform(0, slope) / rate_y,
            "bend_rate_x": rate_x, "bend_rate_y": rate_y,
            "bend_phase_x": uniform(0, TURN), "bend_phase_y": uniform(0, TURN),
            "fold_depth": min(uniform(*config.fold_depth_mm), config.fold_reach * radius),
            "fold_spacing": uniform(*config.fold_spacing_mm), "fold_phase": uniform(0, TURN),
            "fold_sharpness": uniform(*config.fold_sharpness), "fold_tilt": uniform(0, 7.0),
            "triangle": uniform(0, 1), "turn": uniform(0, TURN),
            "end": uniform(*config.end_mm) if blind else 400.0,
            "end_round": later(*config.end_round_mm), "fold_uneven": later(0, config.fold_uneven),
            "fold_gap": extra(0, config.semilunar), "fold_twist": extra(-0.15, 0.15),
            "swell": swell, "swell_rate": TURN / swell_length, "swell_phase": extra(0, TURN),
            "corner_start": extra(*config.corner_mm) if corner else 400.0,
            "corner_radius": radius * extra(1.7, 3.5), "corner_about": extra(0, TURN),
        }  # fmt: skip
        tube["fold_depth"] = min(tube["fold_depth"], 0.45 * tube["fold_spacing"])  # folds lean, they do not stand
        # a rim rounder than the tube is wide or the end is far would leave no room for the lens
        tube["end_round"] = min(tube["end_round"], 1.6 * radius, 1.6 * tube["end"])
        away = min(away, max(radius - 1.6 * tube["fold_depth"] - swell - 3.5, 0.0))  # the lens stays clear of folds
        return {**tube, "offset_x": away * np.cos(angle), "offset_y": away * np.sin(angle)}

    def _camera(self) -> dict[str, object]:
        config, uniform, extra = self.config, self.rng.uniform, self.extra.uniform
        tilt = np.radians(config.tilt_degrees) * uniform() ** config.tilt_power
        return {
            "rotation": _rotation(tilt, uniform(0, TURN), uniform(0, TURN)),
            "tan_half_view": np.tan(np.radians(uniform(*config.view_degrees)) / 2),
            "aperture": self.rng.choice(3, p=(1 - config.masked, config.masked * 3 / 7, config.masked * 4 / 7)),
            "tint": 1 + uniform(-config.cast * 2 / 3, config.cast) * np.array([1, 0, -0.8]),
            "aspect": np.exp(extra(*np.log(config.aspect))), "distortion": extra(*config.distortion),
            "gamma": extra(*config.gamma), "blur": self._blur(),
            "chroma": extra() < config.chroma, "text": extra() < config.overlays,
            "box": extra((0.2, 0.2), (0.38, 0.42)) * (extra() < config.overlays),
            "exposure": uniform(*config.exposure) * config.light, "vignette": uniform(0.0, 0.3),
            "noise": uniform(*config.noise), "aperture_radius": uniform(0.92, 1.12),
        }  # fmt: skip

    def _blur(self) -> np.ndarray:
        """Sigma along x and y: defocus is the same along both, motion along one of them."""
        defocus, motion = self.extra.uniform(0, LARGEST_BLUR, 2)
        sigma = np.full(2, defocus / 2)
        sigma[self.extra.integers(2)] += motion / 2
        return sigma * (self.extra.uniform() < self.config.blur)

    def _light(self) -> dict[str, object]:
        config, extra = self.config, self.extra.uniform
        angles = extra(0, TURN) + np.array([0, extra(2.0, 4.3)])  # the second lamp stands about opposite
        return {
            "lamps": extra(*config.lamp_mm) * np.stack([np.cos(angles), np.sin(angles)], axis=1),
            "balance": extra(0.4, 0.6) if config.lamp_mm[1] > 0 and extra() < 0.5 else 1.0,
            **{name: extra(*getattr(config, name)) for name in ("fall_off", "wrap", "ambient", "occlusion")},
        }  # fmt: skip

    def _elements(self) -> list[dict[str, object]]:
        config, rng = self.config, self.rng
        lesions = 0 if rng.uniform() < config.lesion_free else rng.integers(*config.lesions, endpoint=True)
        others = rng.integers(*config.lookalikes, endpoint=True)
        # lesions last: where both are, the lesion is seen
        built = [self._lookalike() for _ in range(others)] + [self._lesion() for _ in range(lesions)]
        absent = {**self._lookalike(), "radius": 0.0, "height": 0.0}
        return [absent] * (MAX_ELEMENTS - len(built)) + built

    def _lesion(self) -> dict[str, object]:
        config, uniform = self.config, self.rng.uniform
        paris = str(self.rng.choice(config.classes))
        height, lift = HEIGHT_LIFT[paris]
        # against whatever mucosa it sits on, since contrast is what the eye sees: most are redder, some paler
        colour = (RED if uniform() < 0.65 else PALE) + self.rng.normal(0, 0.04, 3)
        return {
            "paris": paris, "radius": np.exp(uniform(*np.log(config.size_mm))) / 2, "aspect": uniform(0.65, 1.0),
            "height": uniform(*height) * config.relief, "lift": uniform(*lift), "lumps": uniform(0.0, 0.14),
            "lump_phase": uniform(0, TURN), "turn": uniform(0, TURN), "against_tissue": colour,
            "strength": uniform(*config.contrast), "pattern": uniform(0.2, 1.0),
        }  # fmt: skip

    def _lookalike(self) -> dict[str, object]:
        uniform = self.rng.uniform
        residue = uniform() < 0.5
        colour = np.array([0.72, 0.48, 0.05]) if residue else np.array([0.72, 0.17, 0.13])
        common = {
            "paris": "", "radius": uniform(1.5, 7.0), "aspect": uniform(0.5, 1.0), "height": 0.0, "lift": 0.0,
            "lumps": uniform(0.1, 0.3), "lump_phase": uniform(0, TURN), "turn": uniform(0, TURN),
            "colour": colour + self.rng.normal(0, 0.04, 3),
            "strength": uniform(0.5, 0.95) if residue else uniform(0.2, 0.6), "pattern": 0.8 if residue else 0.0,
        }  # fmt: skip
        if self.extra.uniform() >= self.config.odd_lookalikes:
            return common
        odd = ODD_LOOKALIKES[self.extra.integers(3)]
        return common | {name: self.extra.uniform(*v) if isinstance(v, tuple) else v for name, v in odd.items()}

    def _appearance(self) -> dict[str, object]:
        config, uniform, extra = self.config, self.rng.uniform, self.extra.uniform
        tissue = PINK + (YELLOW - PINK) * uniform() + self.rng.normal(0, 0.035, 3)
        tissue = tissue + (tissue.max() * 0.8 - tissue) * config.pale * extra() ** 2
        colours = [tissue * e["against_tissue"] if "against_tissue" in e else e["colour"] for e in self.elements]
        return {
            "tissue": tissue.clip(0.1, 0.95), "vessel_strength": uniform(*config.vessels),
            "vessel_width": uniform(*config.vessel_width), "mottle": uniform(*config.mottle),
            "fine_vessels": extra(*config.fine_vessels), "vessel_patches": extra(0, config.vessel_patches),
            "blotch": extra(*config.blotch), "texture_mm": np.exp(extra(*np.log(config.texture_mm))),
            "ripple": extra(*config.ripple), "tile_x": uniform(0, 1), "tile_y": uniform(0, 1),
            "tile": self.rng.integers(12), "gloss": uniform(0.1, 1.5), "roughness": uniform(150, 700),
            "element_colour": np.stack(colours).clip(0.03, 0.95),
            "element_strength": np.array([e["strength"] for e in self.elements]),
            "element_pattern": np.array([e["pattern"] for e in self.elements]),
        }  # fmt: skip


def _rotation(tilt: float, about: float, roll: float) -> np.ndarray:
    """Camera to tube: a roll about the optical axis, then a tilt of it towards the direction `about`."""
    cross = np.cross(np.eye(3), [-np.sin(about), np.cos(about), 0.0])
    lean = np.eye(3) + np.sin(tilt) * cross + (1 - np.cos(tilt)) * cross @ cross
    spin = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    return lean @ spin
