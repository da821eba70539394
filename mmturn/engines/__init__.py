"""Engines sample completions: ``scripted`` from a function, ``hf`` from a transformers model."""

from __future__ import annotations
