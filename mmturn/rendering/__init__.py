"""Observation -> token ids, with the provenance of each."""
