"""An evaluation through the package: every way to answer, the summary, going on after a stop, models that cannot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from eval_files import ROWS, answers, count_right, read_lines, write_rows

import rim_edge
from rim_edge.errors import CancelledError, OptionError, RimError, UnsupportedError
from rim_edge.evaluation.data import read_problems
from rim_edge.evaluation.plan import Plan, Settings, make_plan, sample
from rim_edge.evaluation.record import Record, RecordError, read_record
from rim_edge.evaluation.run import Evaluator
from rim_edge.evaluation.summary import summarize
from tests.exact import EXACT
from tests.shapes import default_spec, make_model

SHORT: dict[str, Any] = {"max_tokens": 4, "cot_tokens": 6, "lanes": 2, "latency": 2}


def head(plan: Plan, **must_match: Any) -> dict[str, Any]:
    return {"model": {}, "data": {}, "passes": plan.passes, "depth": plan.depth, "must_match": {"settings": must_match}}


def evaluate(
    model: rim_edge.Model, data: Path, output: Path, stop_after: int | None = None, **settings: Any
) -> dict[str, Any]:
    chosen = Settings(**(SHORT | settings))
    problems, _ = sample(read_problems(data, chosen.suite), chosen)
    plan = make_plan(model, chosen)
    steps = 0
    with Record(output, head(plan)) as record:
        evaluator = Evaluator(
            model, problems, plan, chosen, record, lambda: stop_after is not None and steps >= stop_after
        )
        for progress in evaluator.run():
            steps += 1
            assert progress.done <= progress.total
        assert evaluator.progress().done == evaluator.progress().total
    return summarize(*read_record(output), {problem.line for problem in problems})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data") / "data.jsonl")


@pytest.fixture(scope="module")
def whole(model: rim_edge.Model, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Any]]:
    output = tmp_path_factory.mktemp("whole") / "whole.jsonl"
    yield output, evaluate(model, data, output, cot=True)


def test_every_way_to_answer(whole: tuple[Path, Any]) -> None:
    output, summary = whole
    names = ["direct", *(f"block_{k}" for k in range(1, 5)), "auto", "vote", "confidence", "probe", "any_block", "cot"]
    assert list(summary["modes"]) == names
    assert summary["questions"] == len(ROWS) and summary["final"] == "block_4" and summary["depth"] == 4
    assert {name: mode["right"] for name, mode in summary["modes"].items()} == count_right(output)
    assert summary["timed"] == 2
    assert summary["modes"]["any_block"]["right"] > 1 and 0 < summary["modes"]["block_4"]["right"] < len(ROWS)
    for name, mode in summary["modes"].items():
        assert ("latency" in mode) == (name != "any_block")
        assert set(mode["against"]) == {"direct", "final"} - {"direct" if name == "direct" else ""} - (
            {"final"} if name == "block_4" else set()
        )
    assert len(answers(output)) == 3 * len(ROWS)


def test_paired_differences_add_up(whole: tuple[Path, Any]) -> None:
    _, summary = whole
    modes = summary["modes"]
    for mode in modes.values():
        for base, found in mode["against"].items():
            other = modes["direct" if base == "direct" else summary["final"]]
            assert found["gained"] - found["lost"] == mode["right"] - other["right"]
            assert found["interval"][0] <= found["difference"] <= found["interval"][1]


def test_readouts_are_the_answers_of_each_depth(model: rim_edge.Model, whole: tuple[Path, Any]) -> None:
    output, summary = whole
    for entry in answers(output):
        if entry["pass"] == "rim":
            for readout in entry["readouts"]:
                assert readout["text"] == model.ask(entry["question"], blocks=readout["block"], max_tokens=4).text
            for select in ("final", "vote", "confidence", "probe"):
                answer = model.ask(entry["question"], select=select, max_tokens=4)  # type: ignore[arg-type]
                assert entry["chosen"][select] == answer.readout
            assert entry["chosen"]["auto"] == model.ask(entry["question"], blocks="auto", max_tokens=4).depth
        elif entry["pass"] == "direct":
            assert entry["text"] == model.ask(entry["question"], blocks=0, max_tokens=4).text
    assert summary["agreement"] == {"timed": 2 * 10, "same": 2 * 10}


def test_probe_statistics(whole: tuple[Path, Any]) -> None:
    output, summary = whole
    readouts = [readout for entry in answers(output) if entry["pass"] == "rim" for readout in entry["readouts"]]
    assert summary["probe"]["readouts"] == len(readouts) == 4 * len(ROWS)
    squares = [(readout["probe"] - readout["correct"]) ** 2 for readout in readouts]
    assert summary["probe"]["brier"] == pytest.approx(sum(squares) / len(squares))
    assert [block["block"] for block in summary["probe"]["blocks"]] == [1, 2, 3, 4]
    assert set(summary["signals"]) == {"confidence", "probability", "entropy"}


@pytest.mark.parametrize("stop_after", [1, 4, 12, 20])
def test_goes_on_after_a_stop(
    model: rim_edge.Model, data: Path, whole: tuple[Path, Any], tmp_path: Path, stop_after: int
) -> None:
    output = tmp_path / "stopped.jsonl"
    with pytest.raises(CancelledError):
        evaluate(model, data, output, stop_after, cot=True)
    kept = read_lines(output)
    assert 1 < len(kept) < len(read_lines(whole[0]))
    summary = evaluate(model, data, output, cot=True)
    assert read_lines(output)[: len(kept)] == kept
    assert answers(output) == answers(whole[0])
    assert {name: mode["right"] for name, mode in summary["modes"].items()} == count_right(whole[0])
    before = output.read_bytes()
    evaluate(model, data, output, cot=True)  # all is there: nothing is asked
    assert output.read_bytes() == before


@pytest.mark.parametrize("kept", [0.001, 0.3, 0.55, 0.9])
def test_half_a_line_is_mended(
    model: rim_edge.Model, data: Path, whole: tuple[Path, Any], tmp_path: Path, kept: float
) -> None:
    raw = whole[0].read_bytes()
    output = tmp_path / "half.jsonl"
    size = int(kept * len(raw))
    output.write_bytes(raw[: size + (raw[size - 1 : size] == b"\n")])
    evaluate(model, data, output, cot=True)
    assert answers(output) == answers(whole[0])
    assert len(read_lines(output)) == len(read_lines(whole[0]))


def test_a_larger_sample_holds_the_smaller_one(model: rim_edge.Model, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "sample.jsonl"
    small = evaluate(model, data, output, limit=2, latency=0)
    lines = {entry["line"] for entry in answers(output)}
    large = evaluate(model, data, output, limit=4, latency=0)
    assert (small["questions"], large["questions"]) == (2, 4)
    assert lines < {entry["line"] for entry in answers(output)}
    assert len(answers(output)) == 2 * 4
    assert evaluate(model, data, output, limit=2, latency=0) == small
    assert "latency" not in small["modes"]["direct"] and small["timed"] == 0


def test_samples_differ_by_seed(data: Path) -> None:
    problems = read_problems(data)
    drawn = {tuple(p.line for p in sample(problems, Settings(limit=3, seed=seed))[0]) for seed in range(8)}
    assert len(drawn) > 2
    assert [p.line for p in sample(problems, Settings())[0]] == [1, 2, 3, 4, 5, 6]


def test_fewer_blocks(model: rim_edge.Model, data: Path, tmp_path: Path) -> None:
    summary = evaluate(model, data, tmp_path / "a.jsonl", blocks=2, limit=2, latency=0)
    assert list(summary["modes"]) == [
        "direct",
        "block_1",
        "block_2",
        "vote",
        "confidence",
        "probe",
        "any_block",
    ]
    more = evaluate(model, data, tmp_path / "b.jsonl", blocks=6, limit=2, latency=0)
    assert "block_6" in more["modes"] and "auto" in more["modes"]
    with pytest.raises(OptionError, match="runs 0 to 8"):
        evaluate(model, data, tmp_path / "c.jsonl", blocks=9)
    assert not (tmp_path / "c.jsonl").exists()


def test_a_question_that_does_not_fit_counts_as_wrong(rim_path: Path, tmp_path: Path) -> None:
    rows = [ROWS[0], {"question": "Tom has " * 200, "answer": "a"}, ROWS[1]]
    data = write_rows(tmp_path / "data.jsonl", rows)
    with rim_edge.load(rim_path, n_ctx=128, **EXACT) as model:
        summary = evaluate(model, data, tmp_path / "out.jsonl", latency=3)
    assert summary["questions"] == 3 and summary["failed"] == 1
    errors = [entry for entry in answers(tmp_path / "out.jsonl") if "error" in entry]
    assert [entry["line"] for entry in errors] == [2, 2]
    assert all("n_ctx" in entry["error"] and not entry["correct"] for entry in errors)
    assert summary["timed"] == 2


# ---- models that cannot ----------------------------------------------------------------------------------------------


def test_a_model_without_memory_blocks_answers_directly(data: Path, tmp_path: Path) -> None:
    path = make_model(tmp_path / "plain.gguf", spec=None, chat_template=True)
    with rim_edge.load(path) as plain:
        plan = make_plan(plain, Settings(**SHORT))
        assert plan.passes == ("direct",) and "no memory blocks" in plan.notices[0]
        summary = evaluate(plain, data, tmp_path / "out.jsonl")
        assert list(summary["modes"]) == ["direct"] and summary["modes"]["direct"]["against"] == {}
        with pytest.raises(UnsupportedError, match="no memory-slot metadata"):
            make_plan(plain, Settings(blocks=4))


def test_a_recurrent_model_answers_directly(data: Path, tmp_path: Path) -> None:
    path = make_model(tmp_path / "mamba.gguf", "mamba")
    with rim_edge.load(path) as mamba:
        plan = make_plan(mamba, Settings(**SHORT))
        assert plan.passes == ("direct",) and plan.notices[0].startswith("direct answers only: ")
        assert list(evaluate(mamba, data, tmp_path / "out.jsonl", limit=2)["modes"]) == ["direct"]
        with pytest.raises(UnsupportedError):
            make_plan(mamba, Settings(blocks=2))


def test_only_selections_that_the_model_can_do(tmp_path: Path, data: Path) -> None:
    path = make_model(tmp_path / "bare.gguf", spec=default_spec())
    with rim_edge.load(path) as bare:
        plan = make_plan(bare, Settings(**SHORT))
        assert plan.selections == ("final", "confidence")
        assert "not trained to answer without memory blocks" in plan.notices[0]
        summary = evaluate(bare, data, tmp_path / "out.jsonl", limit=2, latency=1)
        assert "vote" not in summary["modes"] and "probe" not in summary


# ---- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt": "Answer!"}, r"the prompt holds no \{question\}"),
        ({"suite": "gpqa", "prompt": "{question}"}, r"the prompt holds no \{choices\}"),
        ({"pattern": "("}, "no regular expression"),
        ({"pattern": "a"}, "has no group"),
        ({"lanes": 1000}, "batch is 1000"),
        ({"suite": "gsm"}, "there is no suite"),
    ],
)
def test_settings_that_make_no_sense(model: rim_edge.Model, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make_plan(model, Settings(**settings))


def test_prompts_and_choices(model: rim_edge.Model, tmp_path: Path) -> None:
    row = {"question": "which {choices}?", "choices": ["x", "y"], "answer": "B"}
    data = write_rows(tmp_path / "data.jsonl", [row])
    asked: list[str] = []
    ask_many = model.ask_many

    class Spy:
        def __getattr__(self, name: str) -> Any:
            return getattr(model, name)

        def ask_many(self, questions: list[str], **options: Any) -> Any:
            asked.extend(questions)
            return ask_many(questions, **options)

    evaluate(Spy(), data, tmp_path / "out.jsonl", suite="gpqa", latency=0, cot=True, pattern="")  # type: ignore[arg-type]
    (problem,) = read_problems(data, "gpqa")
    listed = f"A) {problem.choices[0]}\nB) {problem.choices[1]}"
    question = f"which {{choices}}?\n\n{listed}\n\n"
    assert asked == [
        question + "Answer with the letter of the right choice.",
        question + "Answer with the letter of the right choice.",
        question + "Think step by step. End with a line of this form: Answer: letter",
    ]


def test_no_answers_at_all(tmp_path: Path) -> None:
    problems = read_problems(write_rows(tmp_path / "data.jsonl", [{"question": "a"}, {"question": "b"}]))
    with pytest.raises(RimError, match="no row of the data has an answer"):
        sample(problems, Settings())
    some = read_problems(write_rows(tmp_path / "data.jsonl", [{"question": "a"}, ROWS[0]]))
    assert sample(some, Settings()) == ([some[1]], [1])


# ---- the file of answers ---------------------------------------------------------------------------------------------


def test_another_evaluation_is_refused(model: rim_edge.Model, tmp_path: Path) -> None:
    path, plan = tmp_path / "out.jsonl", make_plan(model, Settings())
    Record(path, head(plan, seed=0, suite=None)).close()
    before = path.read_bytes()
    with pytest.raises(RecordError, match=r"\(settings.seed is 0 there, 1 here; settings.suite is null there, gsm8k h"):
        Record(path, head(plan, seed=1, suite="gsm8k"))
    assert path.read_bytes() == before
    with Record(path, head(plan, seed=1), force=True) as record:
        assert record.head["must_match"]["settings"] == {"seed": 1}


def test_other_files_are_left_alone(model: rim_edge.Model, tmp_path: Path) -> None:
    plan = make_plan(model, Settings())
    path = tmp_path / "notes.txt"
    for text in ("my notes", "my notes\n", '{"question": "a"}\n'):
        path.write_text(text)
        with pytest.raises(RecordError, match="is no file of answers"):
            Record(path, head(plan))
        assert path.read_text() == text
    with pytest.raises(RecordError, match="No such file or directory"):
        Record(tmp_path / "missing" / "out.jsonl", head(plan))
    with pytest.raises(RecordError, match="is no plain file"):
        Record(Path(os.devnull), head(plan))


def test_a_damaged_line_is_named(model: rim_edge.Model, tmp_path: Path) -> None:
    path, plan = tmp_path / "out.jsonl", make_plan(model, Settings())
    Record(path, head(plan)).close()
    path.write_bytes(path.read_bytes() + b'{"kind": "ans\n{"kind": "answer"}\n')
    with pytest.raises(RecordError, match="is damaged in line 2"):
        Record(path, head(plan))


def test_two_at_once_are_refused(model: rim_edge.Model, tmp_path: Path) -> None:
    plan = make_plan(model, Settings())
    with (
        Record(tmp_path / "out.jsonl", head(plan)),
        pytest.raises(RecordError, match="another command is writing"),
    ):
        Record(tmp_path / "out.jsonl", head(plan))


def test_no_space_leaves_whole_lines(
    model: rim_edge.Model, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, write, room = tmp_path / "out.jsonl", os.write, [3000]

    def limited(file: int, content: bytes) -> int:
        part = content[: room[0]]
        if not part:
            raise OSError(28, "No space left on device")
        room[0] -= len(part)
        return write(file, part)

    monkeypatch.setattr(os, "write", limited)
    with pytest.raises(RecordError, match="No space left on device; the answers so far are kept, the same command"):
        evaluate(model, data, output)
    raw = output.read_bytes()
    assert raw.endswith(b"\n") and [json.loads(line) for line in raw.splitlines()]
    monkeypatch.undo()
    assert evaluate(model, data, output)["questions"] == len(ROWS)


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, rim_edge.cli.eval\n"
        "from rim_edge.evaluation import report, run, summary\n"
        "print(sorted({'torch', 'sympy', 'matplotlib', 'lm_eval', 'gguf'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
