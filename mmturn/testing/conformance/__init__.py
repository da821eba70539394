"""Reference vectors against the library: ``python -m mmturn.testing.conformance rl FILE.json``.

A file holds vectors: inputs and parameters of a published method, and what must come back, key by key. Each is run
through the library's own functions by the adapter of its id.
"""
