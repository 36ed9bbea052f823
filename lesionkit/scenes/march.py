"""How camera rays meet the surface of a rendered scene, and which way it faces there.

Letters: b scenes, n points (or rays) a scene. Millimetres, in the frame of `surface`.

The march takes shortened steps, since f, the function that `surface` describes, is steeper than a distance; it may step
back where it went too far, which makes it settle on the surface from either side.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from lesionkit.scenes.surface import FAR_MM, Elements, Scalars, Tube, Vectors, complete, inside

NEAR_MM = 0.5
_program: Callable[..., Tensor] = inside


def scene_function(tube: Tube, elements: Elements | None, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """f at the points b×n, by `surface.inside` or the program that `evaluated_by` has put in its place."""
    return _program(tube, elements, x, y, z)


@contextmanager
def evaluated_by(program: Callable[..., Tensor]) -> Iterator[None]:
    """Inside it f is computed by another program of the signature of `surface.inside`."""
    global _program
    before, _program = _program, program
    try:
        yield
    finally:
        _program = before


def compiled() -> AbstractContextManager[None]:
    """Inside it scenes are rendered by what torch.compile makes of f: one loop in place of some hundred passes over
    memory, for thousands of scenes. The same scenes up to rounding. The first call compiles, about a minute on a CPU,
    and needs a C++ compiler there (torch's error says so where there is none)."""
    return evaluated_by(_compiled())


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., Tensor]:
    """One program for all scenes and tensors of any size."""
    program = torch.compile(inside, dynamic=True)
    return lambda tube, elements, *point: program(*complete(tube, elements), *point)


def march(
    tube: Tube, elements: Elements | None, rays: Vectors, start: Scalars, steps: int, slope: float = 1.7
) -> Scalars:
    """Follow the rays from the depths `start`; returns the depths in mm. They are the parameter along a ray, which has
    unit length along the optical axis. `slope` is how much steeper than a distance f is taken to be."""
    depth, length = start, length_of(rays) * slope
    for _ in range(steps):
        depth = (depth + _along(tube, elements, rays, depth) / length).clamp(NEAR_MM, FAR_MM)
    return depth


def _along(tube: Tube, elements: Elements | None, rays: Tensor, depth: Tensor) -> Tensor:
    return scene_function(tube, elements, *(depth * rays[:, c] for c in range(3)))


def length_of(vectors: Float[Tensor, "b 3 *n"]) -> Tensor:
    """Euclidean length over the second axis; ten times faster on a CPU than `Tensor.norm(dim=1)`."""
    x, y, z = vectors.unbind(1)
    return torch.sqrt(x * x + y * y + z * z)


def coarse_to_fine(tube: Tube, elements: Elements | None, rays: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b h w"]:
    """Depth for every pixel: a quarter of the rows and columns is marched all the way, then half, then all, each
    from the depths of the one before, less a margin; at last the rays that are not there yet go on alone. Same
    surface, about a quarter of the work."""
    b, _, h, w = rays.shape
    start = torch.full((b, 1, h // 4, w // 4), NEAR_MM, device=rays.device)
    for scale, steps in ((0.25, 44), (0.5, 16), (1.0, 5)):
        coarse = F.interpolate(rays, scale_factor=scale, mode="bilinear", align_corners=False) if scale < 1 else rays
        start = F.interpolate(start, size=coarse.shape[2:], mode="nearest")
        depth = march(tube, elements, coarse.flatten(2), start.flatten(1), steps).view(b, 1, *coarse.shape[2:])
        # the nearest of the neighbours, so that a ray beside an edge never starts behind what it should hit
        start = -F.max_pool2d(-depth, 3, stride=1, padding=1) * 0.98
    depth = polish(tube, elements, rays.flatten(2), depth.flatten(1))
    return finish_rays(tube, elements, rays.flatten(2), depth).view(b, h, w)


def polish(tube: Tube, elements: Elements | None, rays: Vectors, depth: Scalars) -> Scalars:
    """Secant steps towards the surface: where a ray grazes a wall, f falls slowly along it and shortened steps creep.
    A step is at most four times the cautious one, so that a ray near an edge does not jump through what it should hit.
    """
    cautious = length_of(rays) * 1.7
    value = _along(tube, elements, rays, depth)
    step = value / cautious
    for _ in range(4):
        depth = (depth + step).clamp(NEAR_MM, FAR_MM)
        before, value = value, _along(tube, elements, rays, depth)
        fall = (before - value) / torch.where(step.abs() < 1e-6, torch.ones_like(step), step)  # of f per mm of depth
        step = value / fall.clamp_min(cautious / 4)
    return depth


def finish_rays(tube: Tube, elements: Elements | None, rays: Vectors, depth: Scalars) -> Scalars:
    """Marches the worst twelfth of the rays to their end. What grazes a fold or an edge creeps along it in small
    steps; those few pixels are the ones on which depth edges are judged."""
    worst = (_along(tube, elements, rays, depth).abs() / depth).topk(depth.shape[1] // 12, dim=1).indices
    chosen = rays.gather(2, worst[:, None].expand(-1, 3, -1))
    settled = march(tube, elements, chosen, depth.gather(1, worst), steps=70)
    return depth.scatter(1, worst, settled)


def normals(tube: Tube, elements: Elements | None, points: Vectors) -> Vectors:
    """Unit normals at surface points, towards the lumen: the gradient of f from four points of a tetrahedron."""
    epsilon = 0.004 * length_of(points) + 0.02
    total = torch.zeros_like(points)
    for corner in ((1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1)):
        value = scene_function(tube, elements, *(points[:, c] + corner[c] * epsilon for c in range(3)))
        total = total + torch.stack([corner[c] * value for c in range(3)], dim=1)
    return F.normalize(total, dim=1)
