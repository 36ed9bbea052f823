"""The images that the explorer can show: rendered scenes, those of a data set, and a person's own.

Each kind is a small frozen description, which is what a saved state holds; its `load` makes pixels of it.
"""

import hashlib
import math
import warnings
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image

from lesionkit import datasets, fusion
from lesionkit.datasets import reading
from lesionkit.explore.checks import StateError, takes
from lesionkit.frames import octagon, on_screen
from lesionkit.scenes.render import SceneConfig, render_scenes

SCENE_PX = 256  # whatever the model's size: a saved point or stroke then means the same place
LONGEST_PX = 1024  # larger images are reduced: the networks see a quarter of that, and the screen shows no more
MAX_PIXELS = 60_000_000  # a small file can unpack to gigabytes
REDUCED = "reduced "
ONE_LESION = replace(SceneConfig.standard(), name="explorer", lesions=(1, 1), lookalikes=(0, 0), tilt_degrees=25.0)
PARIS = ("0-Ip", "0-Is", "0-IIa", "0-IIb", "0-IIc", "none")


@dataclass(frozen=True)
class LoadedImage:
    """image uint8 h×w×3; truth bool h×w and depth float h×w (mm, exact) where they are known; label: what it is;
    note: what a person should know about it, or empty."""

    image: np.ndarray
    label: str
    truth: np.ndarray | None = None
    depth: np.ndarray | None = None
    note: str = ""


@dataclass(frozen=True)
class SceneImage:
    """A rendered scene with one lesion, or none (paris "none"). A slider changes its one property and nothing else:
    tube, camera and place come from the seed."""

    paris: str = takes(list(PARIS), "0-Is")
    size_mm: float = takes((3, 25), 12.0)
    relief: float = takes((0, 2.5), 1.0)  # factor on the lesion's height
    contrast: float = takes((0, 0.9), 0.45)  # of its colour against the mucosa
    light: float = takes((0.5, 1.7), 1.0)  # factor on the exposure
    view_degrees: float = takes((80, 140), 105.0)
    seed: int = takes((0, 9999), 2)
    screen: str = takes(["no", "yes"], "no")  # as a video processor shows it: panel, still picture, text
    kind: str = takes(["scene"], "scene")

    def another(self, number: int) -> "SceneImage":
        """Another scene, as a donor of depth: another tube, another place."""
        return replace(self, seed=(self.seed + 101 * number) % 10_000)

    @lru_cache(maxsize=12)  # noqa: B019 (a scene is a value, not an object that should be freed; undo comes back to it)
    def load(self) -> LoadedImage:
        bare = self.paris == "none"
        given = {"classes": ("0-Is" if bare else self.paris,), "lesion_free": float(bare)}
        given |= {"relief": self.relief, "light": self.light}
        given |= {name: (getattr(self, name),) * 2 for name in ("size_mm", "contrast", "view_degrees")}
        scene = render_scenes(1, SCENE_PX, self.seed, "cpu", replace(ONE_LESION, **given))
        # a lesion is kept smaller where a wall is near, and may be hidden behind a fold
        what = ", ".join(f"{self.paris} of {lesion.size_mm:.0f} mm" for lesion in scene.lesions[0]) or "no lesion seen"
        pixels = np.ascontiguousarray(fusion.to_array(scene.image[0]))
        truth, depth = scene.mask[0, 0].numpy() > 0, scene.depth[0, 0].numpy()
        if self.screen == "yes":
            pixels, (left, _, width, _) = on_screen(pixels, np.ascontiguousarray(pixels[::-1, ::-1]))
            beside = ((0, 0), (left, pixels.shape[1] - left - width))
            truth, depth = np.pad(truth & octagon(width), beside), np.pad(depth, beside, mode="edge")
        return LoadedImage(pixels, f"rendered scene {self.seed}, {what}", truth, depth)


@dataclass(frozen=True)
class SampleImage:
    """An image of a data set that lies on this machine."""

    dataset: str = takes(str)
    name: str = takes(str)
    kind: str = takes(["sample"], "sample")

    def another(self, number: int) -> "SampleImage":
        names = [sample.name for sample in open_dataset(self.dataset).samples]
        return replace(self, name=names[(names.index(self.name) + number) % len(names)])

    def load(self) -> LoadedImage:
        # the label stands in pictures that people pass on: no path of their machine in it
        owner = "own folder" if self.dataset.startswith(datasets.FOLDER) else self.dataset
        found = [sample for sample in open_dataset(self.dataset).samples if sample.name == self.name]
        if not found:
            raise StateError(f"{owner} has no image {self.name!r}")
        image, truth = datasets.read_sample(found[0])
        image, note = _reduced(image)
        truth = cv2.resize(truth.astype(np.uint8), image.shape[1::-1], interpolation=cv2.INTER_NEAREST) > 0
        return LoadedImage(image, f"{owner}, {self.name}", truth, note=note)


@dataclass(frozen=True)
class UploadImage:
    """A person's own image; its pixels are not in the state. sha256: of the file's bytes; of a file that the browser
    had to reduce, of what it sent, with REDUCED before it."""

    name: str = takes(str)
    sha256: str = takes(str)
    kind: str = takes(["upload"], "upload")

    def another(self, number: int) -> SceneImage:
        return SceneImage().another(number)  # nothing is known but this one image

    def load(self, data: bytes | None = None) -> LoadedImage:
        """The image from the file's bytes as RGB: grey becomes three equal channels, what is transparent becomes black,
        a large one is reduced, which the note says. Raises StateError when the bytes are missing or another file's, and
        for more than MAX_PIXELS; DatasetError for what is cut off or no image."""
        name = self.name
        if data is None:
            raise StateError(f"this view is about your own image {name!r}: open that file first")
        if not self.sha256.startswith(REDUCED) and hashlib.sha256(data).hexdigest() != self.sha256:
            raise StateError(f"the file given is not the {name!r} that this state was saved with")
        try:
            with warnings.catch_warnings(action="ignore"):  # Pillow warns of large images; that is what is asked here
                pixels = math.prod(reading.header_size(data))
        except Exception as error:  # a format that Pillow does not know may be one that the decoder knows
            pixels = math.inf if isinstance(error, Image.DecompressionBombError) else 0
        if pixels > MAX_PIXELS:
            raise StateError(f"{name} has more than {MAX_PIXELS / 1e6:.0f} million pixels: save it smaller")
        bgr = reading.decode(name, cv2.IMREAD_COLOR, reading.whole(name, data))
        rgb = reading.without_transparent(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), data)
        image, note = _reduced(rgb)
        return LoadedImage(image, f"own image, {name}", note=note)


IMAGES = {"scene": SceneImage, "sample": SampleImage, "upload": UploadImage}
open_dataset = lru_cache(maxsize=8)(datasets.open_dataset)


def _reduced(image: np.ndarray) -> tuple[np.ndarray, str]:
    """At most LONGEST_PX on the longer side, and a sentence when that changed something."""
    height, width = image.shape[:2]
    scale = LONGEST_PX / max(height, width)
    if scale >= 1:
        return image, ""
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return small, f"Reduced from {width}×{height} to {size[0]}×{size[1]} pixels."
