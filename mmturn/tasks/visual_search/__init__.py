"""Visual search: generated scenes whose details can only be read after looking closer (torch-free)."""

from mmturn.tasks.visual_search.builder import generate
from mmturn.tasks.visual_search.scene import Marked, Scene, sample_scene

__all__ = ["Marked", "Scene", "generate", "sample_scene"]
