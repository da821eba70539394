"""From trajectories to batches, for one policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmturn.batching.collate import Batch, collate, empty_batch
from mmturn.batching.patches import PatchSource
from mmturn.batching.rows import rows_of
from mmturn.errors import DataError
from mmturn.families.spec import Family, Holders
from mmturn.models.load import LoadedModel
from mmturn.training.microbatches import MicroBatch, cut, cut_groups, groups_of
from mmturn.training.settings import TrainingConfig
from mmturn.types import Row, Trajectory


@dataclass(frozen=True, slots=True)
class Feed:
    """What rows and batches need to know of the policy."""

    family: Family
    source: PatchSource
    image_token_id: int
    pad_id: int
    banned_ids: tuple[int, ...]
    vocab_size: int | None = None
    """How many ids the model embeds."""

    @classmethod
    def of(cls, loaded: LoadedModel, source: PatchSource, banned_ids: Sequence[int]) -> Feed:
        """For a loaded model; ``banned_ids`` are the renderer's."""
        vocab_size = int(loaded.base.config.text_config.vocab_size)
        return cls(loaded.family, source, loaded.image_token_id, loaded.pad_id, tuple(banned_ids), vocab_size)

    @property
    def holders(self) -> Holders:
        """What stands for views in a context."""
        return self.family.holders(self.image_token_id)

    def rows(self, trajectory: Trajectory) -> list[Row]:
        """The training rows of a trajectory. Raises DataError naming trajectory and turn."""
        return rows_of(trajectory, self.family, self.image_token_id, self.banned_ids, vocab_size=self.vocab_size)

    def ready_rows(self, trajectory: Trajectory) -> list[Row]:
        """The same with their views ready to be shown. Raises DataError naming the trajectory."""
        rows = self.rows(trajectory)
        for row in rows:
            self.prepare(row)
        return rows

    def prepare(self, row: Row) -> None:
        """Ask for all that a row shows, so that an image which is gone by now costs this row alone, and no batch.

        Raises DataError naming the trajectory and the image.
        """
        try:
            for view in dict.fromkeys(row.views):
                self.source(view)
        except DataError as error:
            raise DataError(f"trajectory {row.trajectory_id}: {error}") from error

    def batch(
        self,
        rows: Sequence[Row],
        advantages: Sequence[Sequence[float]] | None = None,
        *,
        groups: Sequence[int] | None = None,
        patches: bool = True,
    ) -> Batch:
        """One batch of rows; ``advantages`` per token of each row. With ``groups`` (rows of each, in order) they are
        packed as trees; without ``patches`` an ``Images`` shows the pictures."""
        return collate(
            rows, advantages, self.family, self.source if patches else None,
            image_token_id=self.image_token_id, pad_id=self.pad_id, groups=groups,
        )  # fmt: skip

    def batches(
        self,
        rows: Sequence[Row],
        training: TrainingConfig,
        advantages: Sequence[Sequence[float]] | None = None,
        *,
        whole: bool = False,
    ) -> list[tuple[list[int], Batch]]:
        """Rows cut into batches as the settings say, with the indices of their rows; ``Images`` shows the pictures.
        With ``whole`` the rows of a group share a batch, whatever its size."""
        most = training.micro_batch_rows, training.micro_batch_tokens
        if training.layout == "padded":
            cuts = cut([len(row.token_ids) for row in rows], *most, groups_of(rows) if whole else None)
            bins: list[tuple[list[int], list[int] | None]] = [(indices, None) for indices in cuts]
        else:
            trees = cut_groups(rows, self.holders, *most, whole=whole)
            bins = [(tree.rows, [len(group) for group in tree.groups]) for tree in trees]
        worth = None if advantages is None else list(advantages)
        return [
            (
                indices,
                self.batch(
                    [rows[index] for index in indices],
                    None if worth is None else [worth[index] for index in indices],
                    groups=groups,
                    patches=False,
                ),
            )
            for indices, groups in bins
        ]

    def filler(self) -> MicroBatch:
        """A micro-batch in which nothing is sampled and nothing shown."""
        return MicroBatch(empty_batch(self.family, self.pad_id))
