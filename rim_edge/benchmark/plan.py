"""What a benchmark measures: the cases, what each asks of the engines, and how much work each of them is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rim_edge.benchmark.work import Pass, steps, text_pass
from rim_edge.depth import DEFAULT_RULE
from rim_edge.errors import OptionError

Sample = Mapping[str, float]
Request = tuple[str, dict[str, Any]]
Question = Mapping[str, Any]  # "text", and its "tokens"

WIDTHS = (32, 128, 512)  # tokens of the texts for prefill
LANES = (1, 4, 8)  # answers side by side
DECODED = 16  # tokens of each of them
TEXT = 2048  # longest random text


@dataclass(frozen=True)
class Settings:
    """What the user chose; the fields of the model are those of :func:`rim_edge.load`.

    Attributes:
        rounds: counted samples of each case.
        prompt_tokens: tokens of a question with its template, at most.
        answer_tokens: tokens of every answer.
        cot_tokens: tokens of reasoning before the answer of a chain of thought; 0: none is measured.
        compare: the peer, or None.
    """

    path: str
    rounds: int = 5
    n_threads: int | None = None
    n_ctx: int | None = None
    n_gpu_layers: int = -1
    cache_type: str = "f16"
    flash_attention: str = "auto"
    use_mmap: bool = True
    prompt_tokens: int = 64
    answer_tokens: int = 16
    cot_tokens: int = 128
    compare: str | None = None

    @property
    def loading(self) -> dict[str, Any]:
        """Arguments of the engines that are as the user gave them."""
        names = ("path", "n_gpu_layers", "cache_type", "flash_attention", "use_mmap")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    Attributes:
        key: a name that stays the same between versions.
        group: heading under which it is shown.
        label: what it is called there.
        figures: names of the numbers in a sample that count.
        ours, theirs: the request for round ``number``; ``theirs`` is None where no peer can do it.
        work: figure to the passes that it takes, out of a sample.
        amount: tokens of a figure that is a rate.
        n_threads: threads that it runs with.
        fresh: each sample in a new process.
    """

    key: str
    group: str
    label: str
    figures: tuple[str, ...]
    ours: Callable[[int], Request]
    theirs: Callable[[int], Request] | None = None
    work: Callable[[Sample], Mapping[str, Sequence[Pass]]] = field(default=lambda sample: {})
    amount: int = 0
    n_threads: int = 1
    fresh: bool = False


def check_room(settings: Settings, facts: Mapping[str, Any], n_prompt: int) -> None:
    """Raise OptionError where the longest answer does not fit the context."""
    needed = n_prompt + settings.cot_tokens + settings.answer_tokens
    if needed > facts["n_ctx"]:
        raise OptionError(
            f"{n_prompt} tokens of question, {settings.cot_tokens} of thought and {settings.answer_tokens} of answer "
            f"do not fit the context of {facts['n_ctx']}: choose a larger --ctx, or fewer with --prompt-tokens, "
            "--cot-tokens or --answer-tokens"
        )


def thread_counts(n_threads: int) -> list[int]:
    """The powers of two below ``n_threads``, and itself."""
    counts, n = [], 1
    while n < n_threads:
        counts.append(n)
        n *= 2
    return [*counts, n_threads]


def cases(
    settings: Settings,
    facts: Mapping[str, Any],
    questions: Sequence[Sequence[Question]],
    texts: Sequence[Sequence[int]],
) -> list[Case]:
    """All cases for a model with ``facts``.

    Args:
        settings: what the user chose.
        facts: of ``Engine.facts``.
        questions: ``questions[kind][round]``, four kinds for all rounds. Rounds are counted from -1, the one that warms
            up and takes the last question.
        texts: the first tokens of ``Engine.text`` for the seeds 0, 1, 2; ``TEXT`` of each.
    """
    made = [
        *_answers(settings, facts, questions),
        *_readouts(settings, facts, questions),
        *_second_turn(settings, facts, texts),
        *_prefill(facts, texts[0]),
        *_decode(settings, facts, texts[0]),
    ]
    first = questions[0]
    made.append(
        Case(
            "process",
            "a new process",
            "a new process",
            ("load_ms", "start_ms", "first_ms", "peak_rss_bytes"),
            lambda number: ("answer", {"question": first[number]["text"], "blocks": facts["blocks"], "n_answer": 1}),
            lambda number: ("answer", {"tokens": with_blocks(facts, first[number]["tokens"]), "n_answer": 1}),
            n_threads=facts["n_threads"],
            fresh=True,
        )
    )
    return made


def with_blocks(facts: Mapping[str, Any], tokens: Sequence[int], depth: int | None = None) -> list[int]:
    """``tokens`` and what follows them: ``depth`` memory blocks (None: as trained), the answer prefix."""
    depth = facts["blocks"] if depth is None else depth
    return [*tokens, *facts["block_tokens"] * depth, *facts["prefix_tokens"]]


# ---- the groups -----------------------------------------------------------------------------------------------------


def _answers(settings: Settings, facts: Mapping[str, Any], questions: Sequence[Sequence[Question]]) -> list[Case]:
    k, n_answer = facts["blocks"], settings.answer_tokens
    wanted: list[tuple[str, str, int | str, int]] = [("direct", "direct", 0, 0)]
    if k:
        wanted += [("rim", f"RiM, {k} blocks", k, 0), ("auto", "RiM, auto", "auto", 0)]
    if settings.cot_tokens:
        wanted.append(("cot", f"thought of {settings.cot_tokens}", 0, settings.cot_tokens))
    made = []
    for kind, (key, label, blocks, n_thought) in enumerate(wanted):
        asked = questions[kind]

        def ours(
            number: int, asked: Sequence[Question] = asked, blocks: int | str = blocks, n_thought: int = n_thought
        ) -> Request:
            return "answer", {
                "question": asked[number]["text"],
                "blocks": blocks,
                "n_answer": n_answer,
                "n_thought": n_thought,
            }

        def theirs(
            number: int, asked: Sequence[Question] = asked, depth: int | str = blocks, n_thought: int = n_thought
        ) -> Request:
            tokens = with_blocks(facts, asked[number]["tokens"], int(depth))
            return "answer", {"tokens": tokens, "n_answer": n_answer, "n_thought": n_thought}

        def work(
            sample: Sample, blocks: int | str = blocks, n_thought: int = n_thought
        ) -> Mapping[str, Sequence[Pass]]:
            return answer_work(facts, sample, n_answer, n_thought, auto=blocks == "auto")

        made.append(
            Case(
                f"answer.{key}",
                "answers",
                label,
                ("ttft_ms", "total_ms"),
                ours,
                None if blocks == "auto" else theirs,
                work,
                n_threads=facts["n_threads"],
            )
        )
    return made


def answer_work(
    facts: Mapping[str, Any], sample: Sample, n_answer: int, n_thought: int, *, auto: bool
) -> dict[str, list[Pass]]:
    """The passes of one answer: to its first token (``ttft_ms``) and all of it (``total_ms``)."""
    n_prompt, depth = int(sample["n_prompt"]), int(sample["depth"])
    width, prefix = len(facts["block_tokens"]), len(facts["prefix_tokens"])
    groups = [d for d in DEFAULT_RULE.depths(facts["blocks"]) if d <= depth] if auto else [depth]
    first, done = [], 0
    for group in groups:
        n_new, n_read = (group - done) * width, max(1, group - done)
        n_past = n_prompt + done * width if done else 0
        n_tokens = n_new + n_read * prefix + (0 if done else n_prompt)
        first.append(text_pass(n_tokens, n_read, n_past))
        done = group
    n_past = n_prompt + depth * width + prefix
    if n_thought:
        first.append(steps(n_thought, n_past))
    rest = [steps(n_answer - 1, n_past + n_thought)] if n_answer > 1 else []
    return {"ttft_ms": first, "total_ms": [*first, *rest]}


def _readouts(settings: Settings, facts: Mapping[str, Any], questions: Sequence[Sequence[Question]]) -> list[Case]:
    k = facts["blocks"]
    if k < 2:
        return []
    asked, prefix = questions[1], len(facts["prefix_tokens"])

    def case(every: bool, label: str) -> Case:
        n_read = k if every else 1

        def request(number: int) -> Request:
            tokens = list(asked[number]["tokens"])
            return "readouts", {"tokens": tokens, "depth": k, "every": every, "n_answer": DECODED}

        def work(_: Sample) -> Mapping[str, Sequence[Pass]]:
            n_prompt = len(asked[0]["tokens"])
            n_past = n_prompt + k * len(facts["block_tokens"])
            return {
                "pass_ms": [text_pass(n_past + n_read * prefix, n_read)],
                "step_ms": [steps(1, n_past + prefix, n_read)],
            }

        return Case(
            f"readouts.{'all' if every else 'one'}",
            "readouts",
            label,
            ("pass_ms", "step_ms"),
            request,
            work=work,
            n_threads=facts["n_threads"],
        )

    return [case(False, "1 readout"), case(True, f"{k} readouts")]


def _second_turn(settings: Settings, facts: Mapping[str, Any], texts: Sequence[Sequence[int]]) -> list[Case]:
    k, n_second = facts["blocks"], min(settings.prompt_tokens, TEXT)
    n_first = min(4 * n_second, facts["n_ctx"] - n_second - 1, TEXT)
    if n_first < 1:
        return []
    width = len(with_blocks(facts, [], k))

    def case(reuse: bool) -> Case:
        def ours(_: int) -> Request:
            return "second_turn", {"n_first": n_first, "n_second": n_second, "depth": k, "reuse": reuse}

        def theirs(_: int) -> Request:
            tail = with_blocks(facts, texts[2][:n_second], k)
            return "second_turn", {"first": list(texts[1][:n_first]), "second": tail, "reuse": reuse}

        def work(_: Sample) -> Mapping[str, Sequence[Pass]]:
            n_past = n_first if reuse else 0
            n_new = n_second + width + (0 if reuse else n_first)
            return {"pass_ms": [text_pass(n_new, max(1, k), n_past)]}

        return Case(
            f"second_turn.{'reused' if reuse else 'anew'}",
            "second turn",
            f"{n_first} of {n_first + n_second} reused" if reuse else f"all {n_first + n_second} anew",
            ("pass_ms",),
            ours,
            theirs,
            work,
            n_threads=facts["n_threads"],
        )

    return [case(True), case(False)]


def _prefill(facts: Mapping[str, Any], text: Sequence[int]) -> list[Case]:
    most = facts["n_positions"] or 1 << 30
    made = []
    for n_threads in thread_counts(facts["n_threads"]):
        for width in WIDTHS:
            if width >= most:
                continue

            def ours(_: int, width: int = width, n_threads: int = n_threads) -> Request:
                return "prefill", {"n_tokens": width, "n_threads": n_threads}

            def theirs(_: int, width: int = width) -> Request:
                return "prefill", {"tokens": list(text[:width])}

            def work(_: Sample, width: int = width) -> Mapping[str, Sequence[Pass]]:
                return {"tokens_per_s": [text_pass(width)]}

            made.append(
                Case(
                    f"prefill.{width}.{n_threads}",
                    "prefill",
                    f"{width} tokens, {_threads(n_threads)}",
                    ("tokens_per_s",),
                    ours,
                    theirs if n_threads == facts["n_threads"] else None,
                    work,
                    amount=width,
                    n_threads=n_threads,
                )
            )
    return made


def _decode(settings: Settings, facts: Mapping[str, Any], text: Sequence[int]) -> list[Case]:
    n_past = min(settings.prompt_tokens, TEXT, (facts["n_positions"] or 1 << 30) - DECODED - 1)
    made = []
    for n_threads in thread_counts(facts["n_threads"]):
        for n_lanes in LANES:

            def ours(_: int, n_lanes: int = n_lanes, n_threads: int = n_threads) -> Request:
                return "decode", {"n_lanes": n_lanes, "n_past": n_past, "n_tokens": DECODED, "n_threads": n_threads}

            def theirs(_: int) -> Request:
                return "decode", {"tokens": list(text[:n_past]), "n_tokens": DECODED}

            def work(_: Sample, n_lanes: int = n_lanes) -> Mapping[str, Sequence[Pass]]:
                return {"tokens_per_s": [steps(1, n_past + DECODED // 2, n_lanes)]}

            made.append(
                Case(
                    f"decode.{n_lanes}.{n_threads}",
                    "decode",
                    f"{n_lanes} at once, {_threads(n_threads)}",
                    ("tokens_per_s",),
                    ours,
                    theirs if n_lanes == 1 and n_threads == facts["n_threads"] else None,
                    work,
                    amount=n_lanes,
                    n_threads=n_threads,
                )
            )
    return made


def _threads(n: int) -> str:
    return "1 thread" if n == 1 else f"{n} threads"
