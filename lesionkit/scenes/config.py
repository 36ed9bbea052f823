"""What a scene is drawn from: named difficulties, with a reason for each range.

Paris classes (Endoscopic Classification Review Group, Endoscopy 37:570, 2005): 0-Ip pedunculated, 0-Is sessile,
0-IIa slightly elevated, 0-IIb flat, 0-IIc slightly depressed.
"""

from dataclasses import dataclass, replace

LARGEST_BLUR = 0.008  # sigma as a share of the picture's width: 2 px of 256
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
    fold_spacing_mm: tuple[float, float] = (16.0, 38.0)  # closer in the sigmoid
    fold_sharpness: tuple[float, float] = (1.0, 7.0)  # 1 is a soft wave
    fold_reach: float = 0.3  # into the lumen at the most, of the radius; rectal valves reach further
    blind: float = 0.2  # share of frames with a blind end ahead: the cecum, or a bend that looks like it
    end_mm: tuple[float, float] = (35.0, 110.0)  # how far ahead
    end_round_mm: tuple[float, float] = (6.0, 6.0)  # of its rim: as much as the tube's radius makes a bowl of it
    tilt_degrees: float = 38.0  # how far the camera looks away from the tube's axis at the most
    tilt_power: float = 0.7  # of the uniform number it is drawn by; above 1 most frames look along the lumen
    off_centre: float = 0.5  # how far it stands from the axis, of the radius
    view_degrees: tuple[float, float] = (90.0, 125.0)  # across the frame; scopes have 140 and more across the corners
    noise: tuple[float, float] = (0.003, 0.02)
    # what real frames have and a lesson can do without: the defaults leave it out, `hard` has it
    corners: float = 0.0  # share of frames in which the tube turns away: flexures
    corner_mm: tuple[float, float] = (2.0, 60.0)  # how far ahead
    fold_uneven: float = 0.0  # up to which some folds are lower than others
    masked: float = 0.7  # share of frames seen through a round or octagonal mask
    semilunar: float = 0.0  # up to which folds are on one side only; those of a colon are
    swell_mm: tuple[float, float] = (0.0, 0.0)  # soft unevenness of the wall
    distortion: tuple[float, float] = (0.0, 0.0)  # of the lens; wide-angle scopes are barrels
    aspect: tuple[float, float] = (1.0, 1.0)  # log-uniform; 4:3 and 5:4 frames are squeezed to squares
    lamp_mm: tuple[float, float] = (0.0, 0.0)  # from lens to lamp; above zero half of the frames have two
    fall_off: tuple[float, float] = (2.0, 2.0)  # exponent; 2 is physics, image processors and other renderers show less
    wrap: tuple[float, float] = (0.22, 0.22)  # light that tissue scatters sideways
    occlusion: tuple[float, float] = (0.0, 0.0)  # how much darker creases are
    ambient: tuple[float, float] = (0.0, 0.0)  # light from all around, of the lamp's at 20 mm
    exposure: tuple[float, float] = (0.34, 0.52)  # mean brightness that the automatic exposure aims at
    gamma: tuple[float, float] = (2.2, 2.2)  # processors differ in their display curves
    cast: float = 0.12  # how far the white balance may be off towards warm; two thirds of it towards cold
    pale: float = 0.0  # up to which the mucosa loses its colour
    blotch: tuple[float, float] = (0.03, 0.15)  # pale and dark areas
    vessels: tuple[float, float] = (0.0, 0.8)
    fine_vessels: tuple[float, float] = (0.0, 0.0)  # the next order of vessels
    vessel_patches: float = 0.0  # up to which vessels come and go
    vessel_width: tuple[float, float] = (0.06, 0.2)  # of the noise's deviation
    texture_mm: tuple[float, float] = (42.0, 42.0)  # log-uniform; length of a texture tile
    ripple: tuple[float, float] = (0.02, 0.02)  # how much the wet film breaks up its highlights
    mottle: tuple[float, float] = (0.05, 0.25)
    blur: float = 0.0  # share of frames out of focus or in motion
    chroma: float = 0.0  # share of frames with colour at half resolution (video, JPEG)
    overlays: float = 0.0  # share of frames with a scope-guide box, and with text burnt in
    odd_lookalikes: float = 0.0  # share of look-alikes that are bubbles, mucus or diverticula
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
    def shift(cls) -> "SceneConfig":
        """`standard` with lesions of the wall's own colour: a colour shift for what was trained on `standard`."""
        return replace(cls.standard(), name="shift", contrast=(0.0, 0.05))

    @classmethod
    def subtle(cls) -> "SceneConfig":
        """What depth learns lesions from: as `standard`, but more of them, lower, and with little colour."""
        return replace(
            cls.standard(), name="subtle", lesions=(1, 3), lesion_free=0.1, contrast=(0.0, 0.4), lookalikes=(0, 1),
            relief=0.75,
        )  # fmt: skip

    @classmethod
    def hard(cls) -> "SceneConfig":
        """All five classes, 2 to 30 mm, colour from none to strong, look-alikes, walls seen close and oblique."""
        return cls(
            "hard", classes=("0-Ip", "0-Is", "0-IIa", "0-IIb", "0-IIc"), size_mm=(2.0, 30.0), lesions=(1, 3),
            lesion_free=0.25, contrast=(0.0, 0.6), lookalikes=(0, 2), radius_mm=(10.0, 30.0),
            fold_depth_mm=(1.0, 10.0), fold_spacing_mm=(9.0, 38.0), fold_sharpness=(1.0, 12.0), tilt_degrees=90.0,
            off_centre=0.8, view_degrees=(75.0, 140.0), noise=(0.002, 0.03), corners=0.5, semilunar=1.0,
            swell_mm=(0.0, 2.5), distortion=(0.0, 0.35), aspect=(1.0, 1.4), lamp_mm=(0.0, 5.0), fall_off=(0.5, 2.3),
            wrap=(0.05, 0.6), ambient=(0.0, 0.4), occlusion=(0.0, 0.9), exposure=(0.3, 0.62), gamma=(1.6, 3.0),
            cast=0.22, pale=0.6, blotch=(0.0, 0.4), vessels=(0.0, 1.3), vessel_width=(0.05, 0.4),
            fine_vessels=(0.0, 1.0), vessel_patches=1.0, texture_mm=(22.0, 90.0), ripple=(0.0, 0.012),
            mottle=(0.05, 0.5), blur=0.3, chroma=0.5, overlays=0.2, odd_lookalikes=0.4,
        )  # fmt: skip

    @classmethod
    def examination(cls) -> "SceneConfig":
        """What depth is learned from beside the others: any colon through any lens, seen along a lumen that soon turns
        away or ends; folds up to valves that nearly close it, light that falls off or hardly does, few lesions."""
        return replace(
            cls.hard(), name="examination", lesions=(1, 2), lesion_free=0.5, lookalikes=(0, 1), radius_mm=(13.0, 34.0),
            fold_depth_mm=(1.0, 18.0), fold_spacing_mm=(12.0, 70.0), fold_sharpness=(1.0, 16.0), fold_reach=0.55,
            fold_uneven=1.0, blind=0.4, end_mm=(15.0, 90.0), end_round_mm=(6.0, 40.0), tilt_degrees=60.0,
            tilt_power=1.2, off_centre=0.6, view_degrees=(60.0, 130.0), corners=0.75, corner_mm=(2.0, 45.0),
            masked=0.35, swell_mm=(0.0, 6.0), fall_off=(0.0, 2.3), wrap=(0.0, 0.6), blotch=(0.0, 0.5),
            vessels=(0.0, 1.8), fine_vessels=(0.0, 1.8), texture_mm=(22.0, 120.0), overlays=0.05,
        )  # fmt: skip

    @classmethod
    def blind_end(cls) -> "SceneConfig":
        """As `examination`, before the cecum's end, which whoever has come that far looks at."""
        return replace(
            cls.examination(), name="blind_end", fold_spacing_mm=(20.0, 90.0), blind=1.0, end_mm=(12.0, 70.0),
            end_round_mm=(14.0, 55.0), tilt_degrees=32.0, tilt_power=1.0, off_centre=0.45, view_degrees=(50.0, 115.0),
            corners=0.0, masked=0.2, fall_off=(0.0, 1.8),
        )  # fmt: skip
