"""The drawing of a scene: every random number of it, in a fixed order, from the scene's own generators."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lesionkit.scenes.config import LARGEST_BLUR, MAX_ELEMENTS, SceneConfig

Rows = dict[str, np.ndarray]  # float32, one row a scene
SHAPE = ("radius", "aspect", "height", "lift", "lumps", "lump_phase", "turn")  # of an element, beside its looks


@dataclass(frozen=True)
class SceneParameters:
    """The random numbers of b scenes with k elements each: what the renderer puts on its device."""

    tube: Rows
    camera: Rows
    look: Rows
    light: Rows
    shape: Rows  # b×k each: the elements'
    candidates: np.ndarray  # b×k×t×2 in [−1, 1]: places in the picture where an element may stand, tried in turn
    noise_shift: np.ndarray  # b×2
    paris: tuple[tuple[str, ...], ...]  # of each element; "" is a look-alike
    strength: np.ndarray  # b×k: contrast of each element

    def __len__(self) -> int:
        return len(self.paris)

    @property
    def is_lesion(self) -> np.ndarray:
        """b×k booleans."""
        return np.array(self.paris) != ""


def draw(seed: int, numbers: Sequence[int], config: SceneConfig) -> SceneParameters:
    """The scenes with these numbers of the stream `seed`."""
    return gather([SceneSampler(np.random.default_rng([seed, number]), config) for number in numbers])


def gather(draws: Sequence["SceneSampler"]) -> SceneParameters:
    def rows(part: str) -> Rows:
        return {name: _rows([getattr(one, part)[name] for one in draws]) for name in getattr(draws[0], part)}

    def of_elements(name: str) -> np.ndarray:
        return np.array([[element[name] for element in one.elements] for one in draws])

    return SceneParameters(
        rows("tube"), rows("camera"), rows("look"), rows("light"),
        shape={name: of_elements(name).astype(np.float32) for name in SHAPE},
        candidates=_rows([one.candidates for one in draws]),
        noise_shift=np.array([one.noise_shift for one in draws]),
        paris=tuple(tuple(element["paris"] for element in one.elements) for one in draws),
        strength=of_elements("strength"),
    )  # fmt: skip


def _rows(values: list) -> np.ndarray:
    rows = np.array(values, dtype=np.float32)
    return rows if rows.ndim > 1 else rows[:, None]


class SceneSampler:
    """Every random number of one scene, drawn in a fixed order from the scene's own generator."""

    def __init__(self, rng: np.random.Generator, config: SceneConfig):
        self.rng, self.config = rng, config
        # what came later draws from a stream of its own, so that the scenes of the lessons stay the ones they were
        self.extra, self.later = rng.spawn(2)
        self.tube = self._tube()
        self.camera = self._camera()
        self.elements = self._elements()
        self.candidates = rng.uniform(-0.8, 0.8, size=(MAX_ELEMENTS, 24, 2))
        self.look = self._look()
        self.light = self._light()
        self.noise_shift = rng.integers(0, 60_000, size=2).tolist()

    def _between(self, span: tuple[float, float]) -> float:
        return float(self.rng.uniform(*span))

    def _also(self, span: tuple[float, float]) -> float:
        return float(self.extra.uniform(*span))

    def _chance(self, share: float) -> bool:
        return bool(self.extra.uniform() < share)

    def _tube(self) -> dict[str, float]:
        radius = self._between(self.config.radius_mm)
        angle, away = self._between((0, 6.283)), radius * self.config.off_centre * np.sqrt(self.rng.uniform())
        rate_x, rate_y = (6.283 / self._between((110, 320)) for _ in range(2))
        blind = self.rng.uniform() < self.config.blind
        corner = self._chance(self.config.corners)
        swell_length = self._also((14, 50))
        swell = min(self._also(self.config.swell_mm), 0.08 * swell_length)
        slope = 0.3 if corner else 0.6  # a larger one would let the centre line overtake the march
        tube = {
            "radius": radius,
            "bend_x": self._between((0, slope)) / rate_x, "bend_y": self._between((0, slope)) / rate_y,
            "bend_rate_x": rate_x, "bend_rate_y": rate_y,
            "bend_phase_x": self._between((0, 6.283)), "bend_phase_y": self._between((0, 6.283)),
            "fold_depth": min(self._between(self.config.fold_depth_mm), self.config.fold_reach * radius),
            "fold_spacing": self._between(self.config.fold_spacing_mm), "fold_phase": self._between((0, 6.283)),
            "fold_sharpness": self._between(self.config.fold_sharpness), "fold_tilt": self._between((0, 7.0)),
            "triangle": self._between((0, 1)), "turn": self._between((0, 6.283)),
            "end": self._between(self.config.end_mm) if blind else 400.0,
            "end_round": float(self.later.uniform(*self.config.end_round_mm)),
            "fold_uneven": float(self.later.uniform(0, self.config.fold_uneven)),
            "fold_gap": self._also((0, self.config.semilunar)), "fold_twist": self._also((-0.15, 0.15)),
            "swell": swell, "swell_rate": 6.283 / swell_length, "swell_phase": self._also((0, 6.283)),
            "corner_start": self._also(self.config.corner_mm) if corner else 400.0,
            "corner_radius": radius * self._also((1.7, 3.5)), "corner_about": self._also((0, 6.283)),
        }  # fmt: skip
        tube["fold_depth"] = min(tube["fold_depth"], 0.45 * tube["fold_spacing"])  # folds lean, they do not stand
        # a rim rounder than the tube is wide or the end is far would leave no room for the lens
        tube["end_round"] = min(tube["end_round"], 1.6 * radius, 1.6 * tube["end"])
        room = radius - 1.6 * tube["fold_depth"] - swell - 3.5  # the lens stays clear of folds
        away = min(away, max(room, 0.0))
        return {**tube, "offset_x": away * np.cos(angle), "offset_y": away * np.sin(angle)}

    def _camera(self) -> dict[str, object]:
        tilt = np.radians(self.config.tilt_degrees) * self.rng.uniform() ** self.config.tilt_power
        about, roll = self._between((0, 6.283)), self._between((0, 6.283))
        view = np.radians(self._between(self.config.view_degrees))
        masked = self.config.masked
        kind = int(self.rng.choice(3, p=(1 - masked, masked * 3 / 7, masked * 4 / 7)))
        cast = self.config.cast
        warm = self._between((-cast * 2 / 3, cast))
        low, high = np.log(self.config.aspect)
        return {
            "aspect": float(np.exp(self._also((low, high)))), "distortion": self._also(self.config.distortion),
            "gamma": self._also(self.config.gamma), "blur": self._blur(),
            "chroma": float(self._chance(self.config.chroma)), "text": float(self._chance(self.config.overlays)),
            "box": self.extra.uniform((0.2, 0.2), (0.38, 0.42)) * self._chance(self.config.overlays),
            "tan_half_view": np.tan(view / 2), "rotation": _rotation(tilt, about, roll),
            "exposure": self._between(self.config.exposure) * self.config.light,
            "tint": np.array([1 + warm, 1.0, 1 - 0.8 * warm]),
            "vignette": self._between((0.0, 0.3)), "noise": self._between(self.config.noise),
            "aperture": kind, "aperture_radius": self._between((0.92, 1.12)),
        }  # fmt: skip

    def _blur(self) -> np.ndarray:
        """Sigma along x and y: defocus is the same along both, motion along one of them."""
        defocus, motion = self.extra.uniform(0, LARGEST_BLUR, 2)
        sigma = np.full(2, defocus / 2)
        sigma[int(self.extra.integers(2))] += motion / 2
        return sigma * self._chance(self.config.blur)

    def _light(self) -> dict[str, object]:
        config, rng = self.config, self.extra
        angle, apart = rng.uniform(0, 6.283), rng.uniform(2.0, 4.3)  # the second lamp stands about opposite
        reach = rng.uniform(*config.lamp_mm)
        two = config.lamp_mm[1] > 0 and self._chance(0.5)
        angles = np.array([angle, angle + apart])
        return {
            "lamps": reach * np.stack([np.cos(angles), np.sin(angles)], axis=1),
            "balance": self._also((0.4, 0.6)) if two else 1.0, "fall_off": self._also(config.fall_off),
            "wrap": self._also(config.wrap), "ambient": self._also(config.ambient),
            "occlusion": self._also(config.occlusion),
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
            "height": self._between(height) * self.config.relief, "lift": self._between(lift),
            "lumps": self._between((0.0, 0.14)),
            "lump_phase": self._between((0, 6.283)), "turn": self._between((0, 6.283)), "against_tissue": colour,
            "strength": self._between(self.config.contrast), "pattern": self._between((0.2, 1.0)),
        }  # fmt: skip

    def _lookalike(self) -> dict[str, object]:
        residue = self.rng.uniform() < 0.5
        colour = np.array([0.72, 0.48, 0.05]) if residue else np.array([0.72, 0.17, 0.13])
        common = {
            "paris": "", "radius": self._between((1.5, 7.0)), "aspect": self._between((0.5, 1.0)),
            "height": 0.0, "lift": 0.0,
            "lumps": self._between((0.1, 0.3)), "lump_phase": self._between((0, 6.283)),
            "turn": self._between((0, 6.283)), "colour": colour + self.rng.normal(0, 0.04, 3),
            "strength": self._between((0.5, 0.95)) if residue else self._between((0.2, 0.6)),
            "pattern": 0.8 if residue else 0.0,
        }  # fmt: skip
        return common | self._odd() if self._chance(self.config.odd_lookalikes) else common

    def _odd(self) -> dict[str, object]:
        """What of a look-alike is different on a bubble, a strand of mucus, or a diverticulum."""
        kind = str(self.extra.choice(("bubble", "mucus", "diverticulum")))
        if kind == "bubble":
            shape = {"radius": self._also((0.7, 2.5)), "aspect": 1.0, "height": self._also((0.6, 0.9)), "lumps": 0.0}
            look = {"against_tissue": np.array([1.1, 1.2, 1.2]), "strength": self._also((0.1, 0.6)), "pattern": 0.0}
        elif kind == "mucus":
            shape = {"radius": self._also((3.0, 9.0)), "aspect": self._also((0.1, 0.35))}
            look = {"colour": np.array([0.85, 0.78, 0.6]), "strength": self._also((0.3, 0.8)), "pattern": 0.3}
        else:
            shape = {"radius": self._also((1.5, 4.0)), "aspect": self._also((0.7, 1.0))}
            shape["height"] = self._also((-1.0, -0.6))
            look = {"against_tissue": np.array([0.8, 0.7, 0.7]), "strength": self._also((0.0, 0.5)), "pattern": 0.0}
        return shape | look

    @staticmethod
    def _colour(element: dict[str, object], tissue: np.ndarray) -> np.ndarray:
        return tissue * element["against_tissue"] if "against_tissue" in element else element["colour"]

    def _look(self) -> dict[str, object]:
        pink, yellow = np.array([0.74, 0.29, 0.21]), np.array([0.72, 0.38, 0.17])
        tissue = pink + (yellow - pink) * self.rng.uniform() + self.rng.normal(0, 0.035, 3)
        tissue = tissue + (tissue.max() * 0.8 - tissue) * self.config.pale * self.extra.uniform() ** 2
        return {
            "tissue": tissue.clip(0.1, 0.95), "vessel_strength": self._between(self.config.vessels),
            "vessel_width": self._between(self.config.vessel_width), "mottle": self._between(self.config.mottle),
            "fine_vessels": self._also(self.config.fine_vessels),
            "vessel_patches": self._also((0, self.config.vessel_patches)), "blotch": self._also(self.config.blotch),
            "texture_mm": float(np.exp(self._also(tuple(np.log(self.config.texture_mm))))),
            "ripple": self._also(self.config.ripple),
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
