"""Tasks of GUI environments."""
