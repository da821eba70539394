"""A clip on a page: each of its frames, with its time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from mmturn.geometry import Transform
from mmturn.media.store import ImageStore
from mmturn.store.trajectories import write_trajectories
from mmturn.types import Clip, ImageRef, Observation, Trajectory, View
from mmturn.viewer import Section, view
from mmturn.viewer.content import page_content
from mmturn.viewer.pictures import Pictures
from tests.viewer.conftest import build, see


def clip_of(store: ImageStore) -> View:
    """Four frames of four greys at 1, 1.5, 2 and 4 s."""
    refs = [store.put_image(Image.new("RGB", (64, 32), (60 * number,) * 3)) for number in range(4)]
    return View(refs[0], Transform(), refs[0].size, Clip(tuple(refs[1:]), (1.0, 1.5, 2.0, 4.0), 0.8))


def trajectory_with(store: ImageStore, ref: ImageRef, clip: View) -> Trajectory:
    trajectory = build(ref)
    first, second = trajectory.turns
    facts = {
        "opening": [[0, 1.0], [5, 1.5], [10, 2.0], [30, 4.0]], "frames": [], "spans": [],
        "video": {"frames": 50, "seconds": 5.0},
    }  # fmt: skip
    shown = Observation((see(ref), "then", clip, "Which?"))
    return replace(trajectory, turns=(replace(first, observation=shown, facts=facts), second))


def test_the_frames_of_a_clip_are_a_strip_with_times(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "images")
    ref = store.put_image(Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)))
    clip, pictures = clip_of(store), Pictures(store)
    data = page_content([Section("s", [trajectory_with(store, ref, clip)])], pictures)
    (item,) = data["sections"][0]["groups"][0]["items"]
    shown = item["turns"][0]["views"]
    assert [each["second"] for each in shown] == [None, 1.0, 1.5, 2.0, 4.0]
    assert len({each["picture"] for each in shown}) == 5 and None not in {each["picture"] for each in shown}
    assert item["timeline"]["turns"][0]["frames"] == [1.0, 1.5, 2.0, 4.0]
    # marks stay with the view that they were made on, the first; the second turn's crop has its own picture
    assert shown[0]["marks"] and not any(each["marks"] for each in shown[1:])
    assert len(item["turns"][1]["views"]) == 1


def test_a_stored_run_with_a_clip_has_all_frames(tmp_path: Path) -> None:
    store = ImageStore()
    ref = store.put_image(Image.new("RGB", (60, 40), (9, 99, 9)))
    write_trajectories(tmp_path / "run", [trajectory_with(store, ref, clip_of(store))], store)
    page = view(tmp_path / "run", None).read_text(encoding="utf-8")
    assert '"picture":null' not in page.split('id="data">')[1].split("</script>")[0]
    assert len(list((tmp_path / "run" / "images").rglob("*.png"))) == 5
