"""What the tests of answers share: options under which libllama computes alike in every split, and a reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rim_edge import Chat, _native
from tests.shapes import BEGIN_TEXT, END_OF_TEXT, TOKENS, TURN_END, TURN_START, default_spec, make_model, token_id

EXACT: dict[str, Any] = {"cache_type": "f32", "flash_attention": "off", "n_threads": 1}
WORDS = "Tom has 2 apples and how many"
FIRST, SECOND = WORDS, "and the apples"
QUESTIONS = [f"Tom has {n} apples and {n * 7} the many" * (1 + n % 3) for n in range(11)]


def rendered(*messages: tuple[str, str]) -> str:
    """What CHAT_TEMPLATE of tests/shapes.py makes of (role, text) messages."""
    return "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in messages) + "<|im_start|>assistant\n"


def contents(chat: Chat) -> list[tuple[str, str]]:
    """The messages of a chat as (role, text)."""
    return [(message.role, message.content) for message in chat.messages]


def make_endless_model(path: Path) -> Path:
    """A model with blocks and a chat template that never ends an answer by itself: its end tokens cannot be drawn."""
    names = {
        END_OF_TEXT: "<|no_end|>",
        TURN_START: "<|turn|>",
        TURN_END: "<|no_turn|>",
    }
    memory_token = token_id(BEGIN_TEXT)
    return make_model(
        path,
        n_ctx=16384,
        spec=default_spec(trained_direct=True),
        chat_template="{% for m in messages %}<|turn|>{{ m.role }}\n{{ m.content }}\n{% endfor %}<|turn|>assistant\n",
        metadata={
            "tokenizer.ggml.tokens": [names.get(token, token) for token in TOKENS],
            "tokenizer.ggml.eos_token_id": memory_token,
            "tokenizer.ggml.bos_token_id": memory_token,
        },
    )


def greedy(path: Path, tokens: list[int], n: int) -> list[int]:
    """The first ``n`` greedy tokens after ``tokens``, by plain single-sequence passes; memory tokens left out."""
    native = _native.Model(str(path))
    options = _native.SessionOptions(n_ctx=1024, cache_type="f32", flash_attention="off", n_threads=1)
    controls = set(native.control_ids)
    answer: list[int] = []
    while len(answer) < n:
        logits = _native.batch_logits(native, tokens + answer, options, [len(tokens) + len(answer) - 1])[0].copy()
        for token in controls:
            if not native.is_eog(token):
                logits[token] = -np.inf
        best = int(np.argmax(logits))
        if native.is_eog(best):
            break
        answer.append(best)
    return answer
