"""Dialects: published ways to write the canonical actions of ``mmturn.gui_actions``, one grammar per file."""
