"""Rewards of a group -> advantages. Pure: Python numbers in, Python numbers out."""
