"""For users of lm-evaluation-harness: a model of ours as one of its models.

    import lm_eval
    from rim_edge.evaluation.harness import RimEdgeLM

    with RimEdgeLM("model.gguf", blocks=8) as model:
        results = lm_eval.simple_evaluate(model, tasks=["gsm8k"], num_fewshot=0, limit=100)

Tasks of the kind ``generate_until`` (gsm8k, minerva_math, bbh, ...) work. Those that compare log-likelihoods of given
continuations (hellaswag, arc, mmlu, ...) do not: memory blocks stand between the question and an answer that the model
writes, and a continuation that is cut off in the middle of a sentence has no place for them. They raise
UnsupportedError. Needs the package ``lm_eval``; importing this module imports it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import rim_edge
from rim_edge.errors import UnsupportedError

try:
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
except ImportError:
    raise UnsupportedError(
        "rim_edge.evaluation.harness works inside lm-evaluation-harness, which is not installed: pip install lm_eval"
    ) from None

if TYPE_CHECKING:
    from typing_extensions import Self

_MAX_TOKENS = 256  # what the harness takes where a task does not say
#: options of a task's ``generation_kwargs`` that have another name here
_SAMPLING = {"temperature": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p"}


@register_model("rim-edge")
class RimEdgeLM(LM):  # type: ignore[misc]
    """A model with memory blocks, as the harness sees it. A context manager; its end closes the model.

    The whole text of a request, few-shot examples included, is asked as one question: the model's own chat or prompt
    template is put around it, so ``apply_chat_template`` must stay off. Models trained on single questions want
    ``num_fewshot=0``.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        blocks: int | str | None = None,
        select: str = "final",
        system: str | None = None,
        lanes: int | None = None,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
        **loading: Any,
    ) -> None:
        """Load the model.

        Args:
            path: as for :func:`rim_edge.load`; None is the bundled rim-tiny.
            blocks, select, system: as for :meth:`rim_edge.Model.ask`.
            lanes: questions side by side; None: the harness's ``batch_size``, where that is a number above 1.
            batch_size, max_batch_size, device: what the harness hands over; the last two mean nothing here.
            loading: more options of :func:`rim_edge.load`, such as ``n_ctx``.

        Raises:
            ModelFileError, OptionError, UnsupportedError: as :func:`rim_edge.load` and :meth:`rim_edge.Model.ask` do.
        """
        super().__init__()
        self._options: dict[str, Any] = {"blocks": blocks, "select": select, "system": system}
        if lanes is None and str(batch_size or "").isdigit() and int(str(batch_size)) > 1:
            lanes = int(str(batch_size))
        self._lanes = lanes
        self._model = rim_edge.load(path, **loading)
        try:
            self._model.ask_many([], batch=lanes, **self._options)  # checks the options
        except BaseException:
            self._model.close()
            raise

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """The answers to ``requests``, whose ``args`` are (text, generation options); in their order.

        Raises ContextFullError where a text does not fit.
        """
        groups: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            groups.setdefault(repr(sorted(request.args[1].items())), []).append(index)
        answers = [""] * len(requests)
        for group in groups.values():
            options = self._options | options_of(requests[group[0]].args[1])
            questions = [requests[index].args[0] for index in group]
            found = self._model.iter_many(questions, batch=self._lanes, **options)
            for index, answer in zip(group, found, strict=True):
                answers[index] = answer.text
                self.cache_hook.add_partial("generate_until", requests[index].args, answer.text)
        return answers

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Raises UnsupportedError: see the top of this module."""
        raise UnsupportedError(
            "this task compares log-likelihoods of given continuations, which a model that reasons in memory blocks "
            "does not give: choose a task that generates, such as gsm8k"
        )

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Raises UnsupportedError: see the top of this module."""
        raise UnsupportedError(
            "perplexity of running text has no place for memory blocks: choose a task that generates"
        )

    def close(self) -> None:
        """Free the model."""
        self._model.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def options_of(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """A task's ``generation_kwargs`` as options of ``Model.ask``: greedy unless ``do_sample``."""
    until = kwargs.get("until") or []
    options: dict[str, Any] = {
        "stop": [text for text in ([until] if isinstance(until, str) else until) if text],
        "max_tokens": int(kwargs.get("max_gen_toks") or kwargs.get("max_tokens") or _MAX_TOKENS),
    }
    if kwargs.get("do_sample"):
        options |= {ours: kwargs[theirs] for theirs, ours in _SAMPLING.items() if kwargs.get(theirs) is not None}
        options.setdefault("temperature", 1.0)
    return options
