"""The engines that a run of reinforcement learning samples with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from mmturn.build import Policy
from mmturn.engines.hf import HFEngine
from mmturn.interfaces import Engine
from mmturn.models.copies import take_weights
from mmturn.models.load import LoadedModel
from mmturn.rollout.routing import by_turn
from mmturn.training.settings import CrossPolicyConfig


@dataclass
class Stale:
    """An engine on a copy of the policy that is brought up to date every several updates."""

    engine: HFEngine
    config: CrossPolicyConfig
    say: Callable[[str], None]
    begun: bool = False

    def follow(self, version: int, loaded: LoadedModel, vision_changed: bool) -> None:
        """The policy has reached a version: take its weights, where it is time to."""
        if not self.begun and not self.config.refreshes(version):
            self.say(
                f"rl.cross_policy: the stale copy begins anew, as the policy after update {version}; the next updates "
                "are not those of a run that was never stopped"
            )
        if not self.begun or (self.config.refreshes(version) and version != self.engine.version):
            take_weights(self.engine.loaded, loaded)
            self.engine.set_version(version, vision_changed=vision_changed)
        self.begun = True


class Samplers:
    """An engine on the present weights of a policy and, with ``copied`` (see ``models.copies``), one on that copy, with
    its share of turns. ``engine`` is what drivers talk to, ``present`` that of the present weights alone.

    ``exact``: the run has to repeat to the bit; ``say`` shows a remark in the terminal.
    """

    def __init__(
        self,
        policy: Policy,
        config: CrossPolicyConfig,
        copied: LoadedModel | None,
        *,
        vision_frozen: bool,
        exact: bool,
        say: Callable[[str], None],
    ) -> None:
        # a view's features depend in their last bits on the batch they were encoded in, so a run that has to repeat
        # exactly encodes anew after each update, as a resumed one does
        self._policy, self._vision_changes = policy, exact or not vision_frozen
        self.present = policy.engine()
        self.engine: Engine = self.present
        self._stale: Stale | None = None
        if copied is not None:
            self._stale = Stale(replace(policy, loaded=copied).engine(), config, say)
            if vision_frozen:  # one tower, one set of features
                self._stale.engine.features = self.present.features
            self.engine = by_turn(self.present, self._stale.engine, config.share)

    @property
    def _engines(self) -> list[HFEngine]:
        return [self.present] if self._stale is None else [self.present, self._stale.engine]

    def publish(self, version: int) -> None:
        """The weights are those after update ``version``: let go of what no later update will ask for."""
        self.present.set_version(version, vision_changed=self._vision_changes)
        if self._stale is not None:
            self._stale.follow(version, self._policy.loaded, self._vision_changes)
        self._policy.patches.forget_parts()

    def free(self) -> None:
        """Give back the memory of keys and values."""
        for engine in self._engines:
            engine.free()

    def take_counters(self) -> dict[str, float]:
        """What all of them did since the last call (``HFEngine.take_counters``)."""
        total: Counter[str] = Counter()
        for engine in self._engines:
            total.update(engine.take_counters())  # type: ignore[arg-type]
        return dict(total)
