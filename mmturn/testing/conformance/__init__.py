"""Reference vectors put to the package."""
