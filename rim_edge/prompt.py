"""From a conversation to visible tokens, such that what a user types never becomes a control token.

A control text (``<|im_end|>``, ``<|rim_begin|>``, ...) inside a message is broken with a sentinel, a private-use
character that occurs nowhere else; the template renders; the rendered text is split at the control texts that are still
whole, which only the template can have written; the stretches between lose their sentinels and are tokenized with
special tokens off.

Which template: the model's chat template; without one ``rim.prompt_template``, which knows one ``question``, so that
each turn stands alone; without either the plain text, turns separated by a line break.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING

from rim_edge.backends.base import Tokenizer
from rim_edge.control import ControlTexts
from rim_edge.errors import OptionError, TemplateError
from rim_edge.results import Message
from rim_edge.spec import RimSpec

if TYPE_CHECKING:  # jinja2 is imported when the first template is rendered
    from rim_edge.template import Template

_REMEMBERED = 512  # messages, and stretches of text with their tokens
#: what templates of reasoning models call their switch; off, because blocks take the place of written thinking
_NO_THINKING = {"enable_thinking": False, "thinking": False}


@dataclass(frozen=True)
class Prompt:
    """Visible tokens, up to and with the generation prompt, and remarks for the user."""

    tokens: list[int]
    notices: tuple[str, ...] = ()


class PromptBuilder:
    """Renders and tokenizes conversations for one model. Safe to share between threads.

    Args:
        tokenizer: of the model.
        spec: its memory-slot metadata, or None.
    """

    def __init__(self, tokenizer: Tokenizer, spec: RimSpec | None) -> None:
        self._tokenizer = tokenizer
        self._chat_template = tokenizer.chat_template
        self._question_template = spec.prompt_template if spec else None
        self._controls = ControlTexts(tokenizer.control_texts)
        self._strips: dict[str, tuple[bool, bool]] = {}
        self._compiled: dict[str, Template] = {}
        # A conversation is rendered again at every turn, and five times while typing: most of it is as it was.
        self._shielded = lru_cache(_REMEMBERED)(self._controls.shield)
        self._known = lru_cache(_REMEMBERED)(lambda text: tuple(tokenizer.tokenize(text)))

    @property
    def turns_stand_alone(self) -> bool:
        """Whether a prompt holds the last question only, not the conversation."""
        return not self._chat_template and bool(self._question_template)

    def question(self, question: str, system: str | None) -> Prompt:
        """The prompt of a single question."""
        head = [Message("system", system)] if system else []
        return self.conversation([*head, Message("user", question)])

    def conversation(self, messages: Sequence[Message]) -> Prompt:
        """The prompt of a conversation whose last message is the user's.

        Raises:
            TemplateError: the template cannot be rendered.
            OptionError: there is not a single token to start from.
        """
        clean = [Message(message.role, _valid(message.content)) for message in messages]
        sentinel = _unused_character(clean, self._chat_template or self._question_template or "")
        shielded = [Message(message.role, self._shielded(message.content, sentinel)) for message in clean]
        text, notices = self._render(shielded)
        tokens = self._tokenize(text, sentinel)
        if self._tokenizer.add_bos and self._tokenizer.bos_id >= 0 and tokens[:1] != [self._tokenizer.bos_id]:
            tokens.insert(0, self._tokenizer.bos_id)
        if not tokens:
            raise OptionError("the question is empty: ask something")
        return Prompt(tokens, notices)

    def sure_prefix(self, messages: Sequence[Message]) -> list[int]:
        """Tokens that stay the same however the last message goes on: what can be evaluated while the user types."""
        last = messages[-1]
        variants = [
            self.conversation([*messages[:-1], Message(last.role, last.content + more)]).tokens
            for more in ("", "x", " x", "\n0", ".")
        ]
        shared = 0
        while all(shared < len(tokens) and tokens[shared] == variants[0][shared] for tokens in variants):
            shared += 1
        return variants[0][:shared]

    # ---- rendering --------------------------------------------------------------------------------------------------

    def _render(self, messages: Sequence[Message]) -> tuple[str, tuple[str, ...]]:
        if self._chat_template:
            try:
                return self._render_chat(messages), ()
            except TemplateError:
                if messages[0].role != "system" or len(messages) < 2:
                    raise
            # Some templates (gemma) refuse a system prompt: it then opens the first message of the user.
            first = Message("user", f"{messages[0].content}\n\n{messages[1].content}")
            return self._render_chat([first, *messages[2:]]), ()
        if self._question_template:
            system = any(message.role == "system" for message in messages)
            notices = ("this model's prompt holds the question only: the system prompt is left out",) if system else ()
            return self._template(self._question_template, "rim.prompt_template").render(
                {"question": messages[-1].content}
            ), notices
        return "\n".join(message.content for message in messages), ()

    def _render_chat(self, messages: Sequence[Message]) -> str:
        tokenizer = self._tokenizer
        assert self._chat_template is not None
        variables = {
            "messages": [{"role": message.role, "content": message.content} for message in messages],
            "add_generation_prompt": True,
            "bos_token": tokenizer.token_text(tokenizer.bos_id) if tokenizer.bos_id >= 0 else "",
            "eos_token": tokenizer.token_text(tokenizer.eos_id) if tokenizer.eos_id >= 0 else "",
            "tools": None,
            "documents": None,
            **_NO_THINKING,
        }
        return self._template(self._chat_template, "chat template").render(variables)

    def _template(self, source: str, name: str) -> Template:
        if name not in self._compiled:
            from rim_edge.template import Template

            self._compiled[name] = Template(source, name)
        return self._compiled[name]

    # ---- tokenizing ----------------------------------------------------------------------------------------------

    def _tokenize(self, text: str, sentinel: str) -> list[int]:
        tokens: list[int] = []
        strip_left = False
        for plain, control in self._controls.split(text):
            strip_right, next_strip_left = self._strips_around(control) if control else (False, False)
            tokens += self._plain(plain, sentinel, strip_left, strip_right)
            if control:
                tokens.append(self._controls.ids[control])
            strip_left = next_strip_left
        return tokens

    def _plain(self, text: str, sentinel: str, strip_left: bool, strip_right: bool) -> list[int]:
        text = text.lstrip() if strip_left else text
        text = (text.rstrip() if strip_right else text).replace(sentinel, "")
        return list(self._known(text)) if text else []

    def _strips_around(self, control: str) -> tuple[bool, bool]:
        """Whether the vocabulary lets this control token swallow white space before and after it (Phi-3 does)."""
        if control not in self._strips:
            tokenizer, token = self._tokenizer, self._controls.ids[control]
            after, before = f"{control}\nx", f"x\n{control}"
            self._strips[control] = (
                tokenizer.tokenize(before, True)
                == [*tokenizer.tokenize("x"), token]
                != [*tokenizer.tokenize("x\n"), token],
                tokenizer.tokenize(after, True)
                == [token, *tokenizer.tokenize("x")]
                != [token, *tokenizer.tokenize("\nx")],
            )
        return self._strips[control]


def _valid(text: str) -> str:
    """``text`` as valid Unicode: a lone surrogate (undecodable input) becomes U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _unused_character(messages: Sequence[Message], template: str) -> str:
    """A private-use character that occurs neither in a message nor in the template."""
    used = set(template).union(*(message.content for message in messages))
    return next(chr(code) for code in chain(range(0xE000, 0xF900), range(0xF0000, 0xFFFFE)) if chr(code) not in used)
