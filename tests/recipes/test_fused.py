"""A function of points as one loop in C: the same numbers as torch's, from the same source."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from fused import Fused, FusedError, SceneKernel

from lesionkit.scenes import SceneConfig, render_scenes
from lesionkit.scenes.march import evaluated_by

# for a processor, where a GPU's program cannot be tried: the same body in another frame
LOOP = """#include <math.h>
extern "C" void fused(const float* facts, const float* x_, const float* y_, const float* z_, float* out,
                      int count, int n) {{
  for (int i = 0; i < count; i++) {{
    const float* fact = facts + (long)(i / n) * {m};
    const float x = x_[i], y = y_[i], z = z_[i];
    {body}
  }}
}}
"""


@pytest.fixture
def compiler(tmp_path, absent):
    command = os.environ.get("CXX", "c++")
    if shutil.which(command) is None:
        absent(f"there is no C++ compiler {command}")

    def by(m: int, body: str):
        place = Path(tmp_path, str(len(list(tmp_path.iterdir()))))
        source, library = place.with_suffix(".cpp"), place.with_suffix(".so")
        source.write_text(LOOP.format(m=m, body=body))
        subprocess.run([command, "-O1", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
        function = ctypes.CDLL(str(library)).fused

        def run(arguments: list) -> None:
            pointers = [ctypes.c_void_p(a.data_ptr()) for a in arguments[:-2]]
            function(*pointers, *map(ctypes.c_int, arguments[-2:]))

        return run

    return by


def ball(facts: list[torch.Tensor], x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Every kind of argument: facts of the scene, computed ones, booleans, numbers, powers, a choice."""
    radius, centre, lit = facts
    away = torch.sqrt((x - centre[:, :1]) ** 2 + (y - centre[:, 1:2]) ** 2 + (z - centre[:, 2:]) ** 2 + 1e-6)
    wave = torch.exp(-((away / radius.clamp_min(0.5)) ** 4)) * torch.sin(3 - 2 * z) - 1 / (1 + away)
    return torch.where(lit & (radius > 0), torch.minimum(away - radius, wave), torch.full_like(away, -7.5))


def facts_of(b: int, seed: int) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    lit = torch.rand(b, 1, generator=draw) < 0.7
    return [torch.rand(b, 1, generator=draw) * 3 - 0.5, torch.randn(b, 3, generator=draw), lit]


@pytest.mark.parametrize("traced", [1, 3])
def test_any_number_of_scenes_and_points_after_one_trace(traced, compiler):
    fused = Fused(ball, facts_of(traced, 0), compiler)
    for b, n in ((3, 5), (1, 1), (40, 70)):
        facts, points = facts_of(b, b), torch.randn(3, b, n)
        torch.testing.assert_close(fused(facts, *points), ball(facts, *points), rtol=1e-4, atol=1e-5)
        again = torch.randn(3, b, n)
        torch.testing.assert_close(fused(facts, *again), ball(facts, *again), rtol=1e-4, atol=1e-5)


def test_points_that_lie_apart_in_memory_are_read_in_order(compiler):
    fused, facts, points = Fused(ball, facts_of(3, 0), compiler), facts_of(4, 1), torch.randn(6, 4, 3)
    x, y, z = (points[..., i].T for i in range(3))
    torch.testing.assert_close(fused(facts, x, y, z), ball(facts, x, y, z), rtol=1e-4, atol=1e-5)


def test_what_has_no_form_in_c_is_named():
    with pytest.raises(FusedError, match=r"erf.*has no form in C"):
        Fused(lambda facts, x, y, z: torch.erf(x) * facts[0], facts_of(2, 0), lambda m, body: None)
    with pytest.raises(FusedError, match=r"add.*has no form in C"):
        Fused(lambda facts, x, y, z: torch.add(x, y, alpha=2.0), facts_of(2, 0), lambda m, body: None)
    with pytest.raises(FusedError, match=r"div.*has no form in C"):
        Fused(lambda facts, x, y, z: torch.div(x, y, rounding_mode="floor"), facts_of(2, 0), lambda m, body: None)


@pytest.mark.parametrize("points", [torch.ones(3, 4, 5), torch.ones(3, 2, 5, dtype=torch.float64)])
def test_points_that_do_not_fit_are_refused(points):
    """Pointers would be read past their end, or bytes as other numbers."""
    fused = Fused(ball, facts_of(2, 0), lambda m, body: lambda arguments: pytest.fail("was run"))
    with pytest.raises(FusedError, match="three float32 tensors 2×n"):
        fused(facts_of(2, 0), *points)


@pytest.mark.parametrize("name", ["hard", "examination"])
def test_scenes_by_the_kernel_are_the_same_up_to_rounding(name, compiler):
    """The renderer's own function, as a GPU would have it."""
    config = getattr(SceneConfig, name)()
    plain = render_scenes(8, 48, 3, "cpu", config)
    with evaluated_by(SceneKernel(compiler)):
        other = render_scenes(8, 48, 3, "cpu", config)
    assert not torch.equal(other.depth, plain.depth)  # another program ran
    apart = ((other.depth - plain.depth) / plain.depth).abs()
    assert apart.median() < 1e-6
    assert (apart > 0.01).float().mean() < 0.002  # rays that graze an edge
    assert (other.instance != plain.instance).float().mean() < 0.001
    assert (other.image - plain.image).abs().mean() < 1e-3
