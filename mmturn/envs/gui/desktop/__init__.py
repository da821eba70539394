"""A desktop as a world: a virtual X display with a window manager and applications."""
