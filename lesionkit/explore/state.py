"""All that the explorer knows, without a widget: which image, which depth, which threshold, and what comes out.

The state is one frozen `Choice`; everything shown follows from it. So undo is "take the choice before", a saved state
is that choice as JSON, and nothing can be half-updated. What is dear to compute is cached by the part of the choice
that it depends on. Coordinates x, y are pixels of the image shown; s is the networks' size.
"""

import hashlib
import json
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from lesionkit import fusion
from lesionkit.detector import Detector
from lesionkit.explore import whatif
from lesionkit.explore.checks import StateError, build, check, require, takes
from lesionkit.explore.images import IMAGES, REDUCED, LoadedImage, SceneImage, UploadImage
from lesionkit.explore.whatif import Outcome, Shown, Stroke

HISTORY = 200  # steps that can be undone
# what feeds the attention, as it is written; "off": every weight is 1
GUIDANCES = {"own": "the image's own", "flat": "flattened", "other": "of another image", "off": "attention off"}
# which settings act under a guidance: a flat map has no relief, and with the attention off nothing does
ACTING = {"own": ("relief", "strokes"), "flat": ("strokes",), "other": ("other", "relief", "strokes"), "off": ()}
VIEWS = {"auto": "what is found", "whole": "the whole frame"}  # what of the frame the networks see
VIEW = ("under", "over", "opacity", "zoom")  # how it is looked at: saved, but not undone
PANELS = {
    "image": "image",
    "depth_first": "depth 1 global",
    "depth_second": "depth 2 local",
    "depth_third": "depth 3 sum",
    "depth_target": "depth 4 target",
    **{f"attention_{scale}": f"attention 1/{2**scale}" for scale in range(1, 6)},
    **{f"strongest_{scale}": f"strongest 1/{2**scale}" for scale in range(1, 6)},
    "depth_used": "depth used",
    **{name: name for name in ("probability", "change", "mask", "detection")},
}


def _image(name: str, value: Any) -> Any:
    given = vars(value) if isinstance(value, tuple(IMAGES.values())) else value
    fits = isinstance(given, dict) and given.get("kind") in list(IMAGES)
    require(fits, name, value, f"an object whose kind is one of {', '.join(IMAGES)}")
    return build(IMAGES[given["kind"]], given, "this image")


def _strokes(name: str, value: Any) -> tuple[Stroke, ...]:
    require(isinstance(value, (list, tuple)), name, value, "a list of strokes")
    return tuple(one if isinstance(one, Stroke) else build(Stroke, one, "a stroke") for one in value)


@dataclass(frozen=True)
class Choice:
    """Everything that a person can choose. Defaults are what the explorer opens with."""

    image: Any = field(default=SceneImage(), metadata={"takes": _image})  # one of IMAGES
    view: str = takes(list(VIEWS), "auto")
    threshold: float = takes((0, 1), 0.5)
    guidance: str = takes(list(GUIDANCES), "own")
    other: int = takes((1, 999), 1)  # which other image's depth, for guidance "other"
    relief: float = takes((-3, 5), 1.0)  # factor on the local relief of the guiding depth
    strokes: tuple[Stroke, ...] = takes(_strokes, ())
    point: tuple[float, ...] | None = takes({"x": (0, 1e5), "y": (0, 1e5)}, None)
    angle: float = takes((-180, 180), 0.0)  # of the profile's line, degrees, 0 along x
    under: str = takes(list(PANELS), "image")
    over: str = takes(list(PANELS), "probability")
    opacity: float = takes((0, 1), 0.0)
    # centre as shares of the size
    zoom: tuple[float, ...] = takes({"magnification": (1, 40), "x": (0, 1), "y": (0, 1)}, (1.0, 0.5, 0.5))

    def part(self, names: Iterable[str]) -> dict[str, Any]:
        """The values of these fields by name."""
        return {name: getattr(self, name) for name in names}


def _plain(part: Any) -> dict[str, Any]:
    """What a saved state holds of an image or a stroke: what it must say, and what differs from the defaults."""
    values = {f.name: (getattr(part, f.name), f.default) for f in fields(part)}
    return {name: value for name, (value, usual) in values.items() if name == "kind" or value != usual}


class ExplorerState:
    """The explorer without a view. Methods change the choice; `shown`, `outcome`, `numbers` … say what follows.

    detector: any `Detector`. weights: what the Python line gives to `Detector.from_pretrained`. image: the first one.
    Methods that take something from outside raise StateError, DatasetError or ImageError, each one sentence, and
    then leave the state as it was.
    """

    def __init__(self, detector: Detector, weights: str = "reference", image: Any = None):
        self.detector, self.weights = detector, weights
        self._default = Choice(threshold=float(detector.threshold), view=detector.view)
        first = build(Choice, vars(self._default) | {"image": image or SceneImage()}, "the state")
        self._steps, self._at = [first], 0
        self.step: Hashable = None  # what the present one is about; None: what changes next is a step of its own
        self._uploads: dict[UploadImage, LoadedImage] = {}
        self._show = lru_cache(maxsize=4)(
            lambda image, view: whatif.prepare(detector, self._uploads.get(image) or image.load(), view)
        )
        self._answer = lru_cache(maxsize=12)(self._compute_outcome)
        self.runs = 0  # how often the networks ran; the tests count

    @property
    def now(self) -> Choice:
        return self._steps[self._at]

    def choose_scene(self, **changes: Any) -> None:
        """A rendered scene: the present one (or the first) with `changes`, fields of SceneImage."""
        present = vars(self.now.image) if isinstance(self.now.image, SceneImage) else {}
        self.change(("scene", *changes), image=build(SceneImage, present | changes, "the scene"))

    def load_upload(self, data: bytes, name: str = "upload", reduced: bool = False) -> None:
        """The bytes of an image file. reduced: the browser made it smaller, so the file's own bytes are others."""
        image = UploadImage(name, (REDUCED if reduced else "") + hashlib.sha256(data).hexdigest())
        loaded = image.load(data)
        self._uploads.pop(image, None)  # a key that is there already would keep its old place
        self._uploads[image] = loaded
        self.change(image=image)

    def choose_upload(self) -> None:
        """The last own image again."""
        if not self._uploads:
            raise StateError("choose your file with open… above the image, or drop it onto the explorer")
        self.change(image=next(reversed(self._uploads)))

    def set_threshold(self, threshold: float) -> None:
        """0 to 1; what lies above is lesion."""
        self.change("threshold", threshold=threshold)

    def set_guidance(self, guidance: str | None = None, relief: float | None = None, other: int | None = None) -> None:
        """What feeds the attention. guidance: one of GUIDANCES; relief: see `whatif.exaggerate`; other: which image."""
        given = {"guidance": guidance, "relief": relief, "other": other}
        changes = {name: value for name, value in given.items() if value is not None}
        self.change(tuple(changes), **changes)

    def paint(self, points: Any, radius_px: float, strength: float = 0.3, tool: str = "nearer", stroke: Any = None):
        """Push the depth under the brush nearer or farther, or smear it. Calls with one `stroke` extend it."""
        given = {"tool": tool, "radius_px": radius_px, "strength": strength, "points": points}
        new, strokes = build(Stroke, given, "a stroke"), self.now.strokes
        step = ("paint", stroke) if stroke else None
        if step and step == self.step:
            new, strokes = replace(strokes[-1], points=strokes[-1].points + new.points), strokes[:-1]
        self.change(step, strokes=(*strokes, new))

    def click(self, x: float, y: float) -> None:
        """The point whose values and profile are shown."""
        height, width = self.shown.size_hw
        self.change("point", point=check("point", (x, y), {"x": (0, width), "y": (0, height)}))

    def reset(self) -> None:
        """Depth, relief, paint and threshold as they were; the image stays. Can be undone."""
        self.change(None, **self._default.part(("guidance", "other", "relief", "strokes", "threshold")))

    def change(self, step: Hashable = None, **changes: Any) -> None:
        """Any fields of `Choice`. Changes of one `step` in a row (a slider being dragged) are undone together; what
        changes in VIEW alone is saved, but no step. Paint and point go with their image."""
        pair = (self.now.image, changes.get("image"))
        same_scene = all(isinstance(one, SceneImage) for one in pair) and pair[0].seed == pair[1].seed
        if pair[1] is not None and not same_scene:  # an image that is opened again begins anew as well
            changes = {"strokes": (), "point": None, "zoom": Choice.zoom} | changes
        now = build(Choice, vars(self.now) | changes, "the state")
        if now == self.now:
            return
        if set(changes) <= set(VIEW):
            self._steps[self._at] = now
            return
        self._show(now.image, now.view)  # before anything changes: an image that cannot be read leaves the state alone
        if now.guidance == "other":
            self._show(now.image.another(now.other), now.view)
        kept = self._at if step is not None and step == self.step else self._at + 1
        self._steps = [*self._steps[:kept], now][-HISTORY:]
        self._at, self.step = len(self._steps) - 1, step

    @property
    def can_undo(self) -> bool:
        return self._at > 0

    @property
    def can_redo(self) -> bool:
        return self._at < len(self._steps) - 1

    def undo(self, steps: int = 1) -> None:
        """Back by one step, or as far as it goes."""
        view, self.step = self.now.part(VIEW), None
        self._at = min(max(self._at - steps, 0), len(self._steps) - 1)
        self.change(**view)

    def redo(self) -> None:
        self.undo(-1)

    @property
    def shown(self) -> Shown:
        """The image, and what of it does not depend on the what-if."""
        return self._show(self.now.image, self.now.view)

    @property
    def outcome(self) -> Outcome:
        """What the networks answer to the chosen depth; `original` itself while nothing was asked of it."""
        now = self.now
        return self._answer(Choice(guidance=now.guidance, **now.part(("image", "view", *ACTING[now.guidance]))))

    @property
    def original(self) -> Outcome:
        """What they answer to the image's own depth."""
        return self._answer(Choice(**self.now.part(("image", "view"))))

    @torch.inference_mode()
    def _compute_outcome(self, what_if: Choice) -> Outcome:
        self.runs += 1
        shown = self._show(what_if.image, what_if.view)
        depth = shown.depths.target
        if what_if.guidance == "flat":  # a wall at the median distance, seen head-on
            depth = torch.full_like(depth, float(depth.median()))
        elif what_if.guidance == "other":
            depth = self._show(what_if.image.another(what_if.other), what_if.view).depths.target
        depth = whatif.paint(whatif.exaggerate(depth, what_if.relief), what_if.strokes, shown.box)
        return whatif.guide(self.detector, shown, depth, what_if.guidance != "off")

    def probability(self, original: bool = False) -> np.ndarray:
        """h×w of the image shown, float32."""
        outcome = self.original if original else self.outcome
        return fusion.restore(outcome.probability, self.shown.box, self.shown.size_hw)

    def numbers(self) -> dict[str, dict[str, float | None]]:
        """Per name of `whatif.mask_numbers` the value `now`, `original` (own depth, same threshold) and `change`."""
        threshold, truth = self.now.threshold, self.shown.loaded.truth
        now = before = whatif.mask_numbers(self.probability(), threshold, truth)
        if self.outcome is not self.original:
            before = whatif.mask_numbers(self.probability(original=True), threshold, truth)
        changes = {name: None if None in (now[name], before[name]) else now[name] - before[name] for name in now}
        return {name: {"now": now[name], "original": before[name], "change": changes[name]} for name in now}

    def profile_at_click(self) -> dict[str, Any] | None:
        """What the line through the clicked point shows, see `whatif.profile`; None without a point."""
        point, angle = self.now.point, self.now.angle
        return whatif.profile(self.shown, self.outcome, self.original, point, angle) if point else None

    def to_json(self, indent: int | None = None) -> str:
        """The choice as JSON: what differs from the defaults."""
        kept = {name: value for name, value in vars(self.now).items() if value != getattr(self._default, name)}
        return json.dumps(kept, indent=indent, ensure_ascii=False, default=_plain)

    def load_json(self, text: str, upload: bytes | None = None) -> None:
        """What `to_json` gave; one step to undo. upload: the file's bytes, where the state is about an own image."""
        try:
            given = json.loads(text)
        except ValueError as error:
            raise StateError(f"this is no saved state, which is an object in JSON: {error}") from None
        require(isinstance(given, dict), "a saved state", given, "an object in JSON")
        choice = build(Choice, vars(self._default) | given, "the state")
        if isinstance(choice.image, UploadImage) and choice.image not in self._uploads:
            self._uploads[choice.image] = choice.image.load(upload)
        self.change(None, **vars(choice))

    @classmethod
    def from_json(cls, detector: Detector, text: str, upload: bytes | None = None, **options: Any) -> "ExplorerState":
        """A new state from what `to_json` gave. Raises StateError for one that is none, DatasetError for
        images that are not here."""
        state = cls(detector, **options)
        state.load_json(text, upload)
        state._steps, state._at = [state.now], 0
        return state

    def python_line(self) -> str:
        """One line that shows this view again in a notebook."""
        own = isinstance(self.now.image, UploadImage)
        start = "from pathlib import Path; " if own else ""
        upload = f", upload=Path({self.now.image.name!r}).read_bytes()" if own else ""
        weights = "" if self.weights == "reference" else f", weights={self.weights!r}"
        explorer = f"Detector.from_pretrained({self.weights!r}), state={self.to_json()!r}{upload}{weights}"
        return f"{start}from lesionkit import Detector, explore; explore.Explorer({explorer})"
