"""``rim-edge chat``: talk to a model in the terminal."""

from __future__ import annotations

import os
from typing import Any

import click

from rim_edge.cli import console, options, slash
from rim_edge.cli.editor import Editor, open_editor
from rim_edge.cli.loading import open_model
from rim_edge.cli.prefill import Prefiller
from rim_edge.cli.talk import Talk
from rim_edge.errors import RimError
from rim_edge.options import check


@click.command(
    epilog="""\b
Examples:
  rim-edge chat
  rim-edge chat model.gguf --temp 0.7 --system "Answer in one sentence."
  printf 'Tom has 5 apples.\\n/exit\\n' | rim-edge chat"""
)
@click.argument("model", required=False)
@options.rim_options
@options.sampling_options
@options.model_options
def chat(model: str | None, system: str | None, **rest: Any) -> int:
    """Talk to MODEL, a GGUF file; without it the bundled rim-tiny answers.

    Enter sends; Alt-Enter, or a backslash before Enter, begins a new line. Ctrl-C stops an answer and keeps what is
    there; Ctrl-D or /exit leaves; /help lists the commands. Without a terminal each line of standard input is a
    message.
    """
    keywords = options.generation(rest) | {"readouts": False}
    with open_model(model, options.loading(rest)) as loaded:
        check(keywords, loaded.spec)  # before the first message, not after it
        with loaded.chat(system=system) as conversation:
            talk = Talk(loaded, conversation, keywords)
            prefiller = Prefiller(conversation)
            try:
                editor = open_editor(prefiller.changed)
                talk.editor = editor
                if editor.interactive:
                    talk.prefiller = prefiller
                    _welcome(talk)
                for notice in loaded.notices:
                    console.remark(f"Note: {notice}")
                return _loop(talk, editor)
            finally:
                prefiller.close()


def _welcome(talk: Talk) -> None:
    spec = talk.model.spec
    blocks = f"{spec.block_count} memory blocks" if spec is not None else "answers directly"
    name = os.path.basename(talk.model.info.path)
    console.remark(f"{name} · {blocks} · context {talk.model.n_ctx} tokens · /help", err=False)


def _loop(talk: Talk, editor: Editor) -> int:
    """Answer until the user leaves. Returns the exit code: 1 where a message of a script could not be answered."""
    code = 0
    while True:
        try:
            text = editor.read()
        except KeyboardInterrupt:
            if not editor.interactive:
                raise
            continue
        except EOFError:
            return code
        try:
            if not text.strip():
                continue
            if text.startswith("/") and not text.startswith("//"):
                slash.run(talk, text)
            else:
                talk.say(text[1:] if text.startswith("//") else text)
        except slash.Leave:
            return code
        except KeyboardInterrupt:
            if not editor.interactive:
                raise
        except (RimError, OSError) as error:
            if isinstance(error, BrokenPipeError):
                raise
            console.error(error)
            code = 0 if editor.interactive else 1
