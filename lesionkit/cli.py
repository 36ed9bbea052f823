"""The command line. Exit 0 on success, 2 on wrong usage, 1 when some input failed. A wrong value is one line."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

SAVED = "mask, overlay, probability, depth, attention, csv, coco, video"  # `detect.KINDS`, without the import

# The modules are imported inside the commands: torch and kornia take seconds, `lesionkit --help` should not.


@contextmanager
def _exit_with(code: int, *kinds: type[Exception]) -> Iterator[None]:
    """Turn errors of these kinds into one line and the exit code."""
    try:
        yield
    except kinds as error:
        told = click.ClickException(" ".join(str(error).split()))
        told.exit_code = code
        raise told from None


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lesionkit", prog_name="lesionkit")
def main() -> None:
    """Depth-guided lesion segmentation in endoscopy images."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that a code page lacks must not end a call
            stream.reconfigure(errors="backslashreplace")


@main.command()
@click.option("--profile", default="quick", show_default=True, help="smoke (tests), quick or full (GPU).")
@click.option("--dataset", default="scenes", show_default=True, help="scenes, a registry name or folder:PATH.")
@click.option("--seed", type=int, default=0, show_default=True, help="The one seed of the run.")
@click.option("--out", type=click.Path(), help="Folder of the run.  [default: runs/PROFILE-DATASET-seedN]")
@click.option("--only", default=None, help="Some notebooks, by number or name: 02,03.")
@click.option("--resume", is_flag=True, help="Skip what finished with the same inputs; go on with a training.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--update-notebooks", is_flag=True, help="Write the executed notebooks back, cleaned.")
def run(**options: Any) -> None:
    """Run the notebooks in order through papermill."""
    from lesionkit.runs import ParameterError, chain, planning

    with _exit_with(2, ParameterError), _exit_with(1, OSError):
        folder = chain.execute(planning.plan_run(**options))
    click.echo(f"records, figures and executed notebooks: {folder}")


@main.command()
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
@click.option("--out", required=True, type=click.Path(), help="Folder for masks, overlays, detections.json.")
@click.option("--weights", default="reference", show_default=True, help="`reference` or a .safetensors file.")
@click.option("--threshold", type=float, help="Probability that makes a pixel lesion.  [default: the weights' own]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--every", type=click.IntRange(1), default=25, show_default=True, help="Of videos, every N-th frame.")
@click.option("--resume", is_flag=True, help="Add to the results in the folder, and skip the inputs that are finished.")
@click.option("--save", default="mask,overlay", show_default=True, help=f"What is written: some of {SAVED}.")
@click.option("--smooth", is_flag=True, help="Of videos, average what is found over the frames.")
@click.option("--min-frames", type=click.IntRange(1), default=1, help="Of videos, mark what N frames have shown.")
@click.option(
    "--view", type=click.Choice(["auto", "whole"]), default="auto", show_default=True,
    help="auto finds the view in each frame; whole: where it is wrong.",
)  # fmt: skip
def detect(
    inputs: tuple[str, ...], out: str, weights: str, threshold: float | None, device: str, every: int, resume: bool,
    save: str, smooth: bool, min_frames: int, view: str,
) -> None:  # fmt: skip
    """Find lesions in images, folders (recursively), patterns and videos.

    Writes STEM_mask.png and STEM_overlay.jpg per image, STEM_NNNNNN_mask.png and so on per frame of a video
    or of an image file of several (NNNNNN counts frames from 0), and detections.json. Of two inputs with one
    stem the second is called STEM_FOLDER. The same inputs again replace their results; a folder with results
    of others is refused without --resume.
    """
    from lesionkit import devices
    from lesionkit.detect import KINDS, Job, UsageError, film, find_inputs
    from lesionkit.detector import Detector, WeightsError

    folder, tell = Path(out), lambda text: click.echo(text, err=True)
    with _exit_with(2, UsageError, devices.DeviceError, WeightsError, OSError):
        if threshold is not None and not 0 < threshold < 1:  # also refuses nan
            raise UsageError(f"--threshold is {threshold}, but must lie between 0 and 1, both excluded")
        kinds = list(dict.fromkeys(save.split(",")))
        if unknown := [kind for kind in kinds if kind not in KINDS]:
            raise UsageError(f"--save has no kind {unknown[0]!r}: use some of {', '.join(KINDS)}")
        if "video" in kinds:
            film.library()
        found = find_inputs(inputs, folder, resume, tell)
        detector = Detector.from_pretrained(weights, device=device).fuse()
        detector.threshold, detector.view = threshold or detector.threshold, view
    for source in found:
        if source.path and source.stem != source.path.stem:
            tell(f"{source.input} is written as {source.stem}, its own name is taken")
    job = Job(detector, folder, tell, resume, kinds, smooth, min_frames)
    _stop_at_signals()
    try:
        with _exit_with(2, UsageError), _exit_with(1, OSError):
            job.run(found, every)
    except KeyboardInterrupt:
        tell(f"interrupted; {len(job.entries)} finished entries: {folder / 'detections.json'}")
        raise SystemExit(130) from None
    _sum_up(job.entries, job.kept, folder)


def _stop_at_signals() -> None:
    """How batch systems and terminals end a process interrupts it as Ctrl-C does; what is ignored (nohup) stays so."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


def _sum_up(entries: list[dict[str, Any]], kept: int, folder: Path) -> None:
    """One line for each failed input on stderr, one line on what was done; exit 1 when something failed."""
    failed = [entry for entry in entries if "error" in entry]
    for entry in failed:
        click.echo(f"Error: {entry['input']}: {entry['error']}", err=True)
    lesions = sum(len(entry.get("lesions", ())) for entry in entries)
    done = len(entries) - len(failed)
    before = f", {kept} finished before" if kept else ""
    click.echo(f"{done} images, {lesions} lesions, {len(failed)} failed{before}: {folder / 'detections.json'}")
    if failed:
        raise SystemExit(1)


@main.command("datasets")
def list_datasets() -> None:
    """List the registry: name, images, what comes with them, whether the files are here, terms of use."""
    from lesionkit import datasets

    with _exit_with(1, datasets.DatasetError), _exit_with(2, datasets.UnknownDataset):
        rows = datasets.status()
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        where = row["where"] if row["present"] else "not here"
        click.echo(f"{row['name']:<{width}}  {row['images']:>5} images, {row['kind']}  {where}  ({row['terms']})")


@main.command()
@click.argument("name")
@click.option("--url", help="A zip or tar archive to use instead: http(s)://, file:// or a path.")
def fetch(name: str, url: str | None) -> None:
    """Download a data set from its authors' address, or say where to get it, and verify it."""
    from lesionkit import datasets

    with _exit_with(1, datasets.DatasetError, OSError), _exit_with(2, datasets.UnknownDataset):
        click.echo(f"{name} is in {datasets.fetch(name, url=url)}")


@main.command()
@click.argument("name")
def verify(name: str) -> None:
    """Check names, pairs, sizes, mask values and checksums, or the encoding of depth, of a data set."""
    from lesionkit import datasets

    with _exit_with(1, datasets.DatasetError, OSError), _exit_with(2, datasets.UnknownDataset):
        report = datasets.verify(name)
    for note in report.notes:
        click.echo(f"note: {note}")
    for problem in report.problems:
        click.echo(f"Error: {problem}", err=True)
    if not report.ok:
        raise SystemExit(1)
    click.echo(f"{name}: {report.images} images, sound")
