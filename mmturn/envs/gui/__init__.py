"""Worlds that are seen as screenshots and acted on with a pointer and keys."""
