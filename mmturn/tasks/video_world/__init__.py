"""Brief events in videos of minutes: generated films in which half a second decides the answer (torch-free)."""

from mmturn.tasks.video_world.builder import generate
from mmturn.tasks.video_world.events import sample_film
from mmturn.tasks.video_world.film import Event, Film, Sign
from mmturn.tasks.video_world.words import LEVELS

__all__ = ["LEVELS", "Event", "Film", "Sign", "generate", "sample_film"]
