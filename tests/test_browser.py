"""The explorer in a real Chromium, served by Voila and by JupyterLab: what a person does, and what is then to be seen.

Each server runs once for the whole file, on a free port of this machine. Between tests the explorer is put back by
loading an empty saved state, which is faster than a new kernel and is a feature of its own.
"""

import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import pytest

from lesionkit.detector import Detector
from lesionkit.explore.pictures import panels
from lesionkit.explore.state import ExplorerState

pytestmark = pytest.mark.browser

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
WAIT_MS = 60_000  # a loaded machine; nothing here takes as long on a quiet one
NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "explore.ipynb"


# --- servers and pages --------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def serving(arguments: list[str], folder: Path, port: int) -> Iterator[str]:
    """A server in a process group of its own, with settings of its own, ended by its group's number."""
    places = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_RUNTIME_DIR": "runtime", "LESIONKIT_RUNS": "runs"}
    environment = os.environ | {name: str(folder / place) for name, place in places.items()}
    environment.setdefault("OMP_NUM_THREADS", "1")  # on a busy machine two threads wait for each other
    environment["JUPYTERLAB_SETTINGS_DIR"] = environment["JUPYTERLAB_WORKSPACES_DIR"] = str(folder / "lab")
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen([sys.executable, "-m", *arguments], cwd=folder, env=environment, stdout=log,
                                  stderr=subprocess.STDOUT, start_new_session=True)  # fmt: skip
        try:
            wait_for_port(port, server, folder / "server.log")
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)


def wait_for_port(port: int, server: subprocess.Popen, log: Path) -> None:
    for _ in range(600):
        if server.poll() is not None:
            pytest.fail(f"the server ended at once: {log.read_text()[-800:]}")
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    pytest.fail(f"the server did not start: {log.read_text()[-800:]}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a copy of the notebook up to the explorer: what a person saves must not land in the checkout, and
    the stories below it are nbval's."""
    folder = tmp_path_factory.mktemp("browser")
    notebook = json.loads(NOTEBOOK.read_text())
    last = next(i for i, cell in enumerate(notebook["cells"]) if "explore.Explorer(" in "".join(cell["source"]))
    notebook["cells"] = notebook["cells"][: last + 1]
    (folder / "explore.ipynb").write_text(json.dumps(notebook))
    return folder


class Theatre:
    """The browser and the two servers, each started when the first test asks for it."""

    def __init__(self, folder: Path, chromium: str, ending: ExitStack):
        from playwright.sync_api import sync_playwright

        self.folder, self.ending, self.chromium = folder, ending, chromium
        self.playwright = ending.enter_context(sync_playwright())

    def page(self, command: list[str], port: int, path: str = "/"):
        address = self.ending.enter_context(serving(command, self.folder, port))
        # a browser each: Chromium draws no frames for a window that another one covers
        browser = self.playwright.chromium.launch(executable_path=self.chromium, args=FLAGS)
        self.ending.callback(browser.close)
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(WAIT_MS)
        # Voila's own page asks a CDN for icons; whether that fails at once or hangs must not matter here
        page.route(re.compile(r"^https?://(?!127\.0\.0\.1)"), lambda route: route.abort())
        page.goto(f"{address}{path}", timeout=2 * WAIT_MS, wait_until="commit")
        return page, address

    @cached_property
    def voila(self) -> "Screen":
        return self.open_voila()

    def open_voila(self, *options: str) -> "Screen":
        return opened(*self.open_page(*options))

    def open_page(self, *options: str, path: str = "/") -> tuple:
        """Voila's page and address, whether or not the explorer appears on it."""
        port = free_port()
        command = ["voila", "explore.ipynb", "--no-browser", f"--port={port}", "--Voila.ip=127.0.0.1", *options]
        return self.page(command, port, path)

    @cached_property
    def lab(self) -> "Screen":
        page, address = self.open_lab()
        run_all(page)
        return opened(page, address)

    def open_lab(self) -> tuple:
        """JupyterLab with the notebook open and its kernel started; nothing is run yet."""
        port = free_port()
        quiet = self.folder / "lab" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
        quiet.parent.mkdir(parents=True, exist_ok=True)
        # its question about news would lie over the explorer
        quiet.write_text('{"fetchNews": "false", "checkForUpdates": false}')
        options = [
            "token=", "password=", "disable_check_xsrf=True", "ip=127.0.0.1", f"port={port}", f"root_dir={self.folder}",
        ]  # fmt: skip
        command = ["jupyterlab", "--allow-root", "--no-browser", "--LabApp.expose_app_in_browser=True"]
        command += [f"--ServerApp.{option}" for option in options]
        page, address = self.page(command, port, "/lab/tree/explore.ipynb")
        page.wait_for_function(KERNEL_IDLE, timeout=2 * WAIT_MS)
        return page, address


KERNEL_IDLE = "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"


def run_all(page) -> None:
    """Run All in JupyterLab, without waiting for its end."""
    page.evaluate("() => void window.jupyterapp.commands.execute('notebook:run-all-cells')")


@pytest.fixture(scope="module")
def ending() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def theatre(chromium, absent, folder, ending) -> Theatre:
    if importlib.util.find_spec("voila") is None:
        absent("voila is not installed: pip install -e .[app]")
    if not hasattr(ending, "theatre"):  # once for the file; but whether it may be skipped is asked for every test
        ending.theatre = Theatre(folder, chromium, ending)
    return ending.theatre


def opened(page, address: str) -> "Screen":
    page.wait_for_selector(".lk-stack[data-draws]")
    return Screen(page, address)


class Screen:
    """What a test does to the page and reads off it."""

    def __init__(self, page, address: str):
        self.address = address
        self.page, self.root, self.stage = page, page.locator(".lk-stack"), page.locator(".lk-stage")

    def count(self, name: str) -> int:
        return int(self.root.get_attribute(f"data-{name}") or 0)

    @contextmanager
    def answered(self) -> Iterator[None]:
        """Wait until what is done inside has been answered by the kernel and drawn."""
        before = self.count("updates")
        yield
        self.page.wait_for_function(
            "n => { const s = document.querySelector('.lk-stack');"
            "return Number(s.dataset.updates) > n && s.getAttribute('aria-busy') !== 'true'; }",
            arg=before,
        )
        self.settle()

    def settle(self) -> None:
        """Two frames: what was to be drawn has been drawn."""
        self.page.evaluate("() => new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")

    def pixel(self, x: float, y: float, panel: str | None = None) -> np.ndarray:
        """Colour at a place of the image (shares of width and height) on a panel, or on the stage."""
        canvas = f"[data-panel={panel}] canvas" if panel else ".lk-stage"
        return np.array(self.page.evaluate(
            "([s, x, y]) => { const c = document.querySelector(s);"
            "return [...c.getContext('2d').getImageData(x * c.width, y * c.height, 1, 1).data].slice(0, 3); }",
            [canvas, x, y]))  # fmt: skip

    def number(self, name: str, column: int = 0) -> str:
        return self.page.locator(f"[data-number={name}] td").nth(column).inner_text()

    def at(self, x: float, y: float) -> tuple[float, float]:
        """A place of the image on the stage, as a place on the page."""
        self.stage.scroll_into_view_if_needed()
        box = self.stage.bounding_box()
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    def press(self, button: str) -> None:
        self.root.get_by_role("button", name=button, exact=True).click()

    def drag(self, start: tuple[float, float], end: tuple[float, float], steps: int) -> None:
        self.page.mouse.move(*self.at(*start))
        self.page.mouse.down()
        self.page.mouse.move(*self.at(*end), steps=steps)
        self.page.mouse.up()

    def blend(self, opacity: str) -> None:
        self.page.get_by_label("Opacity").fill(opacity)
        self.settle()

    def slider(self, name: str):
        return self.page.get_by_role("slider", name=name)

    def open(self, name: str, data: bytes) -> None:
        self.root.locator("input[type=file]").set_input_files({"name": name, "mimeType": "", "buffer": data})

    def saved(self) -> dict:
        with self.page.expect_download() as download:
            self.press("Save the state as JSON")
        return json.loads(Path(download.value.path()).read_text())

    def told(self, name: str) -> None:
        """Wait until the kernel knows of it: how a view is zoomed is told to it a quarter of a second later."""
        self.page.wait_for_function("n => document.querySelector('.lk-stack').dataset.json.includes(n)", arg=name)

    def error(self) -> str:
        self.page.wait_for_selector(".lk-error:not(.lk-silence):visible")
        return self.root.locator(".lk-error:not(.lk-silence)").inner_text()

    def fresh(self) -> "Screen":
        self.page.wait_for_timeout(500)  # the last test's zoom and opacity are told to the kernel a moment later
        with self.answered():
            self.open("empty.json", b"{}")
        self.page.wait_for_function("() => document.querySelector('.lk-stack').dataset.json === '{}'")
        self.press("point")
        return self


@pytest.fixture
def screen(theatre, request) -> Screen:
    return getattr(theatre, getattr(request, "param", "voila")).fresh()


@pytest.fixture
def lab(theatre) -> Screen:
    return theatre.lab.fresh()


both = pytest.mark.parametrize("screen", ["voila", "lab"], indirect=True)


@pytest.fixture(scope="module")
def reference() -> Detector:
    return Detector.from_pretrained("reference", device="auto")


@pytest.fixture
def state(reference) -> ExplorerState:
    """The same explorer in this process: what the page must show."""
    return ExplorerState(reference)


# --- what a person does, in Voila and in JupyterLab --------------------------------------------------


def test_the_panels_show_what_the_state_says(screen, state):
    row, column = np.unravel_index(state.probability().argmax(), (256, 256))
    drawn, places = panels(state), [(0.3, 0.3), (0.5, 0.62), (0.7, 0.4), (column / 256, row / 256)]
    assert drawn["mask"][row, column].all()  # one place on the lesion
    for name in ("image", "depth_target", "probability", "mask", "detection"):
        expected = [drawn[name][int(y * 256), int(x * 256)].astype(int) for x, y in places]
        seen = [screen.pixel(x, y, name) for x, y in places]
        assert np.abs(np.array(seen) - expected).mean() < 14, name  # JPEG, and a panel of half the size
    numbers = state.numbers()
    assert screen.number("mask_area") == f"{100 * numbers['mask_area']['now']:.1f} %"
    assert screen.number("sensitivity") == f"{100 * numbers['sensitivity']['now']:.1f} %"


@both
def test_dragging_ends_at_the_last_position_without_a_queue(screen, state):
    handle = screen.slider("Relief ×")
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    screen.page.mouse.move(x, y)
    screen.page.mouse.down()
    for step in range(60):  # faster than the model can follow
        screen.page.mouse.move(x + step % 30, y)
    screen.page.mouse.move(x + 20, y)
    runs = screen.count("runs")
    screen.page.mouse.up()
    wanted = float(handle.get_attribute("aria-valuenow"))
    assert wanted > 1.5
    screen.page.wait_for_function(
        "v => JSON.parse(document.querySelector('.lk-stack').dataset.json || '{}').relief === v", arg=wanted
    )
    screen.settle()
    assert screen.count("runs") - runs <= 5  # of sixty: what was drawn late, the one under way, and the last
    state.set_guidance(relief=wanted)
    assert screen.number("probability_area") == f"{100 * state.numbers()['probability_area']['now']:.1f} %"


def test_opacity_blends_two_panels_in_the_browser(screen):
    screen.page.get_by_label("Over", exact=True).select_option("mask")
    low, high = screen.pixel(0.3, 0.3, "image"), screen.pixel(0.3, 0.3, "mask")
    assert np.abs(screen.pixel(0.3, 0.3) - low).max() < 25
    screen.blend("0.5")
    assert np.abs(screen.pixel(0.3, 0.3) - (low + high) / 2).max() < 15
    screen.blend("1")
    assert np.abs(screen.pixel(0.3, 0.3) - high).max() < 3


@both
def test_a_click_measures_there(screen, state):
    with screen.answered():
        screen.page.mouse.click(*screen.at(0.6, 0.25))
    x, y = screen.saved()["point"]
    assert (x / 256, y / 256) == pytest.approx((0.6, 0.25), abs=0.01)
    state.click(x, y)
    attention = state.profile_at_click()["attention"]
    label = screen.page.get_by_role("img", name=re.compile("^Attention at the point")).get_attribute("aria-label")
    assert [float(v) for v in re.findall(r"1/\d+ ([\d.]+)", label)] == pytest.approx(attention, abs=0.006)
    assert "exact" in screen.page.get_by_role("img", name=re.compile("^Depth along the line")).get_attribute(
        "aria-label"
    )


def test_the_keyboard_measures_zooms_and_sees_before(screen):
    screen.stage.focus()
    for _ in range(5):
        screen.page.keyboard.press("ArrowRight")
    with screen.answered():
        screen.page.keyboard.press("Enter")
    assert screen.saved()["point"] == pytest.approx([128 + 5 * 256 / 50, 128], abs=1)
    screen.stage.focus()
    row = [screen.pixel(x, 0.3, "image") for x in (0.1, 0.3, 0.5, 0.7, 0.9)]
    screen.page.keyboard.press("+")
    screen.page.keyboard.press("+")
    screen.settle()
    zoomed = [screen.pixel(x, 0.3, "image") for x in (0.1, 0.3, 0.5, 0.7, 0.9)]
    assert np.abs(np.array(zoomed) - row).max() > 10  # every panel zooms with the stage
    screen.told("zoom")
    assert screen.saved()["zoom"][0] == pytest.approx(1.96)
    screen.page.keyboard.press("0")


@both
def test_painting_bends_the_depth_there_and_before_shows_it_straight(screen):
    before, elsewhere = screen.pixel(0.25, 0.5, "depth_used"), screen.pixel(0.75, 0.8, "depth_used")
    screen.press("push nearer")
    with screen.answered():
        screen.drag((0.2, 0.5), (0.3, 0.5), steps=6)
    screen.page.wait_for_function(  # until its last point has been painted
        "() => (JSON.parse(document.querySelector('.lk-stack').dataset.json).strokes ?? [])"
        ".some((stroke) => stroke.points.at(-1)[0] > 76)"
    )
    screen.settle()
    assert len(screen.saved()["strokes"]) == 1
    painted = screen.pixel(0.25, 0.5, "depth_used")
    assert np.abs(painted - before).max() > 15
    assert np.abs(screen.pixel(0.75, 0.8, "depth_used") - elsewhere).max() <= 1
    screen.stage.focus()
    screen.page.keyboard.down("b")
    screen.settle()
    assert np.abs(screen.pixel(0.25, 0.5, "depth_used") - before).max() <= 1
    screen.page.keyboard.up("b")
    screen.settle()
    assert (screen.pixel(0.25, 0.5, "depth_used") == painted).all()
    with screen.answered():
        screen.press("Undo")
    assert np.abs(screen.pixel(0.25, 0.5, "depth_used") - before).max() <= 1


def test_the_threshold_moves_the_mask_and_the_numbers(screen, state):
    probability = state.probability()
    row, column = np.unravel_index(probability.argmax(), probability.shape)  # marked at every threshold but the last
    seen = {}
    for key in ("Home", "End"):
        with screen.answered():
            screen.slider("Threshold").press(key)
        place = (column / probability.shape[1], row / probability.shape[0])
        figures = [float(screen.number(name).split()[0]) for name in ("mask_area", "sensitivity")]
        seen[key] = (*figures, screen.pixel(*place, "mask").tolist())
    assert seen["End"] == (0.0, 0.0, [0] * 3)
    area, sensitivity, pixel = seen["Home"]
    state.set_threshold(0.01)
    expected = [round(100 * state.numbers()[name]["now"], 1) for name in ("mask_area", "sensitivity")]
    assert [area, sensitivity] == pytest.approx(expected, abs=0.11)
    assert sensitivity > 50
    assert pixel == [255] * 3


@both
def test_an_upload_is_shown_and_what_is_no_image_is_told(screen):
    red = np.zeros((90, 160, 3), np.uint8)
    red[..., 2] = 200
    red[:, :80] = 120  # BGR: the left half grey, the right half red
    with screen.answered():
        screen.open("mine.png", cv2.imencode(".png", red)[1].tobytes())
    assert "mine.png" in screen.root.locator(".lk-status").inner_text()
    assert np.abs(screen.pixel(0.75, 0.5) - [200, 0, 0]).max() < 8
    assert np.abs(screen.pixel(0.25, 0.5) - 120).max() < 8
    assert screen.number("sensitivity") == "—"
    screen.open("notes.png", b"this is text")
    assert "is not an image" in screen.error()
    with screen.answered():  # the rest keeps working
        screen.page.mouse.click(*screen.at(0.5, 0.5))
    assert screen.saved()["image"]["name"] == "mine.png"
    assert not screen.root.locator(".lk-error:not(.lk-silence)").is_visible()


def test_a_grey_and_a_huge_upload_come_with_a_sentence(screen):
    noise = np.random.default_rng(0).integers(0, 256, (2900, 2900), dtype=np.uint8)
    huge = cv2.imencode(".png", noise, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
    assert len(huge) > 8e6  # the browser reduces it before it is sent
    with screen.answered():
        screen.open("huge.png", huge)
    note = screen.root.locator(".lk-note").inner_text()
    assert "Reduced from 2048×2048" in note
    screen.open("huge.png", b"x" * 9_000_000)
    assert "9 MB" in screen.error()


def test_two_strokes_in_a_hurry_are_both_kept(screen):
    screen.press("push nearer")
    for y in (0.3, 0.5, 0.7):  # faster than the model answers
        screen.drag((0.2, y), (0.3, y), steps=5)
    screen.page.wait_for_function(
        "() => { const { strokes } = JSON.parse(document.querySelector('.lk-stack').dataset.json);"
        "return strokes?.length === 3 && strokes.every((one) => one.points.at(-1)[0] > 76); }"
    )


def test_the_state_is_saved_as_it_is_seen(screen):
    screen.page.get_by_label("Over", exact=True).select_option("mask")
    screen.page.get_by_label("Opacity").fill("0.5")
    screen.stage.focus()
    screen.page.keyboard.press("+")
    saved = screen.saved()  # at once: the kernel need not know yet
    assert (saved["over"], saved["opacity"], saved["zoom"][0]) == ("mask", 0.5, 1.4)
    screen.told("zoom")  # or it would be told during the next test


def test_a_saved_state_brings_the_view_back(screen):
    with screen.answered():
        screen.page.get_by_label("Depth", exact=True).select_option("flattened")
    flat, number = screen.pixel(0.6, 0.3, "depth_used"), screen.number("probability_area")
    saved = screen.saved()
    assert saved == {"guidance": "flat"}
    with screen.answered():
        screen.press("Undo")
    with screen.answered():
        screen.open("view.json", json.dumps(saved).encode())
    assert (screen.pixel(0.6, 0.3, "depth_used") == flat).all()
    assert screen.number("probability_area") == number
    with screen.page.expect_download() as download:
        screen.press("Save the view as a picture")
    assert cv2.imread(str(download.value.path())).shape[1] > 900


@both
def test_everything_has_a_name_and_fits_into_1280_pixels(screen):
    nameless = screen.page.evaluate(
        "() => [...document.querySelector('.lesionkit-explorer')"
        ".querySelectorAll('button, select, input, textarea, [role=slider]')]"
        ".filter(n => n.offsetParent && !n.getAttribute('aria-label') && !n.textContent.trim() && !n.labels?.length)"
        ".map(n => n.outerHTML.slice(0, 120))"
    )
    assert nameless == []
    for name in ("Size, mm", "Height ×", "Colour", "Light", "View, °", "Relief ×", "Threshold", "Line, °"):
        assert screen.slider(name).count() == 1, name
    cut = screen.page.evaluate(
        "() => { const all = [...document.querySelectorAll('.lesionkit-explorer *')].filter(n => n.offsetParent);"
        "const edge = document.querySelector('.lesionkit-explorer').parentElement.getBoundingClientRect().right;"
        "return all.filter(n => !n.closest('svg') && n.getBoundingClientRect().right > edge + 1)"
        ".map(n => n.outerHTML.slice(0, 90)); }"
    )
    assert cut == []


def test_the_value_under_the_pointer_is_the_depth_there(screen, state):
    depth = state.shown.depths.target[0, 0].numpy()
    screen.page.mouse.move(*screen.at(0.3, 0.4))
    screen.settle()
    read = screen.page.locator("[data-panel=depth_target] .lk-value").inner_text()
    height, width = depth.shape
    seen, expected = float(re.search(r"[\d.]+", read)[0]), depth[int(0.4 * height), int(0.3 * width)]
    assert seen == pytest.approx(expected, rel=0.05)


def test_dragging_moves_every_panel_together(screen):
    screen.stage.focus()
    for _ in range(3):
        screen.page.keyboard.press("+")
    screen.settle()
    before = screen.pixel(0.6, 0.5, "depth_target")
    screen.drag((0.6, 0.5), (0.3, 0.5), steps=4)
    screen.settle()
    assert np.abs(screen.pixel(0.3, 0.5, "depth_target") - before).max() < 14
    screen.told("zoom")
    assert screen.saved()["zoom"][1] > 0.55


# --- behind a path prefix, with a policy ---------------------------------------------------------------

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'{}; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self' ws:"
)


def behind(theatre: Theatre, blob: str) -> tuple:
    """The page of Voila below a path prefix, with a Content-Security-Policy that allows what its own pages need."""
    settings = {"headers": {"Content-Security-Policy": POLICY.format(blob)}}
    prefix = "/a/prefix/"
    return theatre.open_page(f"--base_url={prefix}", f"--Voila.tornado_settings={settings!r}", path=prefix)


def test_behind_a_prefix_and_a_strict_policy_everything_comes_from_the_package(theatre):
    screen = opened(*behind(theatre, " blob:"))
    assert screen.page.get_by_text("The pictures are being loaded").is_hidden()
    with screen.answered():
        screen.page.mouse.click(*screen.at(0.5, 0.5))
    assert screen.saved()["point"] == pytest.approx([128, 128], abs=1)


def test_a_policy_without_blob_is_told_in_words(theatre):
    page, _ = behind(theatre, "")
    refused = page.get_by_text("must allow blob: in script-src of its Content-Security-Policy")
    refused.wait_for()
    page.get_by_text("Click to show javascript error").wait_for()  # what the widgets' own manager says of it
    assert refused.is_visible()
    assert page.locator(".lk-stack").count() == 0


# --- JupyterLab alone ---------------------------------------------------------------------------------


def test_jupyterlab_gets_none_of_the_explorers_keys(lab):
    cells = "() => window.jupyterapp.shell.currentWidget.content.widgets.length"
    number = lab.page.evaluate(cells)
    lab.page.evaluate(
        "() => { window.statuses = []; window.jupyterapp.shell.currentWidget.sessionContext.session.kernel"
        ".statusChanged.connect((_, status) => window.statuses.push(status)); }"
    )
    lab.stage.focus()
    for key in ("b", "a", "x", "0", "0", "d", "d", "z"):
        lab.page.keyboard.press(key)
    lab.settle()
    lab.page.wait_for_timeout(300)
    assert lab.page.evaluate(cells) == number
    assert not {"restarting", "autorestarting"} & set(lab.page.evaluate("() => window.statuses"))
    assert lab.page.locator(".jp-Dialog").count() == 0  # "Restart the kernel?" is what 0, 0 would ask


def test_a_kernel_that_dies_is_told_and_the_rest_keeps_working(lab):
    low, high = lab.pixel(0.3, 0.3, "image"), lab.pixel(0.3, 0.3, "mask")
    lab.page.evaluate(
        "() => void window.jupyterapp.shell.currentWidget.sessionContext.session.kernel"
        ".requestExecute({ code: 'import os; os._exit(1)' })"
    )
    lab.page.wait_for_selector(".lk-silence:visible")
    assert "it has stopped" in lab.root.locator(".lk-silence").inner_text()
    lab.page.locator(".jp-Dialog button").click()  # JupyterLab's own word on it
    lab.page.get_by_label("Over", exact=True).select_option("mask")
    lab.blend("0.5")
    assert np.abs(lab.pixel(0.3, 0.3) - (low + high) / 2).max() < 15
    run_all(lab.page)  # the new kernel brings a new explorer into the same place
    lab.page.wait_for_selector(".lk-silence", state="hidden")
    lab.page.wait_for_selector(".lk-stack[data-draws]")
    lab.fresh()
    with lab.answered():
        lab.page.mouse.click(*lab.at(0.5, 0.5))
    assert lab.saved()["point"] == pytest.approx([128, 128], abs=1)
