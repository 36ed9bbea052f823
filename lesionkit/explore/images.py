"""The images that the explorer can show: rendered scenes, those of a data set, and a person's own.

Each kind is a small frozen description, which is what a saved state holds; its `load` makes pixels of it.
"""

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image

from lesionkit import datasets, fusion
from lesionkit.datasets import reading
from lesionkit.explore.checks import StateError, checked, chosen, ranged, text
from lesionkit.scenes.render import Lesion, SceneConfig, render_scenes

SCENE_PX = 256  # whatever the model's size: a saved point or stroke then means the same place
LONGEST_PX = 1024  # larger images are reduced: the networks see a quarter of that, and the screen shows no more
SMALLEST_PX = 32
MAX_BYTES = 32_000_000
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

    paris: str = chosen(PARIS, "0-Is")
    size_mm: float = ranged(3, 25, 12.0)
    relief: float = ranged(0, 2.5, 1.0)  # factor on the lesion's height
    contrast: float = ranged(0, 0.9, 0.45)  # of its colour against the mucosa
    light: float = ranged(0.5, 1.7, 1.0)  # factor on the exposure
    view_degrees: float = ranged(80, 140, 105.0)
    seed: int = ranged(0, 9999, 2, int)

    kind = "scene"

    def another(self, number: int) -> "SceneImage":
        """Another scene, as a donor of depth: another tube, another place."""
        return replace(self, seed=(self.seed + 101 * number) % 10_000)

    def config(self) -> SceneConfig:
        """The scene's ranges, each narrowed to the one value chosen."""
        bare = self.paris == "none"
        given = {"classes": ("0-Is" if bare else self.paris,), "lesion_free": float(bare)}
        given |= {"relief": self.relief, "light": self.light}
        given |= {name: (getattr(self, name),) * 2 for name in ("size_mm", "contrast", "view_degrees")}
        return replace(ONE_LESION, **given)

    @lru_cache(maxsize=12)  # noqa: B019 (a scene is a value, not an object that should be freed; undo comes back to it)
    def load(self) -> LoadedImage:
        scene = render_scenes(1, SCENE_PX, self.seed, "cpu", self.config())
        pixels = np.ascontiguousarray(fusion.to_array(scene.image[0]))
        lesion = scene.lesions[0][0] if scene.lesions[0] else None
        what = f"{self.paris} of {lesion.size_mm:.0f} mm" if lesion else "no lesion"
        label = f"rendered scene {self.seed}, {what}"
        truth, depth = scene.mask[0, 0].numpy() > 0, scene.depth[0, 0].numpy()
        return LoadedImage(pixels, label, truth, depth, self._note(lesion))

    def _note(self, lesion: Lesion | None) -> str:
        if self.paris != "none" and lesion is None:
            return "The lesion of this scene is hidden behind a fold: try another scene."
        if lesion is not None and lesion.size_mm < self.size_mm - 0.1:
            wall, size = f"{lesion.distance_mm:.0f} mm", f"{lesion.size_mm:.0f} mm"
            return f"The wall is only {wall} away: the lesion is kept to {size}, a larger one would touch the lens."
        return ""


@dataclass(frozen=True)
class SampleImage:
    """An image of a data set that lies on this machine."""

    dataset: str = checked(text)
    name: str = checked(text)

    kind = "sample"

    def __post_init__(self) -> None:
        if self.name not in _samples(self.dataset):
            raise StateError(f"{self._set()} has no image {self.name!r}")

    def another(self, number: int) -> "SampleImage":
        names = list(_samples(self.dataset))
        return replace(self, name=names[(names.index(self.name) + number) % len(names)])

    def load(self) -> LoadedImage:
        with _errors_as_sentences():
            image, truth = datasets.read_sample(_samples(self.dataset)[self.name])
        image, note = reduced(image)
        truth = cv2.resize(truth.astype(np.uint8), image.shape[1::-1], interpolation=cv2.INTER_NEAREST) > 0
        return LoadedImage(image, f"{self._set()}, {self.name}", truth, note=note)

    def _set(self) -> str:
        # the label stands in pictures that people pass on: no path of their machine in it
        return "own folder" if self.dataset.startswith(datasets.FOLDER) else self.dataset


@dataclass(frozen=True)
class UploadImage:
    """A person's own image; its pixels are not in the state. sha256: of the file's bytes; of a file that the browser
    had to reduce, of what it sent, with REDUCED before it."""

    name: str = checked(text)
    sha256: str = checked(text)

    kind = "upload"

    def another(self, number: int) -> SceneImage:
        return SceneImage().another(number)  # nothing is known but this one image

    def load(self, data: bytes | None = None) -> LoadedImage:
        """The image from the file's bytes; StateError when they are missing or another file's."""
        if data is None:
            raise StateError(f"this view is about your own image {self.name!r}: open that file first")
        if not self.sha256.startswith(REDUCED) and hashlib.sha256(data).hexdigest() != self.sha256:
            raise StateError(f"the file given is not the {self.name!r} that this state was saved with")
        return decode_upload(data, self.name)


IMAGES = {cls.kind: cls for cls in (SceneImage, SampleImage, UploadImage)}


# --- data sets ----------------------------------------------------------------------------------------


@contextmanager
def _errors_as_sentences() -> Iterator[None]:
    try:
        yield
    except datasets.DatasetError as error:
        raise StateError(str(error)) from None


@lru_cache(maxsize=8)
@_errors_as_sentences()
def _samples(dataset: str) -> dict[str, datasets.Sample]:
    return {sample.name: sample for sample in datasets.open_dataset(dataset).samples}


@_errors_as_sentences()
def sample_names(dataset: str, part: str = "test") -> list[str]:
    """The images of a part of a data set, in order. Raises StateError."""
    return [sample.name for sample in datasets.open_dataset(dataset).part(part)]


def available_datasets() -> list[str]:
    """The data sets of the registry that are on this machine."""
    return [row["name"] for row in datasets.status() if row["present"] and row["kind"] == "masks"]


# --- own files ----------------------------------------------------------------------------------------


def decode_upload(data: bytes, name: str) -> LoadedImage:
    """An image file's bytes as RGB: grey becomes three equal channels, what is transparent becomes black, a large one
    is reduced; the note says so. Raises StateError for what is no image, cut off, too large or too small."""
    if not data:
        raise StateError(f"{name} is empty: choose another file")
    if len(data) > MAX_BYTES:
        raise StateError(f"{name} has over {MAX_BYTES / 1e6:.0f} MB, the most that is taken here: save it smaller")
    if np.prod(declared_size(data)) > MAX_PIXELS:
        raise StateError(f"{name} has more than {MAX_PIXELS / 1e6:.0f} million pixels: save it smaller")
    if reading.is_cut_off(data):
        raise StateError(f"{name} is cut off after {len(data)} bytes: copy or download it again")
    rgb, notes = _decode(data, name)
    height, width = rgb.shape[:2]
    if min(height, width) < SMALLEST_PX:
        wanted = f"use at least {SMALLEST_PX} on each side"
        raise StateError(f"{name} is {width}×{height} pixels: too small to show tissue, {wanted}")
    rgb, note = reduced(rgb)
    return LoadedImage(rgb, f"own image, {name}", note=" ".join([*notes, note]).strip())


def _decode(data: bytes, name: str) -> tuple[np.ndarray, list[str]]:
    """RGB pixels, and what should be known about them."""
    bgr = reading.quiet_imdecode(data, cv2.IMREAD_COLOR)
    if bgr is None:
        pixels = reading.quiet_imdecode(data, cv2.IMREAD_UNCHANGED)
        if pixels is None:
            raise StateError(f"{name} is not an image that can be read here: use a JPEG, PNG, BMP, TIFF or WebP file")
        raise StateError(f"{name} has pixels of {pixels.dtype}, which are no picture: save it as PNG")
    whole = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    rgb = reading.without_transparent(whole, data)
    notes = [] if rgb is whole else ["Its transparent parts are shown black, as the frame around tissue is."]
    if (rgb[..., :1] == rgb).all():
        notes.append("The image is grey; the model learned from colour, so trust its answer less.")
    return rgb, notes


def declared_size(data: bytes) -> tuple[int, int]:
    """Width and height that the file's header declares, without unpacking it; (0, 0) where it has none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large images; that is what we are asking about
            return reading.header_size(data)
    except Image.DecompressionBombError:
        return MAX_PIXELS, MAX_PIXELS
    except Exception:  # no image, or one of a format that Pillow does not know: the decoder will say so
        return 0, 0


def reduced(image: np.ndarray) -> tuple[np.ndarray, str]:
    """At most LONGEST_PX on the longer side, and a sentence when that changed something."""
    height, width = image.shape[:2]
    scale = LONGEST_PX / max(height, width)
    if scale >= 1:
        return image, ""
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return small, f"Reduced from {width}×{height} to {size[0]}×{size[1]} pixels."
