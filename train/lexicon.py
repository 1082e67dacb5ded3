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

# Every other word that the templates of train/ use: no word is known to the vocabulary that was never trained.
_FUNCTION_WORDS = """
    a an and all among are as away box buys by costs do does dollars each equally fewer finds friend friends from get
    gets gives half has have he holds hold in into is it left less loses many more much now of old older owns own pay
    puts sells she shares than the times to together twice with years younger kilometers walks walk collects collect
    plus minus divided result far end did cost another total altogether half
    picks makes takes uses drops eats lost had bought found got gave sold shared put picked made took used dropped ate
"""
_CAPITALISED = """
    Add Subtract Multiply Divide Double Halve Start Take A An He How She The Then What
"""

# Present to past, for stories that are told in the past.
PAST: dict[str, str] = {
    "has": "had", "buys": "bought", "finds": "found", "gets": "got", "gives": "gave", "loses": "lost", "sells": "sold",
    "shares": "shared", "puts": "put", "picks": "picked", "makes": "made", "takes": "took", "uses": "used",
    "drops": "dropped", "eats": "ate",
}  # fmt: skip
VERBS: tuple[str, ...] = ("owns", "collects", "holds", "is", "walks", "costs")  # the other verbs of facts
FOOD: frozenset[str] = frozenset(
    ("apples", "pears", "plums", "eggs", "cookies", "cakes", "lemons", "oranges", "bananas", "nuts")
)


def words() -> list[str]:
    """Every word of the language, without duplicates, in a fixed order."""
    plain = [form for pair in ITEMS + CONTAINERS for form in pair]
    return list(dict.fromkeys((*NAMES, *plain, *COLOURS, *_FUNCTION_WORDS.split(), *_CAPITALISED.split())))
