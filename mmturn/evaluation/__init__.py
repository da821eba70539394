"""Benchmarks: suites, a runner that resumes, metrics with intervals, and reports."""

from __future__ import annotations

from mmturn.evaluation.metrics import Interval, bootstrap, mcnemar, paired_difference, wilson
from mmturn.evaluation.report import Comparison, EvalReport, compare, group_report, make_report
from mmturn.evaluation.rows import RunInfo, ScoreRow, read_rows, run_info
from mmturn.evaluation.runner import evaluate, rescore
from mmturn.evaluation.streams import StreamScorer, read_verdicts
from mmturn.evaluation.suites import AnswerScorer, Suite

__all__ = [
    "AnswerScorer",
    "Comparison",
    "EvalReport",
    "Interval",
    "RunInfo",
    "ScoreRow",
    "StreamScorer",
    "Suite",
    "bootstrap",
    "compare",
    "evaluate",
    "group_report",
    "make_report",
    "mcnemar",
    "paired_difference",
    "read_rows",
    "read_verdicts",
    "rescore",
    "run_info",
    "wilson",
]
