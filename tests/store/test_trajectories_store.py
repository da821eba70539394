"""A file of trajectories survives any cut, streams, and keeps being readable as the format moves on."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmturn.errors import DataError
from mmturn.store import jsonl, trajectories
from mmturn.store.jsonl import LineFormat, LineWriter, StoreWarning, read_header, read_lines
from mmturn.store.trajectories import (
    TRAJECTORIES,
    TrajectoryWriter,
    image_refs,
    images_folder,
    read_trajectories,
    write_trajectories,
)
from mmturn.types import Clip, ImageRef, Observation, Trajectory

GOLDEN = Path(__file__).parents[1] / "golden" / "trajectories_v1.jsonl"
GOLDEN_CLIPS = GOLDEN.with_name("trajectories_v1_clips.jsonl")


def several(trajectory: Trajectory, count: int) -> list[Trajectory]:
    return [replace(trajectory, id=f"t{i}", index=i) for i in range(count)]


class _Saver:
    """Stands for an image store: notes what is saved and that the line comes later."""

    def __init__(self, file: Path) -> None:
        self.file, self.saved, self.lines = file, [], []  # type: ignore[var-annotated]

    def save(self, refs: list[ImageRef], folder: Path) -> None:
        self.saved.append((tuple(refs), folder))
        self.lines.append(len(self.file.read_bytes().splitlines()))


def test_written_and_read_back(tmp_path: Path, tiny_trajectory: Trajectory) -> None:
    written = several(tiny_trajectory, 5)
    path = write_trajectories(tmp_path / "run", written)
    assert list(read_trajectories(tmp_path / "run")) == written == list(read_trajectories(path))
    header = read_header(path, TRAJECTORIES)
    assert (header["format"], header["version"]) == ("mmturn/trajectories", 1)
    write_trajectories(tmp_path / "run", written[:1])
    assert len(list(read_trajectories(path))) == 6
    assert path.read_bytes().isascii()


def test_every_cut_is_survived(tmp_path: Path, tiny_trajectory: Trajectory) -> None:
    small = replace(tiny_trajectory, turns=(), meta={})
    whole = write_trajectories(tmp_path, several(small, 2)).read_bytes()
    ends = [i for i, byte in enumerate(whole) if byte == 10]
    file = tmp_path / "cut" / "trajectories.jsonl"
    file.parent.mkdir()
    for cut in range(len(whole) + 1):
        file.write_bytes(whole[:cut])
        told: list[str] = []
        count = sum(end <= cut for end in ends[1:])
        assert len(list(read_trajectories(file, told.append))) == count
        assert bool(told) == (cut not in (*ends, *(end + 1 for end in ends)))
        if cut % 7 == 0 or cut in ends:
            with TrajectoryWriter(file.parent, report=told.append) as writer:
                writer.write(replace(small, id="after"))
            assert [t.id for t in read_trajectories(file)] == [*(f"t{i}" for i in range(count)), "after"]


def test_a_cut_warns_by_default(tmp_path: Path, tiny_trajectory: Trajectory) -> None:
    path = write_trajectories(tmp_path, several(tiny_trajectory, 2))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.warns(StoreWarning, match="line 3 was cut off by a crash"):
        assert len(list(read_trajectories(path))) == 1
    with pytest.warns(StoreWarning, match="the last line was cut off"):
        TrajectoryWriter(tmp_path).close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(read_trajectories(path))) == 1


def test_damage_elsewhere_is_named(tmp_path: Path, tiny_trajectory: Trajectory) -> None:
    path = write_trajectories(tmp_path, several(tiny_trajectory, 3))
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*lines[:2], lines[2][:50], *lines[3:]]))
    with pytest.raises(DataError, match=r"trajectories.jsonl: line 3 is not a JSON object"):
        list(read_trajectories(path))
    path.write_bytes(b"\n".join([*lines[:2], lines[2].replace(b'"seed":', b'"sead":'), *lines[3:]]))
    with pytest.raises(DataError, match=r"trajectories.jsonl: line 3: Trajectory has no field sead"):
        list(read_trajectories(path))
    path.write_bytes(b"\n".join([*lines[:3], b"{]", b""]))
    with pytest.raises(DataError, match="its last line is damaged"):
        TrajectoryWriter(tmp_path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ('{"format": "mmturn/trajectories", "version": 2}', "version 2 was written by a newer mmturn"),
        ('{"format": "mmturn/trajectories", "version": "1"}', "version in line 1 must be a whole number"),
        ('{"format": "mmturn/scores", "version": 1}', "holds 'mmturn/scores', expected 'mmturn/trajectories'"),
        ('{"id": "x"}', "line 1 is not a header"),
        ("hello", "line 1 is not a header"),
    ],
)
def test_a_foreign_header_is_named(tmp_path: Path, header: str, message: str) -> None:
    file = tmp_path / "trajectories.jsonl"
    file.write_text(header + "\n{}\n", encoding="utf-8")
    before = file.read_bytes()
    with pytest.raises(DataError, match=message):
        list(read_trajectories(tmp_path))
    with pytest.raises(DataError, match=message):
        TrajectoryWriter(tmp_path)
    assert file.read_bytes() == before


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no trajectories here"):
        list(read_trajectories(tmp_path))
    with pytest.raises(DataError, match="cannot be read"):
        read_header(tmp_path / "none.jsonl", TRAJECTORIES)


def test_version_1_is_still_read(tiny_trajectory: Trajectory) -> None:
    read = list(read_trajectories(GOLDEN))
    assert read == [tiny_trajectory, replace(tiny_trajectory, id="t1", reward=None, advantages=None, turns=())]
    with pytest.raises(AssertionError):  # negative control
        assert read[0] == replace(tiny_trajectory, seed=1)


def with_clip(trajectory: Trajectory) -> Trajectory:
    """The trajectory with its first view the first frame of a clip."""
    first, *others = trajectory.turns
    view = first.observation.views[0]
    later = tuple(ImageRef(digits * 32, view.source.size) for digits in ("cd", "ef"))
    clip = replace(view, clip=Clip(later, (0.5, 1.0, 1.75), 0.625))
    shown = Observation((clip, *first.observation.parts[1:]))
    return replace(trajectory, turns=(replace(first, observation=shown, context_views=(clip,)), *others))


def test_clips_of_version_1_are_read(tiny_trajectory: Trajectory) -> None:
    """Views without the field, which were written before there were clips, stand beside them in the file."""
    clip, still = read_trajectories(GOLDEN_CLIPS)
    assert (clip, still) == (with_clip(tiny_trajectory), tiny_trajectory)
    assert still.views[0].clip is None
    with pytest.raises(AssertionError):  # negative control
        assert clip == tiny_trajectory


def test_all_frames_of_clips_are_stored(tmp_path: Path, tiny_trajectory: Trajectory) -> None:
    trajectory = with_clip(tiny_trajectory)
    assert [ref.sha256[:2] for ref in image_refs(trajectory)] == ["ab", "cd", "ef"]
    path = write_trajectories(tmp_path, [trajectory])
    assert list(read_trajectories(path)) == [trajectory]
    for bad in ('"seconds":[0.5,1.0]', '"seconds":[0.5,1.75,1.0]'):
        path.write_text(path.read_text().replace('"seconds":[0.5,1.0,1.75]', bad))
        with pytest.raises(DataError, match=r"trajectories.jsonl: line 2: .*clip"):
            list(read_trajectories(path))
        path = write_trajectories(tmp_path / str(len(bad)), [trajectory])


def test_older_records_are_upgraded(tmp_path: Path, tiny_trajectory: Trajectory, monkeypatch: Any) -> None:
    def rename(record: dict[str, Any]) -> dict[str, Any]:
        record["answer"] = record.pop("reply")
        return record

    steps = {1: rename, 2: lambda record: {**record, "seed": record["seed"] + 1}}
    path = write_trajectories(tmp_path, [tiny_trajectory])
    path.write_text(path.read_text().replace('"answer":"B","error":null,"facts"', '"reply":"Z","error":null,"facts"'))
    monkeypatch.setattr(trajectories, "TRAJECTORIES", LineFormat("mmturn/trajectories", 3, steps))
    [read] = read_trajectories(path)
    assert read == replace(tiny_trajectory, answer="Z", seed=tiny_trajectory.seed + 1)
    with pytest.raises(DataError, match="begun at an older version"):
        TrajectoryWriter(tmp_path)


def test_images_are_saved_once_and_first(tmp_path: Path, tiny_trajectory: Trajectory) -> None:
    saver = _Saver(tmp_path / "trajectories.jsonl")
    with TrajectoryWriter(tmp_path, saver) as writer:  # type: ignore[arg-type]
        for trajectory in several(tiny_trajectory, 3):
            writer.write(trajectory)
    assert saver.saved == [(image_refs(tiny_trajectory), tmp_path / "images")]
    assert saver.lines == [1]  # the header alone was there
    assert images_folder(tmp_path) == tmp_path / "images" == images_folder(tmp_path / "trajectories.jsonl")


def test_a_run_goes_back_to_its_checkpoint(tmp_path: Path, tiny_trajectory: Trajectory) -> None:
    a, b, c = several(tiny_trajectory, 3)
    with TrajectoryWriter(tmp_path) as writer:
        writer.write(a, sync=True)
        position = writer.position
        writer.write(b)
        writer.rewind(position)
        writer.write(c)
        with pytest.raises(DataError, match="cannot go to byte"):
            writer.rewind(10**9)
    assert list(read_trajectories(tmp_path)) == [a, c]


def test_what_cannot_be_stored_leaves_the_file_whole(tmp_path: Path, tiny_trajectory: Trajectory) -> None:
    with TrajectoryWriter(tmp_path) as writer:
        with pytest.raises(DataError, match=r"trajectory 't0': meta.x: expected a JSON value"):
            writer.write(replace(tiny_trajectory, meta={"x": object()}))
        writer.write(tiny_trajectory)
    assert list(read_trajectories(tmp_path)) == [tiny_trajectory]


def test_a_full_disk_leaves_no_half_line(tmp_path: Path) -> None:
    form = LineFormat("x", 1)
    writer = LineWriter(tmp_path / "x.jsonl", form)

    class _Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, data: Any) -> int:
            if len(data) < 10:
                raise OSError("no space left")
            return int(self.file.write(data[:5]))

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    real, writer._file = writer._file, _Full(writer._file)  # type: ignore[assignment]
    with pytest.raises(OSError, match="no space"):
        writer.write({"a": "long enough to be cut"})
    writer._file = real
    writer.write({"b": 1})
    writer.close()
    writer.close()
    assert [record for _, record in read_lines(tmp_path / "x.jsonl", form)] == [{"b": 1}]


def test_long_last_lines_are_found(tmp_path: Path) -> None:
    form = LineFormat("x", 1)
    file = tmp_path / "x.jsonl"
    with LineWriter(file, form) as writer:
        writer.write({"a": "y" * 200_000})
    file.write_bytes(file.read_bytes() + b'{"b": "' + b"z" * 150_000)
    with pytest.warns(StoreWarning):
        LineWriter(file, form).close()
    assert [len(record["a"]) for _, record in read_lines(file, form)] == [200_000]
    with pytest.raises(DataError, match="cannot be stored as JSON"):
        jsonl.dump_line({"a": float("nan")})


def test_reading_streams(tmp_path: Path, tiny_trajectory: Trajectory) -> None:
    path = write_trajectories(tmp_path, several(tiny_trajectory, 2))
    header, line, _ = path.read_bytes().split(b"\n")[:3]
    path.write_bytes(b"\n".join([header, line, b"damaged", b""]))
    reader = read_trajectories(path)
    assert next(reader).id == "t0"  # what comes before the damage is not held up by it
    with pytest.raises(DataError):
        next(reader)
    assert json.loads(line)["id"] == "t0"
