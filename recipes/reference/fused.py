"""Scenes rendered on a GPU by one kernel: an elementwise function of many points, made one loop in C.

torch runs such a function one operation after the other, each a pass over memory; with some hundred operations that is
most of the time. Here the function is traced once, its operations are written down as C, and a compiler makes one pass
of them. The function stays the only source of what is computed.

Letters: b scenes, n points a scene, m facts a scene. What does not depend on the points (the facts) is left to torch,
once for all points of a scene.

`lesionkit.scenes.compiled` does the same with torch.compile and is what a CPU should use, where it makes use of vectors
as well; on a GPU it took minutes to compile the renderer's function, where this takes seconds.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields

import torch
from jaxtyping import Float
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from lesionkit.scenes.march import evaluated_by
from lesionkit.scenes.surface import Elements, Tube, complete, inside

THREADS = 256  # of a block on a GPU

# what torch's operations are in C; booleans are floats of 0 and 1
IN_C = {
    "add": "{0} + {1}", "sub": "{0} - {1}", "rsub": "{1} - {0}", "mul": "{0} * {1}", "div": "{0} / {1}", "neg": "-{0}",
    "reciprocal": "1.0f / {0}", "abs": "fabsf({0})", "sqrt": "sqrtf({0})", "exp": "expf({0})", "sin": "sinf({0})",
    "cos": "cosf({0})", "atan2": "atan2f({0}, {1})", "clamp_min": "fmaxf({0}, {1})", "minimum": "fminf({0}, {1})",
    "maximum": "fmaxf({0}, {1})", "gt": "({0} > {1} ? 1.0f : 0.0f)", "lt": "({0} < {1} ? 1.0f : 0.0f)",
    "bitwise_and": "{0} * {1}", "where": "({0} != 0.0f ? {1} : {2})", "full_like": "{1}",
}  # fmt: skip

ON_GPU = """extern "C" __global__ void fused(
    const float* facts, const float* x_, const float* y_, const float* z_, float* out, int count, int n) {{
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const float* fact = facts + (long long)(i / n) * {m};
  const float x = x_[i], y = y_[i], z = z_[i];
  {body}
}}
"""

TUBE = [field.name for field in fields(Tube)]
ELEMENTS = [field.name for field in fields(Elements) if field.name not in ("raised", "sunk")]

Loop = Callable[[list], None]  # of facts b×m, x, y, z, out b×n, and the numbers b·n and n; writes `out`


class FusedError(RuntimeError):
    """A function that cannot be fused, or points that it cannot take; one sentence."""


def for_gpu(m: int, body: str) -> Loop:
    """The loop on a CUDA device, by the compiler that torch carries for kernels of its own (a private function)."""
    kernel = torch.cuda._compile_kernel(ON_GPU.format(m=m, body=body), "fused")

    def run(arguments: list) -> None:
        blocks = -(-arguments[-2] // THREADS)
        kernel(grid=(blocks, 1, 1), block=(THREADS, 1, 1), args=arguments)

    return run


class Fused:
    """`function(facts, x, y, z)` of a list of tensors with b rows and of points b×n, as one loop; call it likewise.

    facts: what the trace is made with; their number of scenes does not matter, their device does. compiler: from the
    number of facts and the loop's body in C to the loop. The facts of the last call are remembered, since a march asks
    for the same scenes again and again. Raises FusedError for an operation that is not in IN_C, and for points that are
    not float32 or of another number of scenes than the facts.
    """

    def __init__(
        self, function: Callable[..., Tensor], facts: Sequence[Tensor], compiler: Callable[[int, str], Loop] = for_gpu
    ):
        points = torch.ones(3, len(facts[0]), 2, device=facts[0].device)  # three tensors: one would be one input
        self._columns, m, body = _split(make_fx(function)(list(facts), *points.unbind()).graph)
        self._loop = compiler(m, body)
        self._last: tuple[tuple[Tensor, ...], Tensor] | None = None

    def __call__(
        self, facts: Sequence[Tensor], x: Float[Tensor, "b n"], y: Float[Tensor, "b n"], z: Float[Tensor, "b n"]
    ) -> Float[Tensor, "b n"]:
        table, out = self._table(tuple(facts)), torch.empty_like(x, memory_format=torch.contiguous_format)
        if any(p.dtype != torch.float32 or p.shape != x.shape for p in (x, y, z)) or len(table) != len(x):
            raise FusedError(f"points are three float32 tensors {len(table)}×n, one row for each scene of the facts")
        self._loop([table, *(p.contiguous() for p in (x, y, z)), out, out.numel(), out.shape[1]])
        return out

    def _table(self, facts: tuple[Tensor, ...]) -> Float[Tensor, "b m"]:
        if self._last is None or any(a is not b for a, b in zip(facts, self._last[0], strict=True)):
            self._last = facts, torch.cat([column.float() for column in self._columns(*facts)], dim=1)
        return self._last[1]


def _split(graph: fx.Graph) -> tuple[fx.GraphModule, int, str]:
    """What depends on no point, as a module that returns its columns b×1; how many; and all the rest in C."""
    *_facts, x, y, z = (node for node in graph.nodes if node.op == "placeholder")
    points, columns, body = {x: "x", y: "y", z: "z"}, {}, []

    def in_c(value: object) -> str:
        if not isinstance(value, fx.Node):
            return f"{float(value)!r}f"
        return points[value] if value in points else columns.setdefault(value, f"fact[{len(columns)}]")

    for node in graph.nodes:
        if node.op == "output":
            body.append(f"out[i] = {in_c(node.all_input_nodes[0])};")
        elif not points.keys().isdisjoint(node.all_input_nodes):
            written, name = _in_c(node, [in_c(value) for value in node.args]), f"v{len(points)}"
            points[node] = name
            body.append(f"const float {name} = {written};")
    facts, copies = fx.Graph(), {}
    for node in graph.nodes:
        if node.op != "output" and node not in points:
            copies[node] = facts.node_copy(node, copies.__getitem__)
    facts.output(tuple(copies[column] for column in columns))
    facts.eliminate_dead_code()
    return fx.GraphModule(torch.nn.Module(), facts), len(columns), "\n  ".join(body)


def _in_c(node: fx.Node, arguments: list[str]) -> str:
    name = str(node.target).split(".")[1]
    if name == "pow" and node.args[1] in (2, 4):
        square = f"{arguments[0]} * {arguments[0]}"
        return square if node.args[1] == 2 else f"({square}) * ({square})"
    if name not in IN_C or (node.kwargs and name != "full_like"):  # a keyword changes what is computed
        raise FusedError(f"{node.target} has no form in C: add it to fused.IN_C")
    return IN_C[name].format(*arguments)


class SceneKernel:
    """As `surface.inside`, by a kernel for each device and number of elements, made when it is first asked for."""

    def __init__(self, compiler: Callable[[int, str], Loop] = for_gpu):
        self._compiler, self._kernels = compiler, {}

    def __call__(self, tube: Tube, elements: Elements | None, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        facts = [getattr(tube, name) for name in TUBE]
        if elements is not None:
            facts += [getattr(elements, name) for name in ELEMENTS]
        key = (x.device, elements.radius.shape[1] if elements else 0)
        with torch.cuda.device_of(x):  # kernels start on the current device
            if key not in self._kernels:
                self._kernels[key] = Fused(_inside, facts, self._compiler)
            return self._kernels[key](facts, x, y, z)


def _inside(facts: list[Tensor], x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    tube, rest = Tube(*facts[: len(TUBE)]), facts[len(TUBE) :]
    elements = Elements(**dict(zip(ELEMENTS, rest, strict=True)), raised=(), sunk=()) if rest else None
    return inside(*complete(tube, elements), x, y, z)


def by_kernel() -> AbstractContextManager[None]:
    """Inside it scenes are rendered on a CUDA device by one kernel, the same up to rounding; on a CPU use
    `lesionkit.scenes.compiled`."""
    return evaluated_by(SceneKernel())
