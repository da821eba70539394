"""A page of trajectories."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path

from mmturn.media.store import ImageStore
from mmturn.store.trajectories import images_folder, read_trajectories, trajectory_file
from mmturn.types import Trajectory
from mmturn.viewer.content import Decode, Section, page_content
from mmturn.viewer.document import document, write_document
from mmturn.viewer.pictures import Pictures
from mmturn.viewer.report import Costs, RunReport, write_report


def write_page(
    path: Path,
    trajectories: Sequence[Trajectory] = (),
    store: ImageStore | None = None,
    *,
    title: str,
    note: str = "",
    sections: Sequence[Section] = (),
    decode: Decode | None = None,
    max_side_px: int = 384,
) -> Path:
    """Write a self-contained page of ``trajectories`` (siblings of a group side by side), then ``sections``.

    ``decode`` turns token ids into one text each; without it sampled tokens are shown as ids. Pictures are at most
    ``max_side_px`` on their longest side; without a store, or where an image is gone, its place says so. A trajectory
    tagged by ``labelled`` shows its tag. Raises DataError when ``decode`` loses tokens.
    """
    pictures = Pictures(store, max_side_px)
    parts = [*([Section("", trajectories)] if trajectories else []), *sections]
    data = {"title": title, "note": note, **page_content(parts, pictures, decode)}
    return write_document(path, document(title, data, pictures.encoded))


def view(
    path: Path,
    out: Path | None = None,
    *,
    limit: int = 400,
    decode: Decode | None = None,
    costs: Costs | None = None,
) -> Path:
    """Write the page of a run folder or trajectories file; its path (``view.html`` beside the file by default).

    ``costs``: of the run, shown above its trajectories.

    Of more than ``limit`` trajectories the last ones are shown, and the page says so. Raises DataError.
    """
    file = trajectory_file(path)
    kept: deque[Trajectory] = deque(maxlen=limit)
    count = 0
    for trajectory in read_trajectories(file):
        kept.append(trajectory)
        count += 1
    store = ImageStore()
    store.add_folder(images_folder(file))
    note = f"{count} trajectories" if count <= limit else f"The last {limit} of {count} trajectories"
    target = out if out is not None else file.with_name("view.html")
    title = file.resolve().parent.name
    if costs is None:
        return write_page(target, list(kept), store, title=title, note=note, decode=decode)
    report = RunReport(title, note, costs=costs, sections=[Section("", list(kept))] if kept else [])
    return write_report(target, report, store, decode=decode)
