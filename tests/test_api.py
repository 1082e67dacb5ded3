"""The public face of the package, and its page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import rim_edge
from rim_edge.options import SELECTIONS, Options

PAGE = Path(__file__).resolve().parents[1] / "docs" / "python.md"


def test_every_public_name_exists_and_is_documented() -> None:
    for name in rim_edge.__all__:
        assert name == "__version__" or getattr(rim_edge, name).__doc__, name


def test_every_error_is_a_rim_error_with_an_exit_code() -> None:
    for name in rim_edge.__all__:
        if name.endswith("Error"):
            error = getattr(rim_edge, name)
            assert issubclass(error, rim_edge.RimError) and error.exit_code in (1, 2, 130)


def test_the_page_names_every_option_selection_and_error() -> None:
    page = PAGE.read_text()
    names = [*Options.__annotations__, *SELECTIONS, *(name for name in rim_edge.__all__ if name.endswith("Error"))]
    assert [name for name in names if f"`{name}`" not in page] == []


def test_the_page_can_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) >= 7
    exec(compile("\n".join(blocks), str(PAGE), "exec"), {})
    assert (tmp_path / "talk.json").exists()
