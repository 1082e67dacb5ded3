"""Questions of a wanted length, in words that the bundled model knows too."""

from __future__ import annotations

from collections.abc import Callable

_FIRST, _MORE, _LAST = "Tom has {} apples.", "Tom buys {} more apples.", "How many apples does Tom have?"


def question(n_tokens: int, variant: int, count: Callable[[str], int]) -> str:
    """The longest problem whose prompt has at most ``n_tokens`` tokens; the shortest one where none has.

    Args:
        n_tokens: tokens of the whole prompt, template included.
        variant: problems of other variants differ in their two-digit numbers alone.
        count: tokens of the prompt of a question.
    """
    least, more = 1, 1
    while count(problem(more, variant)) <= n_tokens and more < n_tokens:
        least, more = more, 2 * more
    while more - least > 1:
        middle = (least + more) // 2
        if count(problem(middle, variant)) <= n_tokens:
            least = middle
        else:
            more = middle
    return problem(least, variant)


def problem(n_sentences: int, variant: int) -> str:
    """A problem of ``n_sentences`` before the one that asks."""
    numbers = [10 + (variant * 7 + i * 13) % 90 for i in range(n_sentences)]
    return " ".join([_FIRST.format(numbers[0]), *[_MORE.format(number) for number in numbers[1:]], _LAST])
