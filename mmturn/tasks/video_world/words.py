"""The words of the video world: kinds of events and question templates (data only)."""

LEVELS = ("moment", "cue", "order", "count", "change", "detail")
"""moment: a sign shown for half a second; cue: a marker stays for a while and bears a sign for a moment; order: which
of two markers flashes first; count: how many markers flash; change: a marker takes another colour for half a second;
detail: a sign too small to be read in a frame."""

TEMPLATES = {
    "moment": ("Which {kind} is there at about {at} s?", "What {kind} is shown at about {at} s?"),
    "cue": ("Which {kind} is on the {name}?", "What {kind} does the {name} show?"),
    "order": ("Which is first at about {at} s, the {a} or the {b}?",),
    "count": ("How many {shape}s are there at about {at} s?",),
    "change": ("What colour is the {shape} for a moment at about {at} s?",),
    "detail": ("What {kind} does the {name} show at about {at} s?", "Read the {kind} on the {name} at about {at} s."),
}
