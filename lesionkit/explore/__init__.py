"""The explorer: put a finger on an image, change the depth that feeds the attention, and see what follows."""

from lesionkit.explore.checks import StateError
from lesionkit.explore.images import SampleImage, SceneImage
from lesionkit.explore.pictures import still
from lesionkit.explore.state import ExplorerState
from lesionkit.explore.widget import Explorer, ImageStack
