"""Rendering of chat and prompt templates, which come from untrusted files: a sandbox with limits of time and size."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Mapping
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rim_edge.errors import TemplateError

TIME_LIMIT_S = 5.0
SIZE_LIMIT = 16 << 20  # characters
_PRODUCT_LIMIT = 1 << 20  # of text or list multiplied by a number; and the greatest exponent of **


class _Generation(Extension):
    """``{% generation %}...{% endgeneration %}``, which marks the assistant's text for training: here only its body."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 declares an instance variable)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, in which loops and macros look at the clock, and ``*`` and ``**`` cannot make giants."""

    intercepted_binops = frozenset({"*", "**"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation], autoescape=False)
        self.deadline = 0.0
        self.filters["tojson"] = _tojson
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now

    def tick(self) -> str:
        """Called by every round of a loop and by every macro."""
        if time.monotonic() > self.deadline:
            raise TemplateError(f"takes longer than {TIME_LIMIT_S:g} s to render")
        return ""

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and (abs(right) > 64 or abs(left) > 1 << 32):
            raise TemplateError(f"the power {left} ** {right} is too large")
        for many, times in ((left, right), (right, left)):
            if (
                isinstance(many, (str, bytes, list, tuple))
                and isinstance(times, int)
                and len(many) * times > _PRODUCT_LIMIT
            ):
                raise TemplateError(f"a text or list is repeated {times} times")
        return super().call_binop(context, operator, left, right)


class Template:
    """A compiled template.

    Args:
        source: Jinja text.
        name: what it is, for messages: ``chat template`` or ``rim.prompt_template``.

    Raises:
        TemplateError: not a valid template.
    """

    def __init__(self, source: str, name: str) -> None:
        self._name = name
        self._environment = _Environment()
        try:
            tree = self._environment.parse(source)
            for loop in list(tree.find_all(nodes.For)):
                loop.body.insert(0, _tick_node(loop.lineno))
            for macro in list(tree.find_all(nodes.Macro)):
                macro.body.insert(0, _tick_node(macro.lineno))
            tree.set_environment(self._environment)
            code = self._environment.compile(tree)
            self._template = jinja2.Template.from_code(self._environment, code, self._environment.make_globals(None))
        except jinja2.TemplateError as error:
            raise TemplateError(f"the {name} of this model is not valid Jinja: {_one_line(error)}") from None
        except (RecursionError, MemoryError, ValueError, SyntaxError) as error:
            raise TemplateError(f"the {name} of this model cannot be compiled: {type(error).__name__}") from None

    def render(self, variables: Mapping[str, Any]) -> str:
        """The text that the template makes of ``variables``.

        Raises:
            TemplateError: the template refuses, fails, or takes too long.
        """
        self._environment.deadline = time.monotonic() + TIME_LIMIT_S
        pieces: list[str] = []
        size = 0
        try:
            for piece in self._template.generate(**variables):
                self._environment.tick()
                pieces.append(piece)
                size += len(piece)
                if size > SIZE_LIMIT:
                    raise TemplateError(f"renders more than {SIZE_LIMIT} characters")
        except TemplateError as error:
            raise TemplateError(f"the {self._name} of this model {_one_line(error)}") from None
        except Exception as error:  # whatever an untrusted template provokes
            raise TemplateError(f"the {self._name} of this model failed: {_one_line(error)}") from None
        return "".join(pieces)


def _tick_node(line: int) -> nodes.Node:
    call = nodes.Call(nodes.EnvironmentAttribute("tick"), [], [], None, None)
    return nodes.ExprStmt(call).set_lineno(line)


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **_: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _raise_exception(message: str) -> None:
    raise TemplateError(f"refuses: {message}")


def _strftime_now(pattern: str) -> str:
    return datetime.datetime.now().strftime(pattern)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
