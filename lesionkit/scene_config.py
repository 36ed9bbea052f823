"""What a scene is drawn from, and the drawing of it: named difficulties, and every random number of one scene.

Paris classes (Endoscopic Classification Review Group, Endoscopy 37:570, 2005): 0-Ip pedunculated, 0-Is sessile,
0-IIa slightly elevated, 0-IIb flat, 0-IIc slightly depressed.
"""

from dataclasses import dataclass

import numpy as np

MAX_ELEMENTS = 5  # lesions and look-alikes a scene


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
    view_degrees: tuple[float, float] = (90.0, 125.0)  # across the frame; scopes have 140 and more across the corners
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
        """All five classes, 2 to 30 mm, colour from none to strong, look-alikes, walls seen close and oblique."""
        return cls(
            "hard", classes=("0-Ip", "0-Is", "0-IIa", "0-IIb", "0-IIc"), size_mm=(2.0, 30.0), lesions=(1, 3),
            lesion_free=0.25, contrast=(0.0, 0.6), lookalikes=(0, 2), fold_depth_mm=(1.0, 10.0), tilt_degrees=65.0,
            off_centre=0.65, view_degrees=(90.0, 140.0), noise=(0.005, 0.035),
        )  # fmt: skip


class Draw:
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
            "exposure": self._between((0.34, 0.52)) * self.config.light,
            "tint": np.array([1 + warm, 1.0, 1 - 0.8 * warm]),
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
            "height": self._between(height) * self.config.relief, "lift": self._between(lift),
            "lumps": self._between((0.0, 0.14)),
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
