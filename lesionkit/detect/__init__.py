"""Detection over many inputs: files and videos in, pictures and one detections.json out."""

from lesionkit.detect.inputs import find_inputs
from lesionkit.detect.job import Job
from lesionkit.detect.outputs import KINDS
from lesionkit.detect.reading import Source
from lesionkit.detect.results import UsageError
