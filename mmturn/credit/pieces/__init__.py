"""The boxes that a method is put together from: what ``method.shape``, ``credit``, ``normalise`` and ``select`` of a
recipe name. Their keyword arguments are the settings; the formulas are in the modules of ``mmturn.credit``."""
