"""The policy as the trainer sees it: a batch of rows in, log-probabilities of the sampled tokens out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmturn.batching.collate import Batch, blank_image
from mmturn.errors import ConfigError
from mmturn.losses.value import anchors
from mmturn.models import tree_attention
from mmturn.models.action_values import ActionHeads
from mmturn.models.heads import ObjectiveHeads, OutputHeads
from mmturn.models.load import LoadedModel, base_model
from mmturn.models.step import ViewFeatures, encoder_outputs, one_placeholder, vision_features
from mmturn.models.value_head import ValueHead


class BatchStates(NamedTuple):
    """Hidden states about what each turn of a batch says: float32 and without gradient; turns row by row, in order."""

    starts: Tensor
    """[turns, H]; those that predict a turn's first sampled token."""
    ends: Tensor
    """[turns, H]; those of a turn's last sampled token."""
    last: Tensor
    """[B, H]; those of each row's last token."""


class TokenScores(NamedTuple):
    """What the policy makes of the sampled tokens of a batch. A tuple, so that DeepSpeed's hooks see its tensors."""

    logprobs: Tensor
    """float32 [B, T]; at t the log-probability of token t given those before it, 0 where the loss mask is 0."""
    entropy: Tensor
    """float32 [B, T]; entropy of the distribution that token t was drawn from, 0 where the loss mask is 0."""
    values: Tensor | None = None
    """float32 [B, T]; at t the critic's value before token t, 0 where the loss mask is 0; None without a critic."""
    final_values: Tensor | None = None
    """float32 [B]; the critic's value after each row's last token, without gradient."""
    q: Tensor | None = None
    """float32 [B, T, J]; at t what J action heads say that token t is worth, 0 where the loss mask is 0."""
    q_logprobs: Tensor | None = None
    """float32 [B, T, J]; its log-softmax among the worths of all tokens, 0 where the loss mask is 0."""
    target_q: Tensor | None = None
    """float32 [B, T, J]; ``q`` by the heads' slow copies, without gradient; None where there are none."""
    states: BatchStates | None = None
    """None unless they were asked for."""


class _Hidden(NamedTuple):
    """Hidden states of all columns that ran, and where to find those of some tokens among them."""

    columns: Tensor
    """[C, H]"""
    before: Tensor
    """int64 [n] per sampled token, row by row: the column that predicts it."""
    own: Tensor
    """int64 [n] and the one that it stands in."""
    ends: Tensor
    """int64 [B] per row: the column of its last token."""


class PolicyModule(nn.Module):
    """Teacher-forced scores under the sampler's own distribution: same temperature, same banned ids.

    The head runs on sampled positions alone. A batch that brings its own patches has each unique view encoded once, in
    one call of the tower; the same modules then run for every batch: one without images passes a blank image through
    the tower, with weight zero, so that the collectives of ZeRO-3 match between processes.
    """

    def __init__(
        self, loaded: LoadedModel, temperature: float, banned_ids: Sequence[int], critic: ValueHead | None = None
    ) -> None:
        """``critic``: values sampled tokens beside; it is no part of ``model``, and so of no exported policy. Raises
        ConfigError for a temperature that nothing can be trained at.

        ``heads`` and ``actions`` are None until they are set: output layers that score batches which name one for each
        row, and ones that value sampled tokens beside.
        """
        super().__init__()
        if not temperature > 0:
            raise ConfigError(f"log-probs need a temperature above 0, got {temperature}")
        self.model = loaded.model
        self.family = loaded.family
        self.critic = critic
        self.heads: ObjectiveHeads | None = None
        self.actions: ActionHeads | None = None
        self.temperature = float(temperature)
        self._banned: Tensor
        banned = torch.tensor(sorted(banned_ids), dtype=torch.long, device=loaded.device)
        self.register_buffer("_banned", banned, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PolicyModule:
        """Casting or moving the module; its float32 buffers keep their precision, as in a model loaded in bfloat16.

        DeepSpeed casts all that it is given, but rotary frequencies in bfloat16 would blur positions.
        """
        precise = {name: value for name, value in self.named_buffers() if value.dtype == torch.float32}
        super()._apply(fn, recurse)
        for name, cast in list(self.named_buffers()):
            if name in precise and cast.dtype != torch.float32:
                owner, _, leaf = name.rpartition(".")
                module = self.get_submodule(owner)
                kept = leaf not in module._non_persistent_buffers_set
                module.register_buffer(leaf, precise[name].to(cast.device), persistent=kept)
        return self

    @property
    def vision_frozen(self) -> bool:
        """Whether the vision tower has nothing to train."""
        return not any(p.requires_grad for p in base_model(self.model).model.visual.parameters())

    def forward(
        self, batch: Batch, features: Sequence[ViewFeatures] | None = None, with_states: bool = False
    ) -> TokenScores:
        """Scores of the tokens where ``batch.loss_mask`` is 1. The batch must be on the model's device.

        ``features``: of ``batch.views``, encoded before; None encodes ``batch.patches`` now. ``with_states``: what a
        critic of its own reads, too.
        """
        blank = None
        if features is None:
            features, blank = self._encode(batch)
        found = self._padded(batch, features) if batch.packed is None else self._packed(batch, features)
        hidden, last = found.columns[found.before], found.columns[found.ends]
        if blank is not None:
            hidden = hidden + blank.to(hidden.dtype)
        sampled = batch.loss_mask[:, 1:].bool()
        chosen, entropy = self._scores(hidden, batch, sampled)
        values = final_values = None
        if self.critic is not None:
            # one call for both, so that every batch runs the same modules
            valued = self.critic(torch.cat((hidden, last.detach())))
            values, final_values = _spread(valued[: len(hidden)], sampled), valued[len(hidden) :].detach()
        scores = TokenScores(_spread(chosen, sampled), _spread(entropy, sampled), values, final_values)
        if with_states:
            scores = scores._replace(states=_states(batch, found))
        return scores if self.actions is None else scores._replace(**self._action_values(hidden, batch, sampled))

    @property
    def folding(self) -> OutputHeads | None:
        """The output layers beside the model's own, with which it folds into one; None without any."""
        return self.heads if self.actions is None else self.actions

    @property
    def output_name(self) -> str:
        """Name of the model's output layer among its weights: that of the embedding table where they are one."""
        base = base_model(self.model)
        return next(name for name, weight in base.named_parameters() if weight is base.lm_head.weight)

    @contextmanager
    def folded(self) -> Iterator[None]:
        """Within, the model's output layer is the one that it folds into with those beside it: what is exported is
        what an engine samples from. All parameters must be there in full."""
        if self.folding is None:
            yield
            return
        layer = base_model(self.model).lm_head
        own = layer.weight
        layer.weight = nn.Parameter(self.folding.mixture(own).folded(), requires_grad=False)
        try:
            yield
        finally:
            layer.weight = own

    def encode(self, patches: Tensor, grids: Tensor) -> list[ViewFeatures]:
        """Features of images (see ``models.step.vision_features``), with gradients unless the tower is frozen."""
        with torch.no_grad() if self.vision_frozen else nullcontext():
            return vision_features(base_model(self.model), patches, grids, self.family)

    def _scores(self, hidden: Tensor, batch: Batch, sampled: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probs and entropies [n] of the sampled tokens, by the model's own layer or by the head of each row."""
        token_ids = batch.input_ids[:, 1:][sampled]
        if batch.head is None:
            scores: tuple[Tensor, Tensor] = base_model(self.model).lm_head(
                hidden, token_ids, self.temperature, self._banned
            )
            return scores
        assert self.heads is not None, "rows that name a head are scored by heads"
        which = batch.head[:, None].expand_as(sampled)[sampled]
        return self.heads(hidden, token_ids, which, self.temperature, self._banned)

    def _action_values(self, hidden: Tensor, batch: Batch, sampled: Tensor) -> dict[str, Tensor]:
        """The fields of ``TokenScores`` that action heads fill."""
        assert self.actions is not None
        token_ids = batch.input_ids[:, 1:][sampled]
        found = dict(zip(("q", "q_logprobs"), self.actions(hidden, token_ids, self._banned), strict=True))
        targets = self.actions.targets(hidden, token_ids)
        if targets is not None:
            found["target_q"] = targets
        return {
            name: torch.stack([_spread(part, sampled) for part in values.unbind(-1)], dim=-1)
            for name, values in found.items()
        }

    def _padded(self, batch: Batch, features: Sequence[ViewFeatures]) -> _Hidden:
        """Each row by itself, the reference for ``_packed``."""
        # No attention mask: rows are padded on the right, so that causal attention hides the padding from every real
        # token, and the fast causal kernels stay in use.
        hidden: Tensor = (
            base_model(self.model)
            .model(
                input_ids=one_placeholder(base_model(self.model), batch.input_ids, self.family),
                position_ids=batch.position_ids,
                attention_mask=None,
                mm_encoder_outputs=encoder_outputs([features[number] for row in batch.image_index for number in row]),
                use_cache=False,
            )
            .last_hidden_state
        )
        rows, length, _ = hidden.shape
        starts = torch.arange(rows, device=hidden.device) * length
        row, column = batch.loss_mask[:, 1:].nonzero(as_tuple=True)
        before = starts[row] + column
        ends = starts + batch.attention_mask.sum(1).clamp(min=1) - 1
        return _Hidden(hidden.flatten(0, 1), before, before + 1, ends)

    def _packed(self, batch: Batch, features: Sequence[ViewFeatures]) -> _Hidden:
        """The same from trees in which a group's common beginning and its images run once."""
        base, packed = base_model(self.model), batch.packed
        assert packed is not None
        if base.config.text_config._attn_implementation != tree_attention.NAME:
            raise ConfigError(
                "rows can be packed as trees with model.attention: sdpa only; set training.layout: padded"
            )
        hidden: Tensor = base.model(
            input_ids=one_placeholder(base, batch.input_ids[packed.row, packed.column][None], self.family),
            position_ids=batch.position_ids[:, packed.row, packed.column][:, None],
            attention_mask=None,
            mm_encoder_outputs=encoder_outputs([features[number] for number in packed.images]),
            use_cache=False,
            trees=packed.trees,
        ).last_hidden_state
        return _Hidden(hidden[0], packed.before, packed.own, packed.ends)

    def _encode(self, batch: Batch) -> tuple[list[ViewFeatures], Tensor | None]:
        """Features of the unique views; without any, a zero that has been through the tower."""
        patches, grids = batch.patches, batch.grids
        if not len(grids):
            patches, grids = (blank.to(batch.device) for blank in blank_image(self.family))
        features = self.encode(patches, grids)
        if len(batch.grids):
            return features, None
        touched = torch.stack([part.sum() for part in (features[0].pooled, *features[0].deepstack)])
        return [], touched.sum() * 0.0


def _states(batch: Batch, found: _Hidden) -> BatchStates:
    sampled = batch.loss_mask[:, 1:].bool()
    first, final = (anchors(batch.loss_mask, batch.turn_index, at)[:, 1:][sampled].bool() for at in ("first", "last"))
    places = found.before[first], found.own[final], found.ends
    return BatchStates(*(found.columns[place].detach().float() for place in places))


def _spread(values: Tensor, sampled: Tensor) -> Tensor:
    """[n] -> [B, T] with 0 elsewhere; ``sampled`` is [B, T - 1], shifted by one."""
    out = values.new_zeros(sampled.shape).masked_scatter(sampled, values)
    return nn.functional.pad(out, (1, 0))
