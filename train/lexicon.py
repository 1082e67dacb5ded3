"""The words of the problem language: names, items and every other word that a problem may contain.

Standard library only. Every word listed here is one token of the vocabulary (see ``train/tokenizer.py``).
"""

MALE: tuple[str, ...] = (
    "Tom", "Ben", "Max", "Sam", "Leo", "Jack", "Paul", "Adam", "Eric", "Hugo", "Ivan", "Omar", "Finn", "Noah",
    "Luke", "Carl", "David", "Peter", "John", "Mark",
)  # fmt: skip
FEMALE: tuple[str, ...] = (
    "Ann", "Eva", "Mia", "Zoe", "Lily", "Emma", "Sara", "Nina", "Rosa", "Ella", "Maria", "Lucy", "Julia", "Clara",
    "Alice", "Grace", "Nora", "Iris", "Jane", "Kate",
)  # fmt: skip
NAMES: tuple[str, ...] = MALE + FEMALE

# (singular, plural): things that a person can have, buy, find or give away.
ITEMS: tuple[tuple[str, str], ...] = (
    ("apple", "apples"), ("pear", "pears"), ("plum", "plums"), ("egg", "eggs"), ("cookie", "cookies"),
    ("pen", "pens"), ("book", "books"), ("coin", "coins"), ("card", "cards"), ("marble", "marbles"),
    ("stamp", "stamps"), ("shell", "shells"), ("toy", "toys"), ("ball", "balls"), ("cup", "cups"),
    ("hat", "hats"), ("rose", "roses"), ("stone", "stones"), ("sticker", "stickers"), ("cake", "cakes"),
    ("lemon", "lemons"), ("orange", "oranges"), ("banana", "bananas"), ("pencil", "pencils"), ("candle", "candles"),
    ("button", "buttons"), ("bead", "beads"), ("ticket", "tickets"), ("flower", "flowers"), ("nut", "nuts"),
)  # fmt: skip

CONTAINERS: tuple[tuple[str, str], ...] = (("box", "boxes"), ("bag", "bags"), ("basket", "baskets"), ("jar", "jars"))
COLOURS: tuple[str, ...] = ("red", "blue", "green", "white", "black", "yellow", "brown", "pink")

# Everything else that the templates of train/kinds.py use, and close relatives that users type.
_FUNCTION_WORDS = """
    a an and all also among are as at away back be before both box buys buy bought by cost costs day did do does
    dollar dollars double each eats eat equally every fewer finds find found first for friend friends from gave get
    gets give gives got had half has have he her his holds hold how if in into is it left less lose loses lost makes
    make many more much need needs new now of old older on one only other out owns own paid pay pays per picks pick
    puts put same sell sells she share shares so sold some spend spends than that the their them then there these
    they this three three times to together total twice two up was were what which who with would year years younger
    how in kilometers runs run walks walk kilometer farther long longer shorter meters meter tall taller weighs
    weigh kilograms kilogram heavier lighter altogether will cut collects collect receives receive plus minus
    divided sum product number numbers result add subtract multiply divide double halve start after far end today
    morning evening later again takes take throws throw uses use keeps keep difference between
"""
_CAPITALISED = """
    Add Subtract Multiply Divide Double Halve Start A An And After All Altogether At Before Each Every First Four He
    Her His How If In It Later Now One She So The Then There They This Today Two What Which Who
"""


def words() -> list[str]:
    """Every word of the language, without duplicates, in a fixed order."""
    plain = [form for pair in ITEMS + CONTAINERS for form in pair]
    return list(dict.fromkeys((*NAMES, *plain, *COLOURS, *_FUNCTION_WORDS.split(), *_CAPITALISED.split())))
