"""The word-problem generator: deterministic, right, split without overlap, and within the closed vocabulary."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from train.data import draw, generate, main, split_of
from train.kinds import KINDS, PRACTICE, problem
from train.lexicon import NAMES, words
from train.problems import MAX_VALUE, Operation, Ref, canonical, evaluate

ROOT = Path(__file__).parents[1]
STEPS = (1, 2, 3, 4, 5)


def test_same_seed_same_problems_and_another_seed_others() -> None:
    first = [p.question for p in generate("train", STEPS, 50, seed=3)]
    assert first == [p.question for p in generate("train", STEPS, 50, seed=3)]
    assert first != [p.question for p in generate("train", STEPS, 50, seed=4)]


def test_splits_share_no_operations_and_numbers() -> None:
    train = {p.canonical for p in generate("train", (2, 3), 600, seed=1)}
    test = {p.canonical for p in generate("test", (2, 3), 200, seed=1)}
    assert not train & test
    assert {split_of(form) for form in train} == {"train"}


def test_names_items_and_order_of_operands_do_not_change_the_split() -> None:
    one = (Operation("+", 3, 5), Operation("*", Ref(0), 2))
    other = (Operation("+", 5, 3), Operation("*", 2, Ref(0)))
    assert canonical(one) == canonical(other) == "((3+5)*2)"


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("n_steps", STEPS)
def test_every_kind_keeps_its_promises(kind: str, n_steps: int) -> None:
    known = set(words())
    rng = random.Random(n_steps)
    for _ in range(60):
        made = problem(rng, n_steps, kind=kind)
        assert len(made.values) == len(made.steps) == n_steps
        assert made.values == evaluate(made.operations)
        assert all(1 <= value <= MAX_VALUE for value in made.values)
        for step in made.steps:
            left, right = step.split("=")
            assert eval(left.replace("/", "//")) == int(right), step
        assert set(re.findall(r"[A-Za-z]+", made.question)) <= known
        assert re.fullmatch(r"[A-Za-z0-9 .?,]+\?", made.question)
        assert not re.search(r"\b0\b|  ", made.question)


def test_questions_about_the_same_facts_are_problems_of_their_own() -> None:
    rng = random.Random(9)
    seen = 0
    for kind in (*KINDS, *PRACTICE):
        for _ in range(40):
            made = problem(rng, 1 if kind in PRACTICE else rng.choice(STEPS), kind=kind)
            assert len({made.asked, *(other.asked for other in made.others)}) == 1 + len(made.others)
            for other in made.others:
                seen += 1
                assert other.facts == made.facts and other.question.endswith(other.asked)
                assert other.values == (evaluate(other.operations) or (other.stated,))
                used = {o.index for p in other.operations for o in (p.left, p.right) if isinstance(o, Ref)}
                assert used == set(range(len(other.operations) - 1)), "every step but the last is needed"
                if not other.operations:
                    assert f" {other.stated} " in made.facts
    assert seen > 300


def clauses_of(facts: str) -> list[tuple[int, list[str]]]:
    """Where each clause about people ends, and the names in it."""
    ends = re.finditer(rf"\.|,? and (?=(?:{'|'.join(NAMES)}) (?!together))|, (?=[A-Z])", facts)
    clauses, start = [], 0
    for end in ends:
        clauses.append(
            (end.start(), [word for word in re.findall(r"\w+", facts[start : end.start()]) if word in NAMES])
        )
        start = end.end()
    return clauses


@pytest.mark.parametrize("kind", ["relations", "relations-branching", "relations-in-order"])
def test_a_mark_stands_where_a_reader_knows_the_quantity(kind: str) -> None:
    rng = random.Random(3)
    seen: Counter[str] = Counter()
    while sum(seen.values()) < 300:
        made = draw(rng, "train", 4, kind=kind)
        if not any(made.facts.startswith(name) for name in NAMES):
            continue
        marks = {mark.at: mark for mark in made.marks}
        values = {
            re.findall("|".join(NAMES), other.asked)[0]: other for other in made.others if "toge" not in other.asked
        }
        known: set[str] = set()
        for end, (subject, *others) in clauses_of(made.facts):
            knows = known.issuperset(others)
            assert (end in marks) == knows, made.facts
            seen["known" if knows else "not yet"] += 1
            if knows:
                known.add(subject)
                asked = values.get(subject)
                if asked is not None and len(re.findall("|".join(NAMES), asked.asked)) == 1:
                    assert marks[end].value == asked.values[-1], (made.facts, subject)
                    assert marks[end].depth <= len(asked.operations)
    assert seen["known"] > 50 and (seen["not yet"] > 50) == (kind == "relations")


def test_a_story_marks_its_running_quantity() -> None:
    rng = random.Random(4)
    for kind in ("story", "numbers"):
        for _ in range(100):
            made = draw(rng, "train", 4, kind=kind)
            if made.facts:
                assert all(re.match(r"\.| and |, ", made.facts[mark.at :]) for mark in made.marks)
                assert made.marks[-1].value == made.values[-1] and made.marks[-1].at == len(made.facts) - 1
                assert {mark.value for mark in made.marks} <= {*made.values, *map(int, re.findall(r"\d+", made.facts))}


def test_numbers_of_the_solution_stand_in_the_question() -> None:
    for made in generate("train", STEPS, 200, seed=8):
        written = set(map(int, re.findall(r"\d+", made.question)))
        doubling = {2}  # twice, half, double
        for step in made.operations:
            assert {o for o in (step.left, step.right) if isinstance(o, int)} <= written | doubling


def test_command_writes_jsonl_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['numpy'] = None\n"
        "from train.data import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "--split", "test", "--steps", "2-5", "-n", "8", "--seed", "5"]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = [json.loads(line) for line in out.splitlines()]
    assert len(lines) == 8
    for line, n_steps in zip(lines, (2, 3, 4, 5) * 2, strict=True):
        assert set(line) == {"question", "steps", "answer"}
        assert len(line["steps"]) == n_steps
        assert line["steps"][-1].endswith("=" + line["answer"])

    assert main(["--split", "test", "--steps", "2-5", "-n", "8", "--seed", "5", "-o", str(tmp_path / "t.jsonl")]) == 0
    assert (tmp_path / "t.jsonl").read_text() == out
    assert [path.name for path in tmp_path.iterdir()] == ["t.jsonl"]


def test_single_operations_are_all_for_training() -> None:
    assert split_of(canonical((Operation("+", 3, 5),))) == "train"
    with pytest.raises(ValueError, match="2 steps"):
        next(generate("test", (1,), 1, seed=0))


@pytest.mark.parametrize(
    "bad", [["--steps", "5-2"], ["--steps", "x"], ["--steps", "1"], ["-n", "0"], ["-n", "-3"], ["--split", "dev"]]
)
def test_bad_arguments_are_one_clear_line(bad: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["--split", "test", *bad])
    assert leaving.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert bad[1] in last or "2 steps" in last


def test_an_output_that_cannot_be_written_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--split", "test", "-n", "3", "-o", str(tmp_path / "no" / "t.jsonl")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_drawn_problem_belongs_to_its_split() -> None:
    rng = random.Random(0)
    for split in ("train", "test"):
        assert split_of(draw(rng, split, 2).canonical) == split


def test_both_splits_have_the_same_shares_of_kinds() -> None:
    for split in ("train", "test"):
        rng = random.Random(4)
        seen = Counter(draw(rng, split, 2).kind for _ in range(2000))
        for kind, (share, _) in KINDS.items():
            assert abs(seen[kind] / 2000 - share) < 0.04, (split, kind, seen[kind])
