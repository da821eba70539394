"""Trajectories on disk: a run folder holds ``trajectories.jsonl`` and, beside it, the images by hash in ``images/``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from mmturn.errors import DataError, LostImageError
from mmturn.store.codec import decode, encode
from mmturn.store.jsonl import LineFormat, LineWriter, Report, read_lines, warn_torn
from mmturn.types import ImageRef, Json, Trajectory

if TYPE_CHECKING:
    from mmturn.media.store import ImageStore

TRAJECTORIES = LineFormat(name="mmturn/trajectories", version=1, upgrades={})
"""Adding a field that has a default keeps the version; anything else raises it, with an upgrade and a golden file."""

FILE_NAME = "trajectories.jsonl"
IMAGES_NAME = "images"


def trajectory_file(path: Path) -> Path:
    """The file of trajectories that a run folder or file stands for. Raises DataError naming what was looked for."""
    file = path / FILE_NAME if path.is_dir() else path
    if not file.is_file():
        raise DataError(f"{path}: no trajectories here; expected a .jsonl file or a folder with {FILE_NAME}")
    return file


def images_folder(path: Path) -> Path:
    """The folder of images beside a run's trajectories; it need not exist."""
    return (path if path.is_dir() else path.parent) / IMAGES_NAME


def image_refs(trajectory: Trajectory) -> tuple[ImageRef, ...]:
    """The images that a trajectory shows, each once, in order."""
    refs: dict[ImageRef, None] = {}
    for turn in trajectory.turns:
        for view in (*turn.views, *(turn.context_views or ())):
            refs.update(dict.fromkeys(view.sources))
    return tuple(refs)


class TrajectoryWriter:
    """Appends trajectories to a run folder, whose file may exist already (a cut-off last line is repaired).

    ``images``: where the images are; those of a trajectory are written to the run folder before its line, so that a
    line names an image that is missing only where it was lost before: ``report`` is told, and the trajectory is kept
    without it. None: images are not kept.
    """

    def __init__(
        self,
        folder: Path,
        images: ImageStore | None = None,
        *,
        header: Mapping[str, Json] | None = None,
        report: Report = warn_torn,
    ) -> None:
        self.folder = folder
        self._images, self._report = images, report
        self._saved: set[ImageRef] = set()
        self._lines = LineWriter(folder / FILE_NAME, TRAJECTORIES, header, report)

    def write(self, trajectory: Trajectory, *, sync: bool = False) -> None:
        """Append one trajectory. Raises DataError that names the trajectory and the field that cannot be stored."""
        try:
            record = encode(trajectory, Trajectory)
        except DataError as error:
            raise DataError(f"trajectory {trajectory.id!r}: {error}") from None
        for ref in image_refs(trajectory) if self._images is not None else ():
            self._keep(ref, trajectory.id)
        self._lines.write(record, sync=sync)

    def _keep(self, ref: ImageRef, trajectory: str) -> None:
        if self._images is None or ref in self._saved:
            return
        try:
            self._images.save([ref], self.folder / IMAGES_NAME)
        except LostImageError as error:
            self._report(f"trajectory {trajectory!r} is stored without one of its images: {error}")
        else:
            self._saved.add(ref)

    @property
    def position(self) -> int:
        """Bytes of the file so far; a checkpoint keeps it for ``rewind``."""
        return self._lines.position

    def rewind(self, position: int) -> None:
        """Forget the trajectories written after ``position``."""
        self._lines.rewind(position)

    def close(self) -> None:
        """Sync and close."""
        self._lines.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def write_trajectories(folder: Path, trajectories: Iterable[Trajectory], images: ImageStore | None = None) -> Path:
    """Append trajectories to a run folder; the path of its file."""
    with TrajectoryWriter(folder, images) as writer:
        for trajectory in trajectories:
            writer.write(trajectory)
    return folder / FILE_NAME


def read_trajectories(path: Path, report: Report = warn_torn) -> Iterator[Trajectory]:
    """The trajectories of a run folder or file, streamed, older versions upgraded.

    A cut-off last line is left out and told to ``report``. Raises DataError naming file, line and field.
    """
    file = trajectory_file(path)
    for number, record in read_lines(file, TRAJECTORIES, report):
        try:
            yield decode(record, Trajectory)
        except DataError as error:
            raise DataError(f"{file}: line {number}: {error}") from None
