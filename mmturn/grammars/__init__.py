"""Grammars: text <-> actions, and the words around observations."""
