"""Detections as boxes with scores, in the form that evaluations of polyp detectors read.

    LESIONKIT_DATA=... python benchmarks/boxes.py DIR

Sequences put together from what is at hand: CVC-ClinicDB's test videos, each of one lesion, and the lesion-free
sequences of PolypGen that nothing was trained or chosen on. Written into DIR: ground_truth.json and predictions.json,
both COCO. Frames are called VIDEO_000012.jpg; a box's lesion stands under `unique_id`.

The package true-colon (`pip install true-colon`) reads both. Where it is installed some of its figures are printed, at
the threshold at which 4.5 % of the lesion-free frames raise an alarm. They only show that it can be done: the shipped
weights have learned from other frames of these videos, and the threshold is found on the frames that it is used on.
"""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
from jaxtyping import Float
from scipy import ndimage

from lesionkit import datasets, files, fusion
from lesionkit.datasets.splits import groups_of
from lesionkit.detector import Detector

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "recipes" / "reference"))

from splits import free_sequences, samples_of

LEVELS = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)  # a lesion need not be sure to be listed
ALARMS = 0.045  # of lesion-free frames, where detectors are compared
Box = tuple[int, int, int, int]  # x, y, width, height in pixels


def scored_boxes(probability: Float[np.ndarray, "h w"]) -> list[tuple[Box, float]]:
    """Boxes and their scores, the largest probability within: of the regions above each of LEVELS that hold none of a
    higher level."""
    found, taken = [], np.zeros(probability.shape, bool)
    for level in LEVELS:
        labels, count = ndimage.label(probability > level, np.ones((3, 3)))
        new = set(range(1, count + 1)) - set(labels[taken].tolist())
        for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
            if number in new:
                box = (columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
                found.append((box, float(probability[rows, columns].max())))
        taken |= np.isin(labels, list(new))
    return found


def frames() -> Iterator[tuple[str, int, np.ndarray, np.ndarray]]:
    """Video, number of the frame, image and mask."""
    videos = groups_of("cvc-clinicdb")
    for sample in samples_of("test", "sequence")["ClinicDB by sequence"]:
        yield (f"clinicdb{videos[sample.name]}", int(sample.name), *datasets.read_sample(sample))
    for name, paths in free_sequences("test").items():
        for number, path in enumerate(paths):
            image = datasets.read_image(path)
            yield name, number, image, np.zeros(image.shape[:2], bool)


def exported(detector: Detector) -> tuple[dict, list[dict]]:
    """Ground truth and predictions."""
    truth = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "lesion"}]}
    predictions = []
    for number, (video, frame, image, mask) in enumerate(frames(), start=1):
        name = f"{video}_{frame:06d}.jpg"
        truth["images"].append({"id": number, "file_name": name, "height": mask.shape[0], "width": mask.shape[1]})
        for lesion in fusion.find_lesions(mask, mask.astype(np.float32)):
            box = lesion.bbox_px
            known = {"image_id": number, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            truth["annotations"].append({"id": len(truth["annotations"]) + 1, "unique_id": f"{video}_1"} | known)
        for box, score in scored_boxes(detector(image).probability):
            predictions.append({"image_id": number, "category_id": 1, "bbox": box, "score": score})
    return truth, predictions


def evaluate(truth: dict, predictions: list[dict]) -> None:
    import true_colon

    how = {"dataset": "realcolon", "id_source": "gt_integer"}
    matched = true_colon.create_evaluator(**how).match_operating_point(truth, predictions, target_fpr=ALARMS)
    click.echo(
        f"threshold {matched.threshold}: {100 * matched.achieved_fpr:.1f} % of lesion-free frames raise an alarm"
    )
    found = true_colon.create_evaluator(**how, conf=matched.threshold).evaluate(truth, predictions)
    click.echo(f"average precision of boxes at an IoU of 0.5: {found.coco.ap50:.3f}")
    click.echo(f"frames with a lesion in which it is found: {found.frame.tpr:.3f}")
    click.echo(f"lesions ever found: {found.lesion.summary.detected_any} of {found.lesion.summary.n_lesions}")


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--weights", default="reference", show_default=True)
@click.option("--device", default="auto", show_default=True)
def main(folder: Path, weights: str, device: str) -> None:
    """Detect in the sequences and write both files; see the head of this file."""
    truth, predictions = map(files.plain, exported(Detector.from_pretrained(weights, device).fuse()))
    files.write_json(folder / "ground_truth.json", truth)
    files.write_json(folder / "predictions.json", predictions)
    if importlib.util.find_spec("true_colon"):
        evaluate(truth, predictions)


if __name__ == "__main__":
    main()
