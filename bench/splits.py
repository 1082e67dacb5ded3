"""How much the split of a text into passes changes the logits, ours beside libllama's own.

    python bench/splits.py MODEL.gguf [--question 74] [--questions 4] [--cache-type f16] [--flash-attention auto]

libllama's kernels give slightly different numbers for other batch widths. For random questions followed by 8 blocks
this prints the mean KL divergence, over all readouts, from one plain pass to: the same tokens in two plain passes
(libllama alone), a session that reuses a prefix, and a session that runs the blocks in two groups.
"""

from __future__ import annotations

import argparse

import numpy as np
import numpy.typing as npt

from rim_edge import _native

SIZE, COUNT = 2, 8
Rows = npt.NDArray[np.float64]


def log_softmax(rows: npt.ArrayLike) -> Rows:
    x = np.asarray(rows, np.float64)
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def divergence(reference: Rows, other: npt.ArrayLike) -> float:
    """Mean KL(reference || other) in nats over the rows."""
    log_p, log_q = log_softmax(reference), log_softmax(other)
    return float((np.exp(log_p) * (log_p - log_q)).sum(axis=-1).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--question", type=int, default=74, help="tokens of a question (%(default)s)")
    parser.add_argument("--questions", type=int, default=4)
    parser.add_argument("--cache-type", default="f16")
    parser.add_argument("--flash-attention", default="auto")
    arguments = parser.parse_args()
    model = _native.Model(arguments.model)
    options = _native.SessionOptions(
        n_ctx=1024, cache_type=arguments.cache_type, flash_attention=arguments.flash_attention
    )
    control = set(model.control_ids)
    ordinary = [token for token in range(model.n_vocab) if token not in control]
    begin, memory, end = ordinary[:3]
    layout = _native.Blocks(begin_id=begin, memory_id=memory, end_id=end, size=SIZE, count=COUNT)
    ours = _native.Session(model, layout, options)
    plain = _native.Session(model, None, options)
    rng = np.random.default_rng(0)
    found: dict[str, list[float]] = {
        "libllama, two passes": [],
        "session, reused prefix": [],
        "session, two groups": [],
    }
    for _ in range(arguments.questions):
        question = [int(token) for token in rng.choice(ordinary, arguments.question)]
        tokens = question + [begin, *[memory] * SIZE, end] * COUNT
        ends = [len(question) + (SIZE + 2) * k - 1 for k in range(1, COUNT + 1)]
        reference = _native.batch_logits(model, tokens, options, ends)
        half = len(question) // 2

        split = []
        for row in ends:
            plain.reset()
            plain.prefill(tokens[:half])
            split.append(plain.think([tokens[: row + 1]], 0, logits=True)[0][0].logits)
        found["libllama, two passes"].append(divergence(reference, split))

        ours.reset()
        ours.prefill(question[:half])
        reused = ours.think([question], COUNT, logits=True)[0]
        found["session, reused prefix"].append(divergence(reference, [r.logits for r in reused]))

        ours.reset()
        groups = [*ours.think([question], 2, logits=True)[0], *ours.extend(COUNT, logits=True)[0]]
        found["session, two groups"].append(divergence(reference, [r.logits for r in groups]))
    print(f"{model.description}, {arguments.questions} questions of {arguments.question} tokens, {COUNT} readouts each")
    for name, values in found.items():
        print(f"  {name:24} mean KL {np.mean(values):.2e} nats, largest {np.max(values):.2e}")


if __name__ == "__main__":
    main()
