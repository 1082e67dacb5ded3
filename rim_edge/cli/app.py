"""The command group: which commands there are, and how every failure becomes one line and an exit code.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

from rim_edge.cli import console
from rim_edge.errors import CancelledError, RimError

#: A command is one line here: its name, the module that holds a click command of that name, and its line in ``--help``.
#: The module is imported only when the command is used.
COMMANDS: dict[str, tuple[str, str]] = {
    "chat": ("rim_edge.cli.chat", "Talk to a model."),
    "ask": ("rim_edge.cli.ask", "Answer a question, or many from standard input."),
    "inspect": ("rim_edge.cli.inspect", "Show what a model file holds and what it will need, before loading it."),
    "eval": ("rim_edge.cli.eval", "Measure accuracy and time on questions with known answers."),
    "bench": ("rim_edge.cli.bench", "Measure how long a model takes, against what this machine could do."),
    "convert": ("rim_edge.cli.convert", "Turn a Hugging Face folder into a model file."),
    "quantize": ("rim_edge.cli.quantize", "Find the quantization to ship: quality and speed of each type."),
}


class CommandGroup(click.Group):
    """A click group that imports a command when it is used, and turns errors into one line on standard error."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(COMMANDS[cmd_name][0]), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            known = ", ".join(COMMANDS)
            raise click.UsageError(f"there is no command {console.clean(args[0])!r}; the commands are {known}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def main(  # type: ignore[override]
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Like ``click.Group.main``; with ``standalone_mode`` it always leaves through ``SystemExit``."""
        if not standalone_mode:
            return super().main(args, prog_name, standalone_mode=False, **extra)
        console.prepare_streams()
        try:
            code = super().main(args, prog_name, standalone_mode=False, **extra)
            sys.stdout.flush()
            sys.exit(code if isinstance(code, int) else 0)
        except click.UsageError as error:
            error.show()
            sys.exit(2)
        except click.ClickException as error:
            _fail(error.format_message(), 1)
        except (KeyboardInterrupt, click.Abort):
            _fail("interrupted", 130)
        except CancelledError:
            _fail("interrupted", 130)
        except RimError as error:
            _debug()
            _fail(error, error.exit_code)
        except MemoryError:
            _debug()
            _fail("not enough memory: use a smaller model, a smaller --ctx or --cache-type q8_0", 1)
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader of a pipe left (`| head`): nobody is there to be told
                _discard_stdout()
                sys.exit(1)
            _debug()
            _fail(error, 1)
        except Exception as error:  # a defect of ours: still one line, the traceback on request
            _debug()
            _fail(f"{type(error).__name__}: {error} (a defect in rim-edge; RIM_EDGE_DEBUG=1 shows where)", 1)


def _debug() -> None:
    if os.environ.get("RIM_EDGE_DEBUG"):
        import traceback

        traceback.print_exc()


def _fail(message: str | Exception, code: int) -> NoReturn:
    with contextlib.suppress(OSError):
        console.error(message)
    sys.exit(code)


def _discard_stdout() -> None:
    """Point standard output at nothing, so that the flush at exit cannot fail again."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):
        pass


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from importlib.metadata import PackageNotFoundError, version

    def of(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "not installed"

    console.out(
        f"rim-edge {of('rim-edge')} (llama-cpp-python {of('llama-cpp-python')}, Python {sys.version.split()[0]})"
    )
    ctx.exit()


@click.group(
    "rim-edge",
    cls=CommandGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog='Example: rim-edge ask "Tom has 5 apples. He buys 3 more. How many apples does Tom have now?"',
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Show versions and exit.",
)
def cli() -> None:
    """Run language models that reason in memory: quantized, on this machine.

    MODEL is a GGUF file; without one the bundled rim-tiny answers.
    """


def command_names() -> Sequence[str]:
    """The names of all commands, in the order of the help."""
    return tuple(COMMANDS)
