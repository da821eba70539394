"""Tools: each carries out one kind of action on an image and shows what came of it."""
