"""Questions about a video: a few frames first, then whatever stretch, moment or detail the policy asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mmturn.envs.visual_qa import VisualQA, VisualQAConfig
from mmturn.errors import ConfigError, DataError, EnvError
from mmturn.geometry import Box, Transform
from mmturn.interfaces import Look, SizeRule, Tool
from mmturn.media.look import StoreLook
from mmturn.media.video import Clock, FrameLook, VideoConfig, VideoReader, VideoStore
from mmturn.media.video.footage import Footage
from mmturn.media.video.sampling import pool, uniform
from mmturn.tasks.videos.subtitles import Subtitle, at_moments, read_srt
from mmturn.types import Action, Json, Observation, PixelBudget, Task, View

if TYPE_CHECKING:
    from mmturn.media.store import ImageStore


@dataclass(frozen=True)
class LongVideos:
    """What is different for long videos."""

    above_s: float = 0.0
    """Videos that last longer are long; 0: none is."""
    initial_frames: int = 12
    """Frames of the opening."""
    frame_budget: tuple[int, int] = (3_136, 112_896)
    """Least and most pixels of a frame as shown."""


@dataclass(frozen=True)
class VideoQAConfig(VisualQAConfig):
    """Settings of the video_qa environment: those of visual_qa, and how a video is shown. ``max_images`` bounds the
    frames of an episode."""

    max_images: int = 64
    """Frames and crops that one episode may show, those of clips too; a call that would pass it ends the episode."""
    shown_as: Literal["frames", "video"] = "frames"
    """frames: each frame is an image behind its label. video: frames that are shown together are one clip of native
    video tokens, in the order of time, which the model family tells their times; a frame alone stays an image."""
    clip_pixels: int = 25_165_824
    """Most pixels of a clip, all its frames together; of as many as have more, each is shown smaller."""
    initial_frames: int = 16
    """Frames of the opening, spread evenly over the pool."""
    frame_budget: tuple[int, int] = (3_136, 230_400)
    """Least and most pixels of a frame as shown."""
    long: LongVideos = field(default_factory=LongVideos)
    """What is different for long videos."""
    pool_rate: float = 0.0
    """Candidate frames per second, which ``unit: pool`` of the tools counts; 0: every frame of the file is one."""
    pool_limit: int = 128
    """Most candidates, where ``pool_rate`` thins the frames out."""
    label: str = "{time} "
    """Words before each frame, of {frame}, its number in the file; {pool}, its place among the candidates; {seconds};
    {time}, as MM:SS."""
    heading: str = ""
    """Words before the frames of a message, of {count}, and of {frames}, {pools} and {times}, lists."""
    video: VideoConfig = field(default_factory=VideoConfig)
    """How videos are read."""

    def __post_init__(self) -> None:
        VisualQAConfig.__post_init__(self)
        for name, (least, most) in (("frame_budget", self.frame_budget), ("long.frame_budget", self.long.frame_budget)):
            if not 1 <= least <= most:
                raise ConfigError(f"{name} must be [least, most] pixels with 1 <= least <= most, got {[least, most]}")
        if min(self.initial_frames, self.long.initial_frames, self.pool_limit, self.clip_pixels) < 1:
            raise ConfigError("initial_frames, long.initial_frames, pool_limit and clip_pixels must be at least 1")
        if not 0 <= self.pool_rate < float("inf"):
            raise ConfigError(f"pool_rate must be at least 0, got {self.pool_rate}")
        for name, template, fields in (("label", self.label, _LABEL), ("heading", self.heading, _HEADING)):
            try:
                template.format_map(fields)
            except (KeyError, ValueError, IndexError, AttributeError) as error:
                known = ", ".join(f"{{{key}}}" for key in fields)
                raise ConfigError(f"{name} {template!r} cannot be filled in (known: {known}): {error!r}") from error

    def budget_of(self, frames: int, each: tuple[int, int] | None = None) -> PixelBudget:
        """Pixels of a clip: ``each`` (default: ``frame_budget``) of every frame, and no more than ``clip_pixels``."""
        least, most = (bound * frames for bound in each or self.frame_budget)
        most = min(most, self.clip_pixels)
        return PixelBudget(min(least, most), most, frames)


_LABEL: dict[str, Any] = {"frame": 0, "pool": 0, "seconds": 0.0, "time": "00:00"}
_HEADING: dict[str, Any] = {"count": 0, "frames": [0], "pools": [0], "times": ["00:00"]}


class VideoQA(VisualQA):
    """Shows a few frames of the task's video (and the task's images, if it has any), carries out tool calls, and ends
    with an answer. Where ``Task.meta["subtitles"]`` names an .srt file, what is said at the frames stands behind them.
    Tools on frames find the video as ``look.footage``; tools on views cut from a frame at full resolution.

    Facts of a step, besides visual_qa's: ``frames``, ``[number, seconds]`` of each frame that it showed; ``spans``,
    ``[start, end]`` in seconds of each stretch that was asked for; a crop's ``frame``. Of the opening ``opening``, as
    ``frames``, of what the episode began with, and ``video``: ``frames`` and ``seconds`` of the whole, and with a pool
    ``pool_seconds``, when its frames are. Of a crop of a clip, ``frames`` in place of ``frame``.
    """

    Config = VideoQAConfig
    config: VideoQAConfig

    def __init__(self, config: VideoQAConfig, store: ImageStore, size_rule: SizeRule, tools: Sequence[Tool]) -> None:
        super().__init__(config, store, size_rule, tools)
        self._frames: FrameLook | None = None
        self._video: VideoReader | None = None
        self._footage: Footage | None = None
        self._frame_of: dict[str, int] = {}
        self._budget = config.frame_budget
        self._opening: list[Json] = []
        self._subtitles: list[Subtitle] = []

    def reset(self, task: Task, seed: int) -> Observation:
        """Show the opening frames. Raises EnvError that names the task and the file that cannot be shown."""
        images = super().reset(task, seed)
        if task.video is None:
            raise EnvError(f"task {task.id}: has no video; env visual_qa shows images alone")
        try:
            named = task.meta.get("subtitles")
            self._subtitles = read_srt(Path(named)) if isinstance(named, str) else []
            self._video = self.reader(task.video)
            opening = self._open(self._video)
        except DataError as exc:
            raise EnvError(f"task {task.id}: video {task.video} cannot be shown: {exc}") from exc
        self._views.extend(part for part in opening if isinstance(part, View))
        assert self._footage is not None
        facts = {"opening": self._opening, "video": self._described(self._footage)}
        return Observation((*images.parts, *opening), facts=facts)

    def close(self) -> None:
        """Forget the episode."""
        super().close()
        self._video, self._footage, self._frames, self._opening, self._frame_of = None, None, None, [], {}

    def reader(self, video: str) -> VideoReader:
        """The reader of a video file. Raises DataError."""
        return _videos(self.config.video).open(video)

    def footage(self, video: str) -> Footage:
        """What tools would see of a video file; nothing is shown. Raises DataError."""
        clock, config = self.reader(video).clock(), self.config
        count = (config.long if self._is_long(clock) else config).initial_frames
        return Footage(clock, self._candidates(clock), count, self._shown)

    def _candidates(self, clock: Clock) -> Sequence[int]:
        config = self.config
        return pool(clock, config.pool_rate, config.pool_limit) if config.pool_rate else range(len(clock))

    def _is_long(self, clock: Clock) -> bool:
        return 0 < self.config.long.above_s < clock.duration_s

    def _open(self, video: VideoReader) -> tuple[str | View, ...]:
        self._footage = footage = self.footage(video.info.path)
        clock, chosen, count = footage.clock, footage.pool, footage.opening
        self._budget = (self.config.long if self._is_long(clock) else self.config).frame_budget
        self._frames = FrameLook(self.store, self.size_rule, PixelBudget(*self._budget))
        picked = [chosen[place] for place in uniform(0, len(chosen) - 1, count, "down")]
        self._opening = [[number, float(clock.seconds(number))] for number in picked]
        return self._shown(picked, whole=True)

    def _shown(self, numbers: Sequence[int], *, whole: bool = False) -> tuple[str | View, ...]:
        """Frames as views, each behind its label, or as one clip, all behind the heading; ``whole``: they stand for the
        whole video. Raises DataError."""
        footage, frames, video = self._footage, self._frames, self._video
        assert footage is not None and frames is not None and video is not None, "an episode is under way"
        as_clip = self.config.shown_as == "video" and len(set(numbers)) > 1
        numbers = sorted(set(numbers)) if as_clip else numbers
        labels = [self._words(footage, number) for number in numbers]
        heading = self.config.heading.format_map({
            "count": len(numbers), "frames": list(numbers), "pools": [words["pool"] for words in labels],
            "times": [words["time"] for words in labels],
        })  # fmt: skip
        parts: list[str | View] = [heading]
        if as_clip:
            parts.append(self._clip(frames, video, numbers, whole))
        else:
            for number, words, view in zip(numbers, labels, frames.views(video, numbers), strict=True):
                self._frame_of[view.source.sha256] = number
                parts += [self.config.label.format_map(words), view]
        said = at_moments(self._subtitles, [words["seconds"] for words in labels])
        parts.append(f"\nSubtitles at these frames:\n{said}\n" if said else "")
        return tuple(part for part in parts if part != "")

    def _clip(self, frames: FrameLook, video: VideoReader, numbers: Sequence[int], whole: bool) -> View:
        """Frames, in order, as one clip."""
        budget = self.config.budget_of(len(numbers), self._budget)
        clip = replace(frames, budget=budget).clip(video, numbers, whole=whole)
        self._frame_of.update(zip((ref.sha256 for ref in clip.sources), numbers, strict=True))
        return clip

    def _words(self, footage: Footage, number: int) -> dict[str, Any]:
        clock, place = footage.clock, self._place(number)
        return {"frame": number, "pool": place, "seconds": float(clock.seconds(number)), "time": clock.label(number)}

    def _place(self, number: int) -> int | None:
        """Place of a frame among the candidates; None for one that is none of them."""
        assert self._footage is not None
        if not self.config.pool_rate:
            return number
        return self._footage.pool.index(number) if number in self._footage.pool else None

    def _described(self, footage: Footage) -> dict[str, Json]:
        clock = footage.clock
        whole: dict[str, Json] = {"frames": len(clock), "seconds": float(clock.duration_s)}
        if self.config.pool_rate:
            whole["pool_seconds"] = [float(clock.seconds(number)) for number in footage.pool]
        return whole

    def _look(self, name: str) -> Look:
        """What a tool shows things with, the video among them."""
        look = super()._look(name)
        return replace(look, footage=self._footage) if isinstance(look, StoreLook) else look

    def _addressed(self, action: Action) -> View:
        """The view that a call refers to; of a frame, or those of a clip, at full resolution."""
        view = super()._addressed(action)
        numbers = [self._frame_of[ref.sha256] for ref in view.sources if ref.sha256 in self._frame_of]
        frames, video = self._frames, self._video
        if len(numbers) < len(view.sources) or frames is None or video is None or view.source.size == video.info.size:
            return view
        whole = [each.source for each in frames.whole(video, numbers)]
        self._frame_of.update(zip((ref.sha256 for ref in whole), numbers, strict=True))
        bounds = Box(0, 0, whole[0].size.width, whole[0].size.height)
        transform = Transform.region(bounds, view.source.size) @ view.transform
        clip = None if view.clip is None else replace(view.clip, later=tuple(whole[1:]))
        return View(whole[0], transform, view.size, clip)

    def _add_facts(self, facts: dict[str, Json], new: Mapping[str, Json], view: View) -> None:
        """Merge a call's facts; what was shown of the video is said with its times."""
        assert self._footage is not None
        clock, own = self._footage.clock, dict(new)
        shown = [[number, float(clock.seconds(number))] for number in own.pop("frames", ())]
        facts["frames"] = [*facts.get("frames", ()), *shown]
        facts["spans"] = [*facts.get("spans", ()), *own.pop("spans", ())]
        super()._add_facts(facts, own, view)
        if "crop" in own:
            numbers = [self._frame_of.get(ref.sha256) for ref in view.sources]
            facts["crops"][-1] |= {"frame": numbers[0]} if view.clip is None else {"frames": numbers}


@cache
def _videos(config: VideoConfig) -> VideoStore:
    """The readers of all environments of this process with these settings."""
    return VideoStore(config)
