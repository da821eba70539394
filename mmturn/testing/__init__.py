"""Contracts, fakes and tiny models that tests use, here and in users' own projects."""
