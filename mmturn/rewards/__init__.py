"""Rewards: functions of a recorded trajectory, and the rubric that combines them."""
