"""The two stages: readouts are isolated, stand at the right positions and carry the paper's weights."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from train.curriculum import (
    BLOCK_COUNT,
    DEEP_LAYERS,
    EARLIER_WEIGHT,
    LATE_LAYERS,
    NAME_WEIGHT,
    POINTER_LAYER,
    VALUE_LAYERS,
    Branch,
    Readout,
    Sample,
    alone,
    alpha_k,
    asked_of,
    deep_taps,
    grounding,
    lambda_t,
    lay_out,
    loss_sum,
    pointers,
    readouts_correct,
    refinement,
    told_values,
)
from train.data import draw
from train.evaluate import chain_accuracy
from train.model import Llama, ModelConfig
from train.problems import Mark, Operation, Problem, Ref
from train.run import CONTROLS, Options, batch_of
from train.tokenizer import Vocabulary, build_json


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary(build_json())


@pytest.fixture(scope="module")
def model(vocabulary: Vocabulary) -> Llama:
    model = Llama(ModelConfig(len(vocabulary), 64, 64, 3, 4, 2))
    model.initialise(0)
    return model


def plain_run(model: Llama, tokens: list[int]) -> torch.Tensor:
    """States [T, hidden] of an ordinary causal run."""
    mask = torch.full((len(tokens), len(tokens)), float("-inf")).triu(1)[None, None]
    with torch.no_grad():
        return model.hidden(torch.tensor([tokens]), torch.arange(len(tokens))[None], mask)[0]


def test_every_readout_equals_a_plain_run_of_question_blocks_and_answer(model: Llama, vocabulary: Vocabulary) -> None:
    rng = random.Random(1)
    samples = []
    for n_steps in (1, 3, 5):
        made = draw(rng, "train", n_steps)
        samples.append(Sample(vocabulary.encode(made.facts), [refinement(made, vocabulary)]))
    shared = draw(rng, "train", 4, kind="relations")
    branches = [grounding(shared, vocabulary, s=0.0), *(refinement(other, vocabulary) for other in shared.others)]
    assert len(branches) > 2
    samples.append(Sample(vocabulary.encode(shared.facts), branches))
    batch = lay_out(samples, vocabulary)
    with torch.no_grad():
        states = model.hidden(batch.tokens, batch.positions, batch.mask, batch.rows)
    number = 0
    for sample in samples:
        for branch in sample.branches:
            for readout in branch.readouts:
                prefix = sample.facts + branch.asked + vocabulary.block * readout.k
                expected = plain_run(model, prefix + readout.tokens[:-1])[len(prefix) - 1 :]
                torch.testing.assert_close(states[batch.readout == number], expected, atol=2e-5, rtol=1e-4)
                number += 1


def test_facts_and_asked_are_the_whole_question(vocabulary: Vocabulary) -> None:
    rng = random.Random(8)
    for _ in range(50):
        made = draw(rng, "train", 3)
        sample = alone(made, grounding(made, vocabulary, 0.0), vocabulary)
        assert sample.facts + sample.branches[0].asked == vocabulary.encode(made.question)


def test_one_readout_does_not_see_another(model: Llama, vocabulary: Vocabulary) -> None:
    question = vocabulary.encode("What is 7 plus 5?")
    one, other = vocabulary.value(12), vocabulary.value(21)

    def states(first: list[int]) -> torch.Tensor:
        readouts = [Readout(1, first, 1.0), Readout(2, one, 1.0)]
        batch = lay_out([Sample([], [Branch(question, 2, readouts)])], vocabulary)
        with torch.no_grad():
            return model.hidden(batch.tokens, batch.positions, batch.mask, batch.rows)[batch.readout == 1]

    torch.testing.assert_close(states(one), states(other))


def test_grounding_gives_each_block_its_step(vocabulary: Vocabulary) -> None:
    made = draw(random.Random(3), "train", 4)
    branch = grounding(made, vocabulary, s=0.0)
    assert branch.n_blocks == 4
    assert [(r.k, r.tokens[0]) for r in branch.readouts] == [
        (t, vocabulary.value(value)[0]) for t, value in enumerate(made.values, start=1)
    ]
    assert branch.readouts[-1].tokens == vocabulary.value(made.values[-1])


def test_blocks_behind_the_last_step_hold_the_answer(vocabulary: Vocabulary) -> None:
    made = draw(random.Random(3), "train", 2)
    branch = grounding(made, vocabulary, s=0.0, n_blocks=5)
    first, answer = (vocabulary.value(value)[0] for value in made.values)
    assert branch.n_blocks == 5
    assert [(r.k, r.tokens[0]) for r in branch.readouts] == [(1, first), *((k, answer) for k in range(2, 6))]
    assert [len(r.tokens) for r in branch.readouts] == [1, 1, 1, 1, 2]


def test_early_steps_lose_their_supervision_first_and_the_answer_never() -> None:
    assert [lambda_t(t, 5, 0.0) for t in range(1, 6)] == [1.0] * 5
    later = [lambda_t(t, 5, 0.9) for t in range(1, 6)]
    assert later == sorted(later)
    assert later[0] == 0.0
    assert [lambda_t(t, 5, 1.0) for t in range(1, 6)] == [0.0, 0.0, 0.0, 0.0, 1.0]


def test_refinement_weights_are_the_papers() -> None:
    assert [alpha_k(k) for k in range(1, 9)] == pytest.approx([2 * k / 72 for k in range(1, 9)])
    assert sum(alpha_k(k) for k in range(1, BLOCK_COUNT + 1)) == pytest.approx(1.0)


def test_correct_means_what_greedy_decoding_gives(model: Llama, vocabulary: Vocabulary) -> None:
    question = vocabulary.encode("What is 7 plus 5?")
    tokens = question + vocabulary.block
    decoded: list[int] = []
    for _ in range(2):
        decoded.append(int(model.logits(plain_run(model, tokens + decoded)[-1]).argmax()))
    wrong = [decoded[0], (decoded[1] + 1) % len(vocabulary)]
    sample = Sample([], [Branch(question, 1, [Readout(1, decoded, 1.0), Readout(1, wrong, 1.0)])])
    assert readouts_correct(model, lay_out([sample], vocabulary)).tolist() == [True, False]


def test_controls_answer_the_same_questions(vocabulary: Vocabulary) -> None:
    options = Options("unused", batch_positions=600)
    plain = batch_of(options, vocabulary, 3, 0.5)
    for control, make in CONTROLS.items():
        pieces = batch_of(replace(options, control=control), vocabulary, 3, 0.5)
        seen, expected = (
            sorted((sample.facts, branch.asked) for piece in of for sample in piece for branch in sample.branches)
            for of in (pieces, plain)
        )
        assert seen == expected
        made = draw(random.Random(2), "train", 4)
        branch = make(made, vocabulary)
        (readout,) = branch.readouts
        assert (branch.n_blocks, readout.k) == (0, 0)
        values = [vocabulary.value(value)[0] for value in made.values]
        assert readout.tokens == [*(values if control == "chain" else values[-1:]), vocabulary.end_of_text_id]


def test_a_chain_is_right_when_its_own_last_value_is(model: Llama, vocabulary: Vocabulary) -> None:
    made = draw(random.Random(2), "train", 2)
    tokens = vocabulary.encode(made.question)
    written: list[int] = []
    while len(written) < 4 and written[-1:] != [vocabulary.end_of_text_id]:
        written.append(int(model.logits(plain_run(model, tokens + written)[-1]).argmax()))
    right = written[-2:] == vocabulary.value(made.values[-1])
    assert chain_accuracy(model, vocabulary, [made, made]) == float(right)


def test_padding_changes_no_loss(model: Llama, vocabulary: Vocabulary) -> None:
    rng = random.Random(5)
    problems = [draw(rng, "train", n) for n in (1, 5)]
    short, long = (alone(made, refinement(made, vocabulary), vocabulary) for made in problems)
    with torch.no_grad():
        together = loss_sum(model, lay_out([short, long], vocabulary))
        apart = loss_sum(model, lay_out([short], vocabulary)) + loss_sum(model, lay_out([long], vocabulary))
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)


def test_deep_grounding_reads_each_step_at_its_own_layer(vocabulary: Vocabulary) -> None:
    """In a model one layer higher than that, only step 1 is read below the top, at the end of every block."""
    deep_model = Llama(ModelConfig(len(vocabulary), 64, 64, DEEP_LAYERS[0] + 1, 4, 2))
    deep_model.initialise(1)
    made = draw(random.Random(7), "train", 2, kind="numbers")
    plain, deep = (alone(made, grounding(made, vocabulary, 0.0, weight), vocabulary) for weight in (0.0, 0.5))
    tokens = vocabulary.encode(made.question)
    with torch.no_grad():
        difference = loss_sum(deep_model, lay_out([deep], vocabulary)) - loss_sum(
            deep_model, lay_out([plain], vocabulary)
        )
        deep_model.layers = deep_model.layers[: DEEP_LAYERS[0]]
        expected = torch.tensor(0.0)
        for weight in (0.5, 0.5 * EARLIER_WEIGHT):
            tokens += vocabulary.block
            scores = deep_model.logits(plain_run(deep_model, tokens)[-1]).log_softmax(-1)
            expected -= weight * scores[vocabulary.value(made.values[0])[0]]
    torch.testing.assert_close(difference, expected, rtol=1e-4, atol=1e-4)


def test_late_kinds_learn_whose_value_a_step_gives(vocabulary: Vocabulary) -> None:
    operations = (Operation("+", 2, 3, "the red box"), Operation("*", Ref(0), 2, "the blue box"))
    made = Problem("", "How many pens does the blue box hold?", operations, "relations")
    asked = asked_of(made, vocabulary)
    taps = deep_taps(made, asked, 2, vocabulary, 1.0)
    name = {token: text for text, token in vocabulary.ids.items()}
    seen = [(tap.layer, tap.place - len(asked), name[tap.token], tap.weight) for tap in taps]
    first, second = LATE_LAYERS[:2]
    assert seen == [
        (first, 3, "5", 1.0),
        (first, 3, "Ġred", NAME_WEIGHT),
        (first, 7, "5", EARLIER_WEIGHT),
        (first, 7, "Ġred", EARLIER_WEIGHT * NAME_WEIGHT),
        (second, 7, "10", 1.0),
        (second, 7, "Ġblue", NAME_WEIGHT),
        (POINTER_LAYER, -1, "Ġblue", 1.0),
    ]


def test_pointers_name_the_subject_of_each_clause(vocabulary: Vocabulary) -> None:
    """Of two joined facts, each number points at its own subject; "and" between two names ends nothing."""
    facts = vocabulary.encode(
        "Tom has 12 pens and Ann has 3 more than Tom. Eva has as many pens as Tom and Ann together. "
        "Max has twice as many pens as Eva, Leo has 2 fewer than Max."
    )
    made = Problem("", "", (), "relations")
    name = {token: text for text, token in vocabulary.ids.items()}
    seen = [
        (name[facts[tap.place]], tap.layer - POINTER_LAYER, name[tap.token])
        for tap in pointers(made, facts, vocabulary, 1.0)
    ]
    assert seen == [
        ("2", 0, "ĠTom"),
        ("Ġand", 1, "ĠTom"),
        ("3", 0, "ĠAnn"),
        (".", 1, "ĠAnn"),
        (".", 0, "ĠTom"),
        (".", 1, "ĠEva"),
        (".", 0, "ĠTom"),
        (",", 1, "ĠMax"),
        (",", 0, "ĠEva"),
        ("2", 0, "ĠLeo"),
        (".", 1, "ĠLeo"),
        (".", 0, "ĠMax"),
    ]


def test_a_told_quantity_is_learnt_at_the_end_of_its_clause(vocabulary: Vocabulary) -> None:
    facts = "Tom has 12 pens and finds 3 more. He gives half of the pens to Ann."
    ends = [facts.index(" and"), facts.index(". He"), len(facts) - 1]
    marks = tuple(Mark(at, value, depth) for depth, (at, value) in enumerate(zip(ends, (12, 15, 7), strict=True)))
    made = Problem(facts, "", (), "story", marks=(*marks, Mark(0, 1, len(VALUE_LAYERS))))
    name = {token: text for text, token in vocabulary.ids.items()}
    tokens = vocabulary.encode(facts)
    seen = [(name[tokens[tap.place]], tap.layer, name[tap.token]) for tap in told_values(made, vocabulary, 1.0)]
    assert seen == [("Ġand", VALUE_LAYERS[0], "12"), (".", VALUE_LAYERS[1], "15"), (".", VALUE_LAYERS[2], "7")]
    assert told_values(made, vocabulary, 0.0) == []


def test_a_shop_question_points_at_what_is_bought(vocabulary: Vocabulary) -> None:
    made = Problem("A pen costs 2 dollars.", "Tom buys 3 pens. How much does Tom pay?", (Operation("*", 2, 3),), "shop")
    asked = asked_of(made, vocabulary)
    targets = {
        asked[tap.place]: tap.token for tap in deep_taps(made, asked, 1, vocabulary, 1.0) if tap.layer == POINTER_LAYER
    }
    assert targets == {
        vocabulary.ids["Ġpens"]: vocabulary.ids["Ġpen"],
        vocabulary.ids["?"]: vocabulary.ids["ĠTom"],
    }
