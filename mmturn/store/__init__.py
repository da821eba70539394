"""Trajectories, scores and their images on disk, versioned and crash-proof."""

from __future__ import annotations

from mmturn.store.codec import decode, encode
from mmturn.store.jsonl import LineFormat, LineWriter, StoreWarning, read_header, read_lines
from mmturn.store.trajectories import (
    TrajectoryWriter,
    image_refs,
    images_folder,
    read_trajectories,
    trajectory_file,
    write_trajectories,
)

__all__ = [
    "LineFormat",
    "LineWriter",
    "StoreWarning",
    "TrajectoryWriter",
    "decode",
    "encode",
    "image_refs",
    "images_folder",
    "read_header",
    "read_lines",
    "read_trajectories",
    "trajectory_file",
    "write_trajectories",
]
