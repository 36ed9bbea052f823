"""How long the explorer takes from a person's event to the picture, in a real Chromium, and its first picture.

    python benchmarks/explorer.py                # measures; writes results/explorer.json
    python benchmarks/explorer.py --screenshots  # draws figures/explorer_*.png instead

Times are taken in the page: from the key's event to the end of the drawing that shows what follows. It drives the
servers and the page as tests/test_browser.py does, with the threads that torch takes by itself.
"""

import os
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import click
import report

from lesionkit.detector import Detector
from lesionkit.devices import resolve

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
import test_browser as driver  # noqa: E402 (the tests' folder is no package)

# what is pressed, on which slider, and whether the kernel has to answer before the picture is right
SLIDERS = {
    "opacity (browser only)": ("Opacity", False, 50),
    "threshold, mask (browser only)": ("Threshold", False, 50),
    "threshold, detection and numbers (kernel)": ("Threshold", True, 50),
    "relief of the depth (model)": ("Relief ×", True, 400),
    "brush at one place (model)": (None, True, 400),
    "lesion's size (renderer and whole model)": ("Size, mm", True, 400),
}
WATCH = """() => {
  const stack = document.querySelector('.lk-stack');
  window.seen = { event: 0, updates: [], draws: [] };
  for (const kind of ['keydown', 'pointerdown'])
    document.addEventListener(kind, () => {
      window.seen = { event: performance.now(), updates: [], draws: [] };
    }, true);
  new MutationObserver((changes) => { for (const { attributeName } of changes) {
    if (attributeName === 'data-updates') window.seen.updates.push(performance.now());
    if (attributeName === 'data-drawn') window.seen.draws.push(performance.now());
  } }).observe(stack, { attributes: true });
}"""
DONE = """kernel => { const { event, updates, draws } = window.seen;
  const after = kernel ? updates[0] : event;
  const drawn = after && draws.find((t) => t >= after);
  return drawn ? drawn - event : false; }"""


def one(screen: driver.Screen, slider: str | None, kernel: bool, turn: int) -> float:
    """Milliseconds from one event to its picture."""
    page = screen.page
    if slider is None:
        x, y = screen.at(0.2 + 0.05 * turn, 0.7)
        page.mouse.click(x, y)
    else:
        screen.slider(slider).press("ArrowRight")
    found = page.wait_for_function(DONE, arg=kernel).json_value()
    page.wait_for_timeout(700)  # whatever else the event set going has ended
    return float(found)


def measure(screen: driver.Screen, repeats: int) -> dict[str, dict[str, float]]:
    screen.page.evaluate(WATCH)
    results = {}
    for name, (slider, kernel, goal) in SLIDERS.items():
        screen.fresh()
        if slider is None:
            screen.root.get_by_role("button", name="push nearer").click()
        times = [one(screen, slider, kernel, turn) for turn in range(repeats + 1)][1:]  # the first warms up
        results[name] = report.spread(times) | {"goal": goal}
    return results


def first_picture(theatre: driver.Theatre) -> float:
    """Seconds from Run All in JupyterLab to the first picture, the kernel's imports included."""
    page, _ = theatre.open_lab()
    start = time.perf_counter()
    page.evaluate("() => void window.jupyterapp.commands.execute('notebook:run-all-cells')")
    page.wait_for_selector(".lk-stack[data-draws]")
    return time.perf_counter() - start


@click.command()
@click.option("--repeats", default=8, show_default=True)
@click.option("--screenshots", is_flag=True, help="Draw figures/explorer_*.png instead of measuring.")
def main(repeats: int, screenshots: bool) -> None:
    """Measure the explorer; see the head of this file."""
    facts = report.machine(resolve("auto"))
    os.environ["OMP_NUM_THREADS"] = str(facts["threads"])
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        raise click.ClickException("there is no Chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory() as name, ExitStack() as ending:
        shutil.copy(driver.NOTEBOOK, Path(name) / "explore.ipynb")
        theatre = driver.Theatre(Path(name), chromium, ending)
        if screenshots:
            stories(theatre)
            return
        start = first_picture(theatre)
        results = measure(theatre.voila, repeats)
    rows = [(name, f"{r['median']:.0f} ms", f"{r['max']:.0f} ms", f"{r['goal']} ms") for name, r in results.items()]
    report.table([("from event to picture", "median", "largest", "goal"), *rows,
                  ("first picture after Run All", f"{start:.1f} s", "", "10 s")])  # fmt: skip
    size_px = Detector.from_pretrained("reference").config.size_px
    settings = {"size_px": size_px, "repeats": repeats}
    report.write("explorer", facts, settings, {"milliseconds": results, "first_picture_s": start})


# --- pictures of the stories --------------------------------------------------------------------------


def stories(theatre: driver.Theatre) -> None:
    """Three views of rendered scenes, as they look on a page 1280 pixels wide."""
    screen = theatre.voila
    with screen.answered():
        screen.page.mouse.click(*screen.at(0.61, 0.27))
    with screen.answered():
        screen.page.get_by_label("Depth", exact=True).select_option("flattened")
    keep(screen, "explorer_flat")
    screen.fresh()
    screen.root.get_by_role("button", name="push nearer").click()
    screen.slider("Brush force").press("End")
    drag(screen, [(0.2, 0.62), (0.26, 0.72), (0.34, 0.76)])
    screen.root.get_by_role("button", name="point", exact=True).click()
    with screen.answered():
        screen.page.mouse.click(*screen.at(0.26, 0.72))
    screen.page.get_by_label("Over", exact=True).select_option("depth used")
    screen.page.get_by_label("Opacity").fill("0.45")
    keep(screen, "explorer_paint")
    dark = theatre.open_voila("--theme=dark")
    with dark.answered():
        dark.open("state.json", b'{"relief": 3.0, "point": [82, 208], "over": "attention_2", "opacity": 0.5, '
                                b'"image": {"kind": "scene", "seed": 9, "size_mm": 14.0}}')  # fmt: skip
    keep(dark, "explorer_dark")


def drag(screen: driver.Screen, places: list[tuple[float, float]]) -> None:
    with screen.answered():
        screen.page.mouse.move(*screen.at(*places[0]))
        screen.page.mouse.down()
        for place in places[1:]:
            screen.page.mouse.move(*screen.at(*place), steps=6)
        screen.page.mouse.up()
    screen.page.wait_for_timeout(1500)


def keep(screen: driver.Screen, name: str) -> None:
    screen.page.mouse.move(5, 5)
    screen.settle()
    path = ROOT / "figures" / f"{name}.png"
    screen.page.locator(".lesionkit-explorer").screenshot(path=path)
    click.echo(f"written: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
