"""Rendered endoluminal scenes with exact depth, masks and lesion sizes: the kit's embedded data."""

from lesionkit.scenes.config import SceneConfig
from lesionkit.scenes.march import compiled
from lesionkit.scenes.render import Lesion, SceneError, Scenes, render_scenes, render_variants, stream_scenes
