"""Trajectory -> rows -> batch of tensors."""
