"""Streaming Markdown: every character once, in order, styled but never redrawn, wrapped between words."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rim_edge.cli.console import clean, text_width
from rim_edge.cli.markdown import MarkdownStream

STYLE = re.compile(r"\x1b\[[0-9;]*m")
TEXT = """# A *title*

Some **bold words**, `code **not bold**`, snake_case_name and 2 * 3 * 4, in a line to be wrapped between words 漢字かな
- an item that is long enough to be wrapped and then goes on below its own text

```python
def f(x):  # code is left as it is, however long the line may become in the end
    return x ** 2
```
> a quotation
Unclosed **bold
next line"""


def stream(pieces: list[str], width: int = 40) -> str:
    printed: list[str] = []
    view = MarkdownStream(printed.append, lambda: width)
    for piece in pieces:
        view.feed(piece)
    view.close()
    return "".join(printed)


def shown(text: str) -> str:
    return STYLE.sub("", text)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_pieces_of_any_size_look_the_same(size: int) -> None:
    assert stream([TEXT[i : i + size] for i in range(0, len(TEXT), size)]) == stream([TEXT])


def test_prose_is_wrapped_and_code_is_not() -> None:
    lines = shown(stream([TEXT])).splitlines()
    code = [line for line in lines if "code is left" in line]
    assert code == ["def f(x):  # code is left as it is, however long the line may become in the end"]
    assert all(text_width(line) <= 40 for line in lines if line not in code)
    assert "  to be wrapped and then goes on below its" in lines or any(line.startswith("  ") for line in lines)


def test_styles_end_with_their_line() -> None:
    text = stream(["**open\nnext"])
    assert text == "\x1b[1m**open\x1b[0m\nnext\n"


def test_what_is_styled() -> None:
    assert stream(["# T"]) == "\x1b[1m# T\x1b[0m\n"
    assert stream(["a **b** c"]) == "a \x1b[1m**b**\x1b[0m c\n"
    assert stream(["a *b* c"]) == "a \x1b[3m*b*\x1b[0m c\n"
    assert stream(["a `b*c*` d"]) == "a \x1b[36m`b*c*`\x1b[0m d\n"
    assert stream(["- x"]) == "\x1b[2m-\x1b[0m x\n"
    assert stream(["a_b_c 2 * 3 * 4"]) == "a_b_c 2 * 3 * 4\n"


@given(st.lists(st.text(max_size=30), max_size=8), st.integers(1, 60))
def test_nothing_is_lost_and_no_control_character_passes(pieces: list[str], width: int) -> None:
    text = shown(stream(pieces, width))
    everything = clean("".join(clean(piece) for piece in pieces))
    assert re.sub(r"\s", "", text) == re.sub(r"\s", "", everything)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)


def test_without_style_the_text_is_only_cleaned() -> None:
    printed: list[str] = []
    view = MarkdownStream(printed.append, lambda: 10, styled=False)
    view.feed("**a** long line of words\x1b[31m")
    view.close()
    assert "".join(printed) == "**a** long line of words[31m\n"
