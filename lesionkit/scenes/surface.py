"""What a rendered scene is made of: a bent, folded tube with bumps on its wall, as the zero set of a function.

Letters: b scenes, n points a scene, k elements on the wall (lesions and look-alikes).
Everything is in millimetres, in the camera's frame turned into the tube's: x right, y down, z along the tube.

The function, f, is positive in the lumen and negative in the tissue. It is *not* a true distance (folds are steep).
"""

from dataclasses import dataclass, fields, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

Vectors, Scalars = Float[Tensor, "b 3 n"], Float[Tensor, "b n"]  # one for each point
FAR_MM = 220.0  # nothing is seen further away; the light is gone long before
FEATURES = frozenset({"corner", "swell", "uneven folds"})  # of a tube; what no scene of a batch has is not computed


@dataclass(frozen=True)
class Tube:
    """A colon segment around the camera; every field is b×1, mm or radians unless its name says otherwise."""

    radius: Tensor
    offset_x: Tensor  # where the centre line passes the camera's plane
    offset_y: Tensor
    bend_x: Tensor  # amplitude of the centre line's waves
    bend_y: Tensor
    bend_rate_x: Tensor  # radians per mm
    bend_rate_y: Tensor
    bend_phase_x: Tensor
    bend_phase_y: Tensor
    fold_depth: Tensor
    fold_spacing: Tensor
    fold_phase: Tensor
    fold_sharpness: Tensor  # 1 is a soft wave, 8 a thin ridge
    fold_tilt: Tensor  # how far a fold leans along the tube from one side to the other
    triangle: Tensor  # 0 round, 1 clearly triangular
    turn: Tensor  # where the three taeniae stand
    end: Tensor  # z of the blind end; beyond FAR_MM means an open tube
    end_round: Tensor  # of its rim: small is a flat end, as much as the radius a bowl
    fold_uneven: Tensor  # 0 folds are alike, 1 some hardly stand out
    fold_gap: Tensor  # 0 folds are whole rings, 1 each is there on one side only (semilunar)
    fold_twist: Tensor  # radians per mm: how that side wanders from fold to fold
    swell: Tensor  # mm: height of the wall's soft unevenness
    swell_rate: Tensor  # radians per mm
    swell_phase: Tensor
    corner_start: Tensor  # z at which the tube turns away in an arc (a flexure); beyond FAR_MM none
    corner_radius: Tensor  # of that arc
    corner_about: Tensor  # towards which side

    def straighten(self, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Points b×n in coordinates in which the corner is straight: z becomes the length along the arc, which is exact
        on the centre line and too short towards the inside of the corner."""
        if "corner" not in self.features:
            return x, y, z
        cos, sin = torch.cos(self.corner_about), torch.sin(self.corner_about)
        inward, sideways = cos * x + sin * y, cos * y - sin * x
        ahead, away = (z - self.corner_start).clamp_min(0), self.corner_radius - inward
        reach = torch.sqrt(away * away + ahead * ahead)
        angle = torch.atan2(ahead, away)
        turned = ahead > 0
        inward = self.corner_radius - reach
        x = torch.where(turned, cos * inward - sin * sideways, x)
        y = torch.where(turned, sin * inward + cos * sideways, y)
        return x, y, torch.where(turned, self.corner_start + self.corner_radius * angle, z)

    @cached_property
    def features(self) -> frozenset[str]:
        """Which of FEATURES any of the scenes has."""
        there = {"corner": self.corner_start < FAR_MM, "swell": self.swell > 0, "uneven folds": self.fold_uneven > 0}
        return frozenset(name for name, where in there.items() if bool(where.any()))

    def centre(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The lumen's centre at z (straightened): (x, y), b×n each."""
        wave_x = torch.sin(self.bend_rate_x * z + self.bend_phase_x) - torch.sin(self.bend_phase_x)
        wave_y = torch.sin(self.bend_rate_y * z + self.bend_phase_y) - torch.sin(self.bend_phase_y)
        return self.offset_x + self.bend_x * wave_x, self.offset_y + self.bend_y * wave_y

    def inside(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """How far the points b×n lie inside the lumen (mm, roughly; negative in the tissue)."""
        x, y, z = self.straighten(x, y, z)
        centre_x, centre_y = self.centre(z)
        dx, dy = x - centre_x, y - centre_y
        rho = torch.sqrt(dx * dx + dy * dy + 1e-6)
        cos1, sin1 = dx / rho, dy / rho
        # the angle's third harmonic without an arc tangent: cos 3a = 4 cos³a − 3 cos a
        cos3 = (4 * cos1 * cos1 - 3) * cos1
        sin3 = (3 - 4 * sin1 * sin1) * sin1
        lobes = cos3 * torch.cos(self.turn) + sin3 * torch.sin(self.turn)
        lean = self.fold_tilt * (cos1 * torch.cos(self.turn * 2) + sin1 * torch.sin(self.turn * 2))
        uneven = 0.8 * torch.sin(0.05 * z + self.fold_phase * 3)  # no two folds are equally far apart
        phase = 6.2832 * (z + lean) / self.fold_spacing + self.fold_phase + uneven
        ridge = torch.exp(self.fold_sharpness * (torch.cos(phase) - 1))
        if "uneven folds" in self.features:
            low = 0.5 + 0.5 * torch.sin(2.3 * z / self.fold_spacing + 5 * self.fold_phase)
            ridge = ridge * (1 - self.fold_uneven * low)
        side = 2 * self.fold_phase + self.fold_twist * z
        ridge = ridge * (1 - self.fold_gap * (0.5 - 0.5 * (cos1 * torch.cos(side) + sin1 * torch.sin(side))))
        radius = self.radius * (1 + 0.12 * self.triangle * lobes)
        radius = radius - self.fold_depth * ridge * (1 + 0.6 * self.triangle * lobes)
        end = self.end
        if "swell" in self.features:
            swell = self.swell * self._unevenness(x, y, z)
            radius, end = radius + swell, end + 2 * swell
        return smooth_minimum(radius - rho, end - z, self.end_round)

    def _unevenness(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """A smooth field in [−1, 1] over space that repeats nowhere in sight."""
        rate, phase = self.swell_rate, self.swell_phase
        across = torch.sin(rate * x + phase + torch.sin(0.7 * rate * z)) * torch.sin(rate * y + 2 * phase)
        return 0.6 * across + 0.4 * torch.sin(0.8 * rate * z + 3 * phase + 1.3 * torch.sin(0.6 * rate * (x + y)))


@dataclass(frozen=True)
class Elements:
    """What stands on the wall. b×k each; `base`, `up`, `along`, `across` are b×k×3 (the element's own frame)."""

    base: Tensor
    up: Tensor
    along: Tensor
    across: Tensor
    radius: Tensor  # half the largest diameter, mm; 0 switches the element off
    aspect: Tensor  # width over length, 0.6 to 1
    height: Tensor  # of the half ellipsoid above the wall; 0 flat; negative sunk
    lift: Tensor  # how far a pedunculated head is carried from the wall, in radii
    lumps: Tensor  # amplitude of the lobulated surface, in radii
    lump_phase: Tensor
    is_lesion: Tensor  # bool; the rest are look-alikes
    raised: tuple[int, ...]  # which of the k stand out of the wall in any scene, and which sink into it:
    sunk: tuple[int, ...]  # the march leaves out the rest

    def local(self, i: int, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The points b×n in the frame of element i: along, across and up, in mm."""
        dx, dy, dz = (p - self.base[:, i, c, None] for c, p in enumerate((x, y, z)))
        axes = (axis[:, i, :, None].unbind(1) for axis in (self.along, self.across, self.up))
        return tuple(dx * ax + dy * ay + dz * az for ax, ay, az in axes)

    def footprint(self, i: int, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """Distance from the axis of element i in units of its radius (b×n); below 1 is on the element."""
        u, v, w = self.local(i, x, y, z)
        radius = self.radius[:, i, None].clamp_min(1e-3)
        flat = torch.sqrt(u * u + (v / self.aspect[:, i, None]) ** 2 + 1e-9) / radius
        # a point on the far side of the lumen lies on the same axis: the height tells it apart
        return torch.where(w.abs() < 2.6 * radius, flat, torch.full_like(flat, 9.0))

    def outside(self, i: int, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """How far the points b×n lie outside the raised body of element i (mm, roughly)."""
        u, v, w = self.local(i, x, y, z)
        radius = self.radius[:, i, None].clamp_min(1e-3)
        height = self.height[:, i, None]
        raised = height.clamp_min(1e-2)
        lift = self.lift[:, i, None] * radius
        across = v / self.aspect[:, i, None]
        wave = 4.0 / radius
        phase = self.lump_phase[:, i, None]
        lump = torch.sin(wave * u + phase) * torch.sin(wave * v + 2 * phase) * torch.sin(wave * w + phase)
        reach = torch.sqrt((u * u + across * across) / radius**2 + ((w - lift) / raised) ** 2 + 1e-9)
        body = (reach - 1 - self.lumps[:, i, None] * lump) * torch.minimum(raised, radius)
        stalk = torch.sqrt(u * u + v * v + 1e-9) - 0.32 * radius
        stalk = torch.maximum(stalk, w - lift)  # from the wall up to the head
        body = torch.where(lift > 0, smooth_minimum(body, stalk, 0.25 * radius), body)
        present = (self.radius[:, i, None] > 0) & (height > 0)
        return torch.where(present, body, torch.full_like(body, FAR_MM))


def smooth_minimum(a: Tensor, b: Tensor, width: Tensor | float) -> Tensor:
    """The smaller of two, with a rounded corner of the given width (polynomial; Quilez' form)."""
    mix = (width - (a - b).abs()).clamp_min(0) / width
    return torch.minimum(a, b) - mix * mix * width * 0.25


def inside(tube: Tube, elements: Elements | None, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """f at the points b×n: positive in the lumen, zero on wall and elements."""
    value = tube.inside(x, y, z)
    if elements is None:
        return value
    for i in elements.sunk:
        depth = (-elements.height[:, i, None]).clamp_min(0)
        value = value + depth * torch.exp(-((elements.footprint(i, x, y, z) * 1.4) ** 4))
    for i in elements.raised:
        value = smooth_minimum(value, elements.outside(i, x, y, z), 0.22 * elements.radius[:, i, None] + 0.05)
    return value


class _AnyTube(Tube):
    features = FEATURES


def complete(tube: Tube, elements: Elements | None) -> tuple[Tube, Elements | None]:
    """The same scenes with nothing left out, so that one program does for all; what a scene lacks changes nothing."""
    if elements is not None:
        every = tuple(range(elements.radius.shape[1]))
        elements = replace(elements, raised=every, sunk=every)
    return _AnyTube(*(getattr(tube, field.name) for field in fields(Tube))), elements
