"""All that the explorer knows, without a widget: which image, which depth, which threshold, and what comes out.

The state is one frozen `Choice`; everything shown follows from it. So undo is "take the choice before", a saved state
is that choice as JSON, and nothing can be half-updated. What is dear to compute is cached by the part of the choice
that it depends on. Coordinates x, y are pixels of the image shown; s is the networks' size.
"""

import hashlib
from collections.abc import Hashable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from lesionkit.detector import Detector
from lesionkit.explore import readings, whatif
from lesionkit.explore.checks import StateError, build, number
from lesionkit.explore.choice import VIEW, Choice, from_json, to_json
from lesionkit.explore.images import REDUCED, LoadedImage, SampleImage, SceneImage, UploadImage, decode_upload
from lesionkit.explore.whatif import STROKE_POINTS, Outcome, Shown, Stroke

HISTORY = 200  # steps that can be undone
# which settings act under a guidance: a flat map has no relief, and with the attention off nothing does
ACTING = {"own": ("relief", "strokes"), "flat": ("strokes",), "other": ("other", "relief", "strokes"), "off": ()}


class ExplorerState:
    """The explorer without a view. Methods change the choice; `shown`, `outcome`, `numbers` … say what follows.

    detector: any `Detector`. weights: what the Python line gives to `Detector.from_pretrained`. image: the first one.
    Methods that take something from outside raise StateError, one sentence, and then leave the state as it was.
    """

    def __init__(self, detector: Detector, weights: str = "reference", image: Any = None):
        self.detector, self.weights = detector, weights
        self._default = Choice(threshold=float(detector.threshold))
        self.start = self.now = build(Choice, vars(self._default) | {"image": image or SceneImage()}, "the state")
        self._past: list[Choice] = []
        self._future: list[Choice] = []
        self._step: Hashable = None
        self._uploads: dict[UploadImage, LoadedImage] = {}
        self._show = lru_cache(maxsize=4)(self._compute_image)
        self._answer = lru_cache(maxsize=12)(self._compute_outcome)
        self.runs = 0  # how often the networks ran; the tests count

    # --- choosing -------------------------------------------------------------------------------------

    def choose_scene(self, **changes: Any) -> None:
        """A rendered scene: the present one (or the first) with `changes`, fields of SceneImage."""
        present = vars(self.now.image) if isinstance(self.now.image, SceneImage) else {}
        self._choose_image(build(SceneImage, present | changes, "the scene"), step=("scene", tuple(changes)))

    def choose_sample(self, dataset: str, name: str) -> None:
        """An image of a data set that is on this machine."""
        self._choose_image(build(SampleImage, {"dataset": dataset, "name": name}, "the sample"))

    def load_upload(self, data: bytes, name: str = "upload", reduced: bool = False) -> None:
        """The bytes of an image file. reduced: the browser made it smaller, so the file's own bytes are others."""
        loaded = decode_upload(data, name)
        image = UploadImage(name, (REDUCED if reduced else "") + hashlib.sha256(data).hexdigest())
        self._uploads.pop(image, None)  # a key that is there already would keep its old place
        self._uploads[image] = loaded
        self._choose_image(image)

    def choose_upload(self) -> None:
        """The last own image again."""
        if not self._uploads:
            raise StateError("choose your file with open… above the image, or drop it onto the explorer")
        self._choose_image(next(reversed(self._uploads)))

    def _choose_image(self, image: Any, step: Hashable = None) -> None:
        before = self.now.image
        same_place = isinstance(image, SceneImage) and isinstance(before, SceneImage) and image.seed == before.seed
        kept = {} if same_place else {"strokes": (), "point": None, "zoom": Choice.zoom}
        self._change(step, image=image, **kept)

    def set_threshold(self, threshold: float) -> None:
        """0 to 1; what lies above is lesion."""
        self._change("threshold", threshold=threshold)

    def set_guidance(self, guidance: str | None = None, relief: float | None = None, other: int | None = None) -> None:
        """What feeds the attention. guidance: one of GUIDANCES; relief: see `whatif.exaggerate`; other: which image."""
        given = {"guidance": guidance, "relief": relief, "other": other}
        changes = {name: value for name, value in given.items() if value is not None}
        self._change(tuple(changes), **changes)

    def paint(
        self, points: Any, radius_px: float, strength: float = 0.3, tool: str = "nearer", stroke: Hashable = None
    ) -> None:
        """Push the depth under the brush nearer or farther, or smear it. Calls with one `stroke` extend it, until it
        has STROKE_POINTS: what follows is a stroke more, of the same step."""
        given = {"tool": tool, "radius_px": radius_px, "strength": strength, "points": points}
        new, strokes = build(Stroke, given, "a stroke"), self.now.strokes
        if stroke is not None and self._step == ("paint", stroke) and strokes:
            longer = strokes[-1].points + new.points
            if len(longer) <= STROKE_POINTS:
                new, strokes = replace(strokes[-1], points=longer), strokes[:-1]
        self._change(None if stroke is None else ("paint", stroke), strokes=(*strokes, new))

    def click(self, x: float, y: float) -> None:
        """The point whose values and profile are shown."""
        height, width = self.shown.size_hw
        self._change("point", point=(number("x", x, 0, width), number("y", y, 0, height)))

    def set_angle(self, degrees: float) -> None:
        """Direction of the profile's line, −180 to 180; 0 runs along x."""
        self._change("angle", angle=degrees)

    def set_view(self, **changes: Any) -> None:
        """under, over, opacity, zoom: how it is looked at. Saved with the state, but no step that is undone."""
        self.now = build(Choice, vars(self.now) | changes, "the state")

    # --- history --------------------------------------------------------------------------------------

    def _change(self, step: Hashable, **changes: Any) -> None:
        """Changes of one and the same kind in a row (a slider being dragged) are one step to undo."""
        now = build(Choice, vars(self.now) | changes, "the state")
        if now == self.now:
            return
        self._show(now.image)  # before anything changes: an image that cannot be read leaves the state alone
        if now.guidance == "other":
            self._donor(now)
        if step is None or step != self._step:
            self._past = [*self._past[-HISTORY:], self.now]
        self._future, self._step, self.now = [], step, now

    def end_step(self) -> None:
        """What changes next is a step of its own."""
        self._step = None

    @property
    def can_undo(self) -> bool:
        return bool(self._past)

    @property
    def can_redo(self) -> bool:
        return bool(self._future)

    def undo(self) -> None:
        """Back by one step; nothing where there is none."""
        self._travel(self._past, self._future)

    def redo(self) -> None:
        self._travel(self._future, self._past)

    def _travel(self, source: list[Choice], target: list[Choice]) -> None:
        if source:
            target.append(self.now)
            self.now = replace(source.pop(), **self.now.part(VIEW))
        self._step = None

    def reset(self) -> None:
        """Depth, relief, paint and threshold as they were; the image stays. Can be undone."""
        self._change(None, **self.start.part(("guidance", "other", "relief", "strokes", "threshold")))

    # --- what follows ---------------------------------------------------------------------------------

    @property
    def shown(self) -> Shown:
        return self._show(self.now.image)

    def _compute_image(self, image: Any) -> Shown:
        loaded = self._uploads[image] if image in self._uploads else image.load()
        self.runs += 1
        prepared = whatif.prepare(self.detector, loaded.image)
        return Shown(loaded, prepared, whatif.guide(self.detector, prepared, prepared.depths.target))

    @property
    def what_if(self) -> Choice:
        """The part of the choice that the networks' answer depends on, all else at its default."""
        now = self.now
        return Choice(image=now.image, guidance=now.guidance, **now.part(ACTING[now.guidance]))

    @property
    def is_original(self) -> bool:
        return self.what_if == Choice(image=self.now.image)

    @property
    def outcome(self) -> Outcome:
        """What the networks answer to the chosen depth."""
        return self.shown.original if self.is_original else self._answer(self.what_if)

    @torch.inference_mode()
    def _compute_outcome(self, what_if: Choice) -> Outcome:
        self.runs += 1
        prepared = self._show(what_if.image).prepared
        depth = prepared.depths.target
        if what_if.guidance == "flat":
            depth = whatif.flatten(depth)
        elif what_if.guidance == "other":
            depth = self._donor(what_if).prepared.depths.target
        depth = whatif.paint(whatif.exaggerate(depth, what_if.relief), what_if.strokes, prepared.box)
        return whatif.guide(self.detector, prepared, depth, what_if.guidance != "off")

    def _donor(self, choice: Choice) -> Shown:
        """The other image, whose depth guides."""
        return self._show(choice.image.another(choice.other))

    def probability(self, original: bool = False) -> np.ndarray:
        """h×w of the image shown, float32."""
        return self.shown.probability(self.shown.original if original else self.outcome)

    def numbers(self) -> dict[str, dict[str, float | None]]:
        """What the mask amounts to, see `readings.numbers`."""
        return readings.numbers(self.shown, self.outcome, self.now.threshold)

    def profile_at_click(self) -> dict[str, Any] | None:
        """What the line through the clicked point shows, see `readings.profile`; None without a point."""
        now = self.now
        return readings.profile(self.shown, self.outcome, now.point, now.angle) if now.point else None

    # --- saving ---------------------------------------------------------------------------------------

    def to_json(self, indent: int | None = None) -> str:
        """The choice as JSON: what differs from the defaults."""
        return to_json(self.now, self._default, indent)

    def load_json(self, text: str, upload: bytes | None = None) -> None:
        """What `to_json` gave; one step to undo. upload: the file's bytes, where the state is about an own image."""
        choice = from_json(text, self._default)
        if isinstance(choice.image, UploadImage) and choice.image not in self._uploads:
            self._uploads[choice.image] = choice.image.load(upload)
        self._change(None, **vars(choice))

    @classmethod
    def from_json(cls, detector: Detector, text: str, upload: bytes | None = None, **options: Any) -> "ExplorerState":
        """A new state from what `to_json` gave. Raises StateError."""
        state = cls(detector, **options)
        state.load_json(text, upload)
        state._past.clear()
        return state

    def python_line(self) -> str:
        """One line that shows this view again in a notebook."""
        needs, options = "", f"state={self.to_json()!r}"
        if isinstance(self.now.image, UploadImage):
            needs = "from pathlib import Path; "
            options += f", upload=Path({self.now.image.name!r}).read_bytes()"
        if self.weights != "reference":
            options += f", weights={self.weights!r}"
        detector = f"Detector.from_pretrained({self.weights!r})"
        return f"{needs}from lesionkit import Detector, explore; explore.Explorer({detector}, {options})"
