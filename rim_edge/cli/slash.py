"""The commands of ``chat`` that begin with a slash: one table, from which help and completion are made too."""

from __future__ import annotations

import difflib
import os
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rim_edge.cli import console, options, terminal
from rim_edge.cli.render import readout_table
from rim_edge.errors import RimError
from rim_edge.options import SELECTIONS, check

if TYPE_CHECKING:
    from rim_edge.cli.talk import Talk


class Leave(Exception):
    """The user asked to leave."""


class SlashError(RimError):
    """A slash command that does not exist, or whose argument cannot be used."""


@dataclass(frozen=True)
class Slash:
    """A command: what it takes, the line in ``/help``, what it does, and completions of its argument."""

    argument: str
    help: str
    run: Callable[[Talk, str], None]
    choices: tuple[str, ...] = ()
    path: bool = False


def run(talk: Talk, line: str) -> None:
    """Carry out ``line``, which begins with a slash. Raises RimError with one clear line, or Leave."""
    word, _, argument = line[1:].strip().partition(" ")
    name = word.lower()
    if name not in SLASHES:
        near = difflib.get_close_matches(name, SLASHES, 1)
        hint = f"did you mean /{near[0]}?" if near else "/help lists them"
        raise SlashError(f"there is no command /{word}: {hint}; //{word} sends it as text")
    argument = argument.strip()
    if argument and not SLASHES[name].argument:
        raise SlashError(f"/{name} takes no argument")
    SLASHES[name].run(talk, argument)


def complete(text: str) -> Iterator[tuple[int, str]]:
    """Completions of ``text`` before the cursor, as (start relative to the cursor, text)."""
    if not text.startswith("/") or text.startswith("//") or "\n" in text:
        return
    word, blank, argument = text[1:].partition(" ")
    if not blank:
        for name, slash in SLASHES.items():
            if name.startswith(word.lower()):
                yield -len(text), f"/{name}" + (" " if slash.argument else "")
        return
    found = SLASHES.get(word.lower())
    if found is None:
        return
    for choice in found.choices:
        if choice.startswith(argument.lower()):
            yield -len(argument), choice
    if found.path:
        for path in _paths(argument):
            yield -len(argument), path


def _paths(start: str) -> list[str]:
    folder, name = os.path.split(start)
    try:
        with os.scandir(os.path.expanduser(folder) or ".") as entries:
            found = [
                (e.name, e.is_dir())
                for e in entries
                if e.name.startswith(name) and (name or not e.name.startswith("."))
            ]
    except OSError:
        return []
    return sorted(os.path.join(folder, entry) + (os.sep if is_dir else "") for entry, is_dir in found)


# ---- what they do ---------------------------------------------------------------------------------------------------


def _help(talk: Talk, _: str) -> None:
    rows = [(f"/{name} {slash.argument}".rstrip(), slash.help) for name, slash in SLASHES.items() if slash.help]
    first = max(len(command) for command, _ in rows) + 2
    for command, text in rows:
        _wrapped(f"{command:{first}}{text}", first)
    console.out()
    _wrapped(
        "Enter sends; Alt-Enter or a backslash before Enter begins a new line; Ctrl-C stops an answer; Ctrl-D leaves.",
        0,
    )


def _wrapped(line: str, indent: int) -> None:
    for part in textwrap.wrap(line, max(indent + 20, terminal.columns()), subsequent_indent=" " * indent):
        console.out(part)


def _set(talk: Talk, name: str, value: Any) -> None:
    """Change an option if the model can do it, and say so."""
    check(talk.options | {name: value}, talk.model.spec)
    talk.options[name] = value


def _blocks(talk: Talk, argument: str) -> None:
    if argument:
        try:
            _set(talk, "blocks", options.parse_depth(argument))
        except ValueError as error:
            raise SlashError(str(error)) from None
    value = talk.options["blocks"]
    spec = talk.model.spec
    if value is None:
        value = f"{spec.block_count} (as trained)" if spec is not None else "0 (a plain model)"
    console.remark(f"blocks: {value}", err=False)


def _select(talk: Talk, argument: str) -> None:
    if argument:
        if argument not in SELECTIONS:
            raise SlashError(f"there is no selection {argument!r}: {', '.join(SELECTIONS)}")
        _set(talk, "select", argument)
    console.remark(f"select: {talk.options['select']}", err=False)


def _number(name: str, convert: Callable[[str], Any], expected: str) -> Callable[[Talk, str], None]:
    """A command that shows or sets the option ``name``."""

    def command(talk: Talk, argument: str) -> None:
        label = name.replace("_", "-")
        if argument:
            if argument.lower() in ("none", "default") and name in ("seed", "max_tokens"):
                _set(talk, name, None)
            else:
                try:
                    value = convert(argument)
                except ValueError:
                    raise SlashError(f"{argument!r} is no {label}: give {expected}") from None
                _set(talk, name, value)
        shown = talk.options[name]
        console.remark(f"{label}: {'default' if shown is None else shown}", err=False)

    return command


def _trace(talk: Talk, _: str) -> None:
    answer = talk.chat.last
    if answer is None:
        raise SlashError("/trace shows the readouts of the last answer, and there is no answer yet")
    for line in readout_table(answer, width=terminal.columns()):
        console.out(line)
    if answer.depth == 0:
        console.remark("a direct answer: no memory blocks were run", err=False)
    elif all(r.text is None for r in answer.readouts if r.block != answer.readout):
        console.remark("/readouts on decodes the answer of every readout from the next message on", err=False)


def _readouts(talk: Talk, argument: str) -> None:
    words = {"": not talk.options.get("readouts", False), "on": True, "off": False}
    if argument.lower() not in words:
        raise SlashError(f"/readouts takes on or off, not {argument!r}")
    _set(talk, "readouts", words[argument.lower()])
    console.remark(f"readouts: {'on' if talk.options['readouts'] else 'off'}", err=False)


def _reset(talk: Talk, _: str) -> None:
    talk.chat.reset()
    console.remark("the conversation starts anew", err=False)


def _file(command: str, argument: str) -> str:
    if not argument:
        raise SlashError(f"/{command} needs a file name: /{command} talk.json")
    return os.path.expanduser(argument)


def _save(talk: Talk, argument: str) -> None:
    path = _file("save", argument)
    talk.chat.save(path)
    console.remark(f"saved {console.count(talk.chat.turns, 'turn')} to {path}", err=False)


def _load(talk: Talk, argument: str) -> None:
    path = _file("load", argument)
    talk.chat.load(path)
    console.remark(f"loaded {console.count(talk.chat.turns, 'turn')} from {path}", err=False)


def _regen(talk: Talk, _: str) -> None:
    if not talk.chat.turns:
        raise SlashError("/regen answers the last message again, and there is none yet")
    talk.again()


def _system(talk: Talk, argument: str) -> None:
    if argument:
        talk.chat.system = None if argument.lower() == "none" else argument
    console.remark(f"system: {talk.chat.system or 'none'}", err=False)


def _drop(talk: Talk, argument: str) -> None:
    if argument and not (argument.isascii() and argument.isdigit() and int(argument[:9]) > 0):
        raise SlashError(f"/drop takes a number of turns, not {argument!r}")
    dropped = talk.chat.drop_oldest(int(argument[:9] or 1) if argument else 1)
    console.remark(f"dropped {console.count(dropped, 'turn')}", err=False)


def _exit(talk: Talk, _: str) -> None:
    raise Leave


SLASHES: dict[str, Slash] = {
    "help": Slash("", "this list", _help),
    "blocks": Slash("N|auto", "memory blocks to run; 0 answers directly", _blocks, ("auto",)),
    "select": Slash("NAME", "which readout answers: final, vote, confidence or probe", _select, SELECTIONS),
    "trace": Slash("", "the readouts of the last answer", _trace),
    "readouts": Slash("on|off", "decode the answer of every readout", _readouts, ("on", "off")),
    "system": Slash("TEXT|none", "system message, from the next message on", _system),
    "temp": Slash(
        "T", "sampling temperature; 0 takes the most probable token", _number("temperature", float, "a number from 0")
    ),
    "top-k": Slash("K", "sample among the k best tokens", _number("top_k", int, "a whole number from 0")),
    "top-p": Slash(
        "P", "sample among the best tokens that hold this probability", _number("top_p", float, "a number up to 1")
    ),
    "min-p": Slash(
        "P", "drop tokens below this share of the best one", _number("min_p", float, "a number from 0 to 1")
    ),
    "seed": Slash("N|none", "seed of the sampler", _number("seed", int, "a whole number from 0, or none")),
    "max-tokens": Slash("N|none", "longest answer", _number("max_tokens", int, "a whole number from 1, or none")),
    "regen": Slash("", "answer the last message again", _regen),
    "drop": Slash("N", "forget the oldest N turns", _drop),
    "reset": Slash("", "forget the conversation", _reset),
    "save": Slash("FILE", "write the conversation to a file", _save, path=True),
    "load": Slash("FILE", "go on with a saved conversation", _load, path=True),
    "exit": Slash("", "leave (also Ctrl-D)", _exit),
    "quit": Slash("", "", _exit),
}
