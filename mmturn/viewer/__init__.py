"""Trajectories and runs as self-contained pages."""

from __future__ import annotations

from mmturn.viewer.content import Decode, Section, labelled, pair_up
from mmturn.viewer.page import view, write_page
from mmturn.viewer.report import Baseline, Costs, Curve, RunReport, Stage, StageSeconds, Work, write_report
from mmturn.viewer.serve import make_server, serve

__all__ = [
    "Baseline",
    "Costs",
    "Curve",
    "Decode",
    "RunReport",
    "Section",
    "Stage",
    "StageSeconds",
    "Work",
    "labelled",
    "make_server",
    "pair_up",
    "serve",
    "view",
    "write_page",
    "write_report",
]
