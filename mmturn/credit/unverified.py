"""Constants and choices of published methods that no source at hand settles; a run that uses one should say so."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

UNVERIFIED: Mapping[str, str] = MappingProxyType(
    {
        "grpo.kl_coef": "The KL weight of 0.04 in 2402.03300 is quoted from memory.",
        "g_ra.strict": "Whether a reward equal to its threshold passes the gate: notes on 2508.10548 disagree.",
        "g_ra.threshold": "The thresholds and the numeric outcome levels of 2508.10548 are not known.",
        "video_mtr.drop_coef": "2508.20478 does not print the coefficient of a falling IoU; 1 is assumed.",
        "pag.alpha": "The weight of PAG's bonus stands in an appendix of 2506.10406 that was not read.",
        "spiral.update_first": "SPIRAL's repository subtracts the old baseline; the order in 2506.24119 is not known.",
        "mobile_r1.weights": "The weights of Mobile-R1's task-level reward are not known; 1 and 1 are assumed.",
        "reveal.absolute": "How 2506.11442 weighs the pass rate itself is known for a weight of 0 only.",
        "igpo.weights": "The course of IGPO's reward weights between their ends is not known; a line is assumed.",
        "agentrl.max_lag": "The bound of AgentRL's staleness queue (2510.04206) is not known.",
        "agentrl.unfinished": "AgentRL's reward of -0.2 for an unfinished episode comes from second-hand notes.",
        "supo.std": "Standard deviation and eps of SUPO's advantage (2510.06727) come from second-hand notes.",
        "deepminer.trigger": "When exactly DeepMiner's window (2510.08276) slides is our reading.",
    }
)
"""``method.constant`` -> one sentence: what is not verified."""


def notices(method: str) -> list[str]:
    """The lines to print when a run uses ``method``: ``method.constant: sentence``; none for a settled method."""
    return [f"{name}: {what}" for name, what in UNVERIFIED.items() if name.partition(".")[0] == method]
