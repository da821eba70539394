"""Environments: worlds that show observations and carry out actions."""
