"""What a recipe will take, before any weight is loaded: memory and seconds of an update, what binds, what to change.

Nothing here imports torch but ``probe``, which runs as a process of its own.
"""
