"""A video that plays, and questions that arrive while it does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from mmturn.envs.stream.delays import Counter
from mmturn.envs.stream.memory import Recall, StreamMemory
from mmturn.envs.stream.playback import Playback
from mmturn.envs.stream.settings import DelayConfig, MemoryConfig
from mmturn.envs.stream.tree import Kept
from mmturn.envs.video_qa import LongVideos, VideoQA, VideoQAConfig
from mmturn.errors import ConfigError, DataError, EnvError
from mmturn.geometry import Size
from mmturn.interfaces import SizeRule, Step, Tool
from mmturn.media.video import Clock, FrameLook, VideoReader
from mmturn.media.video.footage import Footage
from mmturn.media.video.times import format_time
from mmturn.tasks.streams.questions import Asked, questions_of
from mmturn.types import Action, Json, Observation, PixelBudget, StopReason, Task, View

if TYPE_CHECKING:
    from mmturn.media.store import ImageStore

_UNBOUNDED = PixelBudget(1, 1 << 40)
_SEED_BITS = (1 << 64) - 1


@dataclass(frozen=True)
class VideoStreamConfig(VideoQAConfig):
    """Settings of the video_stream environment: those of video_qa, and how a stream is remembered."""

    max_images: int = 4096
    """Views that one episode may show, of all its questions together; one that would pass it ends the episode."""
    initial_frames: int = 8
    """Frames that a tool ``span`` with ``frames: 0`` shows."""
    rate: float = 4.0
    """Frames per second of the stream that are looked at; those that are worth it are kept."""
    ask_after_s: float = 0.0
    """When a question is asked that does not say so: this long after its last gold stretch; as the video ends, if it
    has none."""
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    """Which frames are kept, remembered and shown."""
    delay: DelayConfig = field(default_factory=DelayConfig)
    """How long answers take."""
    now: str = "The video has played until {time}.\n"
    """Words before what a question is shown, of {time}, as MM:SS."""
    note: str = "You noted of {start} to {end}: {caption}\n"
    """Words for a caption that comes to mind, of {start} and {end}, as MM:SS, and {caption}."""
    caption: str = "Describe what happens in these frames, with everything that could be asked about."
    """Asks the policy for a caption, where ``memory.captions`` is policy."""
    caption_chars: int = 400
    """A longer caption is cut off."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.rate < float("inf"):
            raise ConfigError(f"env.rate must be above 0, got {self.rate}")
        if not 0 <= self.ask_after_s < float("inf"):
            raise ConfigError(f"env.ask_after_s must be 0 or more, got {self.ask_after_s}")
        if self.long != LongVideos():
            raise ConfigError("env.long goes with env.name: video_qa: how long a stream will be is not known")
        if self.caption_chars < 1 or not self.caption.strip():
            raise ConfigError("env.caption must not be empty, nor env.caption_chars below 1")
        for name, template, fields in (
            ("now", self.now, {"time": ""}),
            ("note", self.note, {"start": "", "end": "", "caption": ""}),
        ):
            try:
                template.format_map(fields)
            except (KeyError, ValueError, IndexError, AttributeError) as error:
                known = ", ".join(f"{{{key}}}" for key in fields)
                raise ConfigError(f"env.{name} {template!r} cannot be filled in (known: {known}): {error!r}") from error


class VideoStream(VideoQA):
    """Plays the task's video; each question is shown what is remembered at its moment, and nothing later than that.

    A task is a session of one or several questions (see ``tasks.streams.questions``), in the order of their times. An
    answer ends a question, and the last one the episode. Before it, tools look again at what has played so far. With
    the context policy ``stream`` a question sees its own frames and earlier dialogues; images are those of the memory.

    Facts of a step, besides video_qa's. With an answer: ``question`` (``id``, ``text``, ``choices``, ``gold``,
    ``answer_type``, ``asked_at_s``, and how many it is one ``of``), ``answer``, ``memory`` (``held_tokens``,
    ``shown_tokens``, and ``short`` and ``long``, the frames of each, as ``frames``) and ``delay`` or ``measured`` (see
    ``stream.delays``). With a caption: ``caption`` (``span``, ``text``). ``frames`` are those that come next.
    """

    Config = VideoStreamConfig
    config: VideoStreamConfig

    def __init__(
        self, config: VideoStreamConfig, store: ImageStore, size_rule: SizeRule, tools: Sequence[Tool]
    ) -> None:
        super().__init__(config, store, size_rule, tools)
        self._seed = 0
        self._counter = Counter(config.delay)
        self._play: Playback | None = None
        self._memory: StreamMemory | None = None
        self._coming: list[tuple[float, Asked]] = []
        self._count = 0
        self._feed: Iterator[Kept] = iter(())
        self._played_s = -1.0
        self._open_question: tuple[int, float, Asked] | None = None
        self._recall: Recall | None = None
        self.asked: Task | None = None
        """The question that is open now, a request for a caption among them; None outside of an episode."""

    def reset(self, task: Task, seed: int) -> Observation:
        """Play until the first question. Raises EnvError that names the task, and the question or the file."""
        self._seed = seed
        return super().reset(task, seed)

    def step(self, actions: tuple[Action, ...]) -> Step:
        """Carry out the actions; an answer makes the video play on until the next question."""
        step = super().step(actions)
        if step.answer is None:
            shown = 0 if step.observation is None else len(step.observation.views)
            self._counter.looked(shown)
            return step
        facts = {**step.facts, **self._answered(step.answer)}
        try:
            numbers, words = self._next()
            parts = () if self.asked is None else (*words, *self._shown(numbers))
        except DataError as exc:
            raise EnvError(f"task {self._task.id if self._task else '?'}: the video cannot be shown: {exc}") from exc
        if self.asked is None:
            return Step(None, terminated=True, facts=facts, answer=step.answer)
        views = [part for part in parts if isinstance(part, View)]
        if len(self._views) + len(views) > self.config.max_images:
            return Step(None, terminated=False, facts=facts, limit=StopReason.IMAGE_LIMIT.value)
        self._views.extend(views)
        facts["frames"] = self._timed(numbers)
        return Step(Observation(parts), terminated=False, facts=facts)

    def questions(self, task: Task) -> list[Task]:
        """A task's questions in the order in which they are asked; nothing is shown. Raises DataError."""
        return [asked.task for _, asked in self._in_order(task, self.reader(task.video or ""))]

    def close(self) -> None:
        """Forget the episode."""
        super().close()
        self._play, self._memory, self._coming, self._feed = None, None, [], iter(())
        self._open_question, self._recall, self.asked, self._played_s = None, None, None, -1.0
        self._counter = Counter(self.config.delay)

    def note(self, frames: Sequence[Kept]) -> str | None:
        """The caption of a leaf that these frames stand for, where something else than the policy gives it; None: it
        has none, or the policy is asked. Overridden by environments of one's own (``./file.py:Name``)."""
        return None

    def _open(self, video: VideoReader) -> tuple[str | View, ...]:
        task, config = self._task, self.config
        assert task is not None, "an episode is under way"
        self._play = _playback(video, config.rate, config.memory)
        self._coming = self._in_order(task, video)
        self._count = len(self._coming)
        self._frames = FrameLook(self.store, self.size_rule, PixelBudget(*config.frame_budget))
        size = self.size_rule(video.info.size, self._frames.budget)
        side = self.size_rule(Size(1, 1), _UNBOUNDED).width  # the least that is shown is one token
        self._memory = StreamMemory(config.memory, size.area // (side * side))
        numbers, words = self._next()
        self._opening = self._timed(numbers)
        return (*words, *self._shown(numbers))

    def _in_order(self, task: Task, video: VideoReader) -> list[tuple[float, Asked]]:
        """When each question is asked, as they are asked."""
        duration_s = float(video.clock().duration_s)
        timed = [(asked.when(duration_s, self.config.ask_after_s), asked) for asked in questions_of(task)]
        return sorted(timed, key=lambda pair: pair[0])

    def _next(self) -> tuple[list[int], list[str]]:
        """Play until something is asked: the frames and the words that come with it, and ``asked``; None where
        nothing is asked any more."""
        memory, play = self._memory, self._play
        assert memory is not None and play is not None, "an episode is under way"
        self.asked = None
        while self._coming:
            at_s, _ = self._coming[0]
            for frame in self._fed(play, at_s):
                if memory.add(frame) and (request := self._captioned(memory)) is not None:
                    self.asked = request
                    self._footage = self._until(play, frame.second)
                    return [kept.number for kept in memory.leaves[-1].frames[: self._most]], []
            return self._question(memory, play)
        return [], []

    def _fed(self, play: Playback, until_s: float) -> Iterator[Kept]:
        """Frames that have not been fed yet, as they come."""
        while True:
            frame = next(self._feed, None)
            if frame is None:
                if self._played_s >= until_s:
                    return
                self._feed = iter(play.kept(self._played_s, until_s))
                self._played_s = until_s
            else:
                yield frame

    def _captioned(self, memory: StreamMemory) -> Task | None:
        """What asks the policy for a caption of the newest leaf; None where it is captioned already, or stays bare."""
        caption = self.note(memory.leaves[-1].frames)
        if caption is not None:
            memory.note(caption[: self.config.caption_chars])
        if caption is not None or self.config.memory.captions != "policy" or self._task is None:
            return None
        name = f"{self._task.id}/caption-{memory.leaves[-1].frames[-1].number}"
        return Task(name, self.config.caption, video=self._task.video)

    def _question(self, memory: StreamMemory, play: Playback) -> tuple[list[int], list[str]]:
        """The next question is asked."""
        at_s, asked = self._coming.pop(0)
        number = 0 if self._open_question is None else self._open_question[0] + 1
        self._open_question, self.asked = (number, at_s, asked), asked.task
        self._footage = self._until(play, at_s)
        self._counter.arrive(at_s)
        self._recall = recall = memory.recall(asked.task.question, (self._seed & _SEED_BITS, number))
        frames = [kept.number for kept in recall.frames]
        self._counter.searched(len(frames))
        words = [self.config.now.format(time=_label(at_s))]
        for node in recall.notes:
            start, end = map(_label, node.span)
            words.append(self.config.note.format(start=start, end=end, caption=node.caption))
        return frames, words

    def _answered(self, text: str) -> dict[str, Json]:
        """Facts of an answer, or of a caption."""
        memory, recall = self._memory, self._recall
        assert memory is not None, "an episode is under way"
        if recall is None or self._open_question is None or self.asked is not self._open_question[2].task:
            span, caption = memory.leaves[-1].span, text[: self.config.caption_chars].strip()
            memory.note(caption)
            return {"caption": {"span": list(span), "text": caption}}
        _, at_s, asked = self._open_question
        short, long = (self._timed([kept.number for kept in part]) for part in (recall.short, recall.long))
        shown = len(recall.frames) * memory.frame_tokens
        return {
            "question": {
                "id": asked.task.id, "text": asked.task.question, "choices": list(asked.task.choices),
                "gold": asked.task.answer, "answer_type": asked.task.answer_type, "asked_at_s": at_s, "of": self._count,
            },
            "answer": text,
            "memory": {"held_tokens": memory.tokens, "shown_tokens": shown, "short": short, "long": long},
            **self._counter.answered(text),
        }  # fmt: skip

    @property
    def _most(self) -> int:
        """Frames that may be shown at once."""
        assert self._memory is not None, "an episode is under way"
        return self.config.memory.show_tokens // self._memory.frame_tokens

    def _until(self, play: Playback, moment_s: float) -> Footage:
        """The video as tools may see it at a moment: it ends there."""
        clock, seen = play.clock, play.seen(moment_s)
        end = clock.end_tick if seen == len(clock) else int(clock.ticks[seen])
        past = Clock(np.asarray(clock.ticks[:seen]), clock.time_base, end)
        return Footage(past, self._candidates(past), self.config.initial_frames, self._shown)

    def _timed(self, numbers: Sequence[int]) -> list[Json]:
        """``[number, seconds]`` of frames."""
        assert self._play is not None, "an episode is under way"
        return [[number, float(self._play.clock.seconds(number))] for number in numbers]

    def _described(self, footage: Footage) -> dict[str, Json]:
        """The video as a whole, for the record; the policy is not told."""
        assert self._play is not None, "an episode is under way"
        clock = self._play.clock
        return {**super()._described(footage), "frames": len(clock), "seconds": float(clock.duration_s)}


def _label(second: float) -> str:
    return format_time(Fraction(second))


@lru_cache(maxsize=32)
def _playback(video: VideoReader, rate: float, memory: MemoryConfig) -> Playback:
    """What has been kept of a video is the same for all its episodes."""
    return Playback(video, rate, memory)
