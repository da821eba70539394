"""The words of the visual search world: attributes, details and question templates (data only)."""

COLOURS = {
    "red": (222, 40, 40),
    "green": (38, 166, 62),
    "blue": (40, 84, 222),
    "yellow": (240, 214, 36),
    "purple": (146, 52, 186),
    "orange": (246, 140, 26),
}
SHAPES = ("circle", "square", "triangle", "diamond")

NUMBERS = tuple(str(n) for n in range(10))
WORDS = ("cat", "dog", "sun", "box", "key", "map", "cup", "hat", "pen", "bus")
SYMBOLS = ("star", "heart", "moon", "cross", "arrow", "ring", "bolt", "tick")
DETAILS = {"number": NUMBERS, "word": WORDS, "symbol": SYMBOLS}

LEVELS = ("one", "attribute", "two_attributes", "compare", "position")
READING_LEVELS = ("one", "attribute", "two_attributes")

READ_TEMPLATES = (
    "Which {kind} is on {ref}?",
    "What {kind} does {ref} show?",
    "Read the {kind} on {ref}.",
    "Name the {kind} on {ref}.",
)
COMPARE_TEMPLATES = (
    "Which number is larger, the one on {a} or the one on {b}?",
    "Of the numbers on {a} and on {b}, which is larger?",
)
POSITION_TEMPLATES = ("Is {a} {relation} {b}?", "Does {a} lie {relation} {b}?")
# relation -> (phrase in the question, axis 0=x 1=y, sign of a-b for which it holds)
RELATIONS = {
    "left": ("left of", 0, -1),
    "right": ("right of", 0, 1),
    "above": ("above", 1, -1),
    "below": ("below", 1, 1),
}
LETTERS = "ABCD"


def isolated_words() -> tuple[str, ...]:
    """Words that the shipped tokenizer keeps as one token with or without a space before them."""
    words = [*COLOURS, *SHAPES, "marker", *WORDS, *SYMBOLS, *RELATIONS, "yes", "no"]
    return tuple(words)
