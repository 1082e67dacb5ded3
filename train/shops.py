"""Prices, some by relation, and what somebody buys. Standard library only."""

from __future__ import annotations

import random

from train.lexicon import ITEMS, MALE, NAMES
from train.problems import Draw, Operand, Problem, Ref, Rejected, needed
from train.telling import TIMES_WORDS, Fact, distinct, plain, sentence


def _article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def shop(rng: random.Random, n_steps: int, max_value: int) -> Problem:
    """Prices, some stated by relation, in any order; then what somebody buys and is asked for."""
    draw = Draw(rng, max_value)
    goods = rng.sample(ITEMS, 6)
    name = rng.choice(NAMES)
    pronoun = rng.choice((name, "he" if name in MALE else "she"))
    left_question = n_steps >= 2 and rng.random() < 0.4
    two = n_steps - left_question >= 3 and rng.random() < 0.5
    n_relations = n_steps - left_question - (3 if two else 1)

    price: list[tuple[tuple[str, str], Operand]] = []
    facts: list[Fact] = []

    def tell(template: str, record: Draw, cost: Operand, needs: tuple[str, ...] = (), **fields: str | int) -> None:
        item = goods.pop()
        price.append((item, cost))
        text = sentence(template, a=_article(item[0]), **fields)
        facts.append(Fact(text, record.value(cost), record.depth(cost), item[0], needs))

    def relate(previous: tuple[tuple[str, str], Operand], record: Draw) -> None:
        (base, _), source = previous
        one, b, needs = goods[-1][0], _article(base), (base,)
        kind = rng.choice(("more", "less", "times", "half"))
        if kind == "half" and record.value(source) % 2 == 0:
            return tell("{a} costs half as much as {b}.", record, record.apply("/", source, 2, one), needs, b=b)
        if kind == "times":
            factor = rng.randint(2, 3)
            cost, words = record.apply("*", source, factor, one), rng.choice(TIMES_WORDS[factor])
            return tell("{a} costs {n} as much as {b}.", record, cost, needs, n=words, b=b)
        if kind == "half" or record.value(source) < 4:
            kind = "more"
        number = draw.number() if kind == "more" else record.below(source)
        cost = record.apply("+" if kind == "more" else "-", source, number, one)
        return tell("{a} costs {n} dollars {kind} than {b}.", record, cost, needs, n=number, kind=kind, b=b)

    start = draw.number(2, 12)
    tell("{a} costs {n} dollars.", draw, start, n=start)
    for _ in range(n_relations):
        relate(price[-1], draw)
    count = draw.number(2, 6)
    main = price[-1]
    basket = [(main, count)]
    if two:
        if len(price) == 1:
            second = draw.number(2, 12)
            tell("{a} costs {n} dollars.", draw, second, n=second)
            basket.append((price[1], draw.number(2, 4)))
        else:
            basket.append((price[rng.randrange(len(price) - 1)], draw.number(2, 4)))
    paid = _pay(draw, basket)
    side = draw.copy()
    if rng.random() < 0.4:
        relate(price[n_relations], side)
    rng.shuffle(facts)
    money = 0
    if left_question:
        if draw.value(paid) >= max_value:
            raise Rejected
        money = rng.randint(draw.value(paid) + 1, max_value)
        draw.apply("-", money, paid)
        facts.insert(rng.choice((0, len(facts))), Fact(f"{name} has {money} dollars."))
    told = plain(facts)
    endings = (f"How much does {pronoun} pay?", f"How many dollars does {pronoun} pay?")

    def buys(basket: Basket, asks_left: bool) -> str:
        things = " and ".join(f"{number} {item[1]}" for (item, _), number in basket)
        if asks_left:
            return f"{name} buys {things}. How {rng.choice(('many dollars', 'much'))} does {pronoun} have left?"
        if rng.random() < 0.25:
            return rng.choice(COST_QUESTIONS).format(things=things)
        return f"{name} buys {things}. {rng.choice(endings)}"

    asked = buys(basket, left_question)
    others = []
    for entry in price:
        more = side.copy()
        other = [(entry, rng.randint(2, 6))]
        try:
            quantity = _pay(more, other)
            asks_left = money > more.value(quantity) and rng.random() < 0.5
            if asks_left:
                quantity = more.apply("-", money, quantity)
        except Rejected:
            continue
        others.append(told.ask(buys(other, asks_left), needed(more.operations, quantity), "shop"))
    return told.ask(asked, tuple(draw.operations), "shop", distinct(asked, others))


COST_QUESTIONS = (
    "How much do {things} cost?",
    "How many dollars do {things} cost?",
    "How much do {things} cost in total?",
)

Basket = list[tuple[tuple[tuple[str, str], Operand], int]]
"""What is bought: (item, its price) and how many of it."""


def _pay(draw: Draw, basket: Basket) -> Ref:
    """The price of a basket."""
    total: Ref | None = None
    for (_, price), number in basket:
        part = draw.apply("*", price, number)
        total = part if total is None else draw.apply("+", total, part)
    assert total is not None
    return total
