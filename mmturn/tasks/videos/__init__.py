"""Video benchmarks as they are handed out: a folder with questions and videos -> tasks."""

from __future__ import annotations

from mmturn.tasks.videos.benchmarks import VIDEO_BENCHMARKS, read_video_benchmark

__all__ = ["VIDEO_BENCHMARKS", "read_video_benchmark"]
