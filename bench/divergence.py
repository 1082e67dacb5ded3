"""What our kernels do to a model's answers, beside what libllama's own do: divergence and perplexity on a text.

    python bench/divergence.py REFERENCE.gguf MODEL.gguf... --text FILE [--passages 16] [--length 256] [--threads N]

REFERENCE is the unquantized model (F32), run with libllama's kernels; MODEL are quantizations of it, each run with ours
and with libllama's, in processes of their own. FILE is plain text, or JSON lines with "question" and "answer". Columns:
mean KL in nats per token, from REFERENCE to each, from libllama to ours, and from libllama's one pass to the same text
in passes of --split tokens; perplexity of the text.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt
from splits import Rows, log_softmax

from rim_edge.benchmark.child import Child
from rim_edge.errors import RimError


class Side:
    """A model in a child process; logits go through files."""

    def __init__(self, path: str, n_threads: int) -> None:
        from rim_edge import _native

        self._native = _native
        self._model = _native.Model(path)
        self._n_threads = n_threads

    def tokens(self, text: str) -> list[int]:
        return list(self._model.tokenize(text))

    def logits(self, tokens: list[int], width: int, file: str) -> None:
        """The logits at every position of ``tokens``, ``[T, n_vocab]``, to ``file``; passes of ``width`` tokens."""
        options = self._native.SessionOptions(n_ctx=max(1024, len(tokens)), n_ubatch=width, n_threads=self._n_threads)
        rows = self._native.batch_logits(self._model, tokens, options, list(range(len(tokens))))
        np.save(file, np.asarray(rows, np.float32))


def divergence(p: Rows, q: Rows) -> npt.NDArray[np.float64]:
    """KL(p || q) in nats of every row; both are log-probabilities."""
    return (np.exp(p) * (p - q)).sum(axis=-1)


def read(path: Path) -> str:
    """The text of a file, of JSON lines the questions and answers."""
    text = path.read_text()
    if path.suffix != ".jsonl":
        return text
    lines = [json.loads(line) for line in text.splitlines()]
    return "\n\n".join(f"{line['question']}\n{line['answer']}" for line in lines)


def measure(reference: Path, model: Path, text: str, options: argparse.Namespace, folder: Path) -> list[str]:
    """One row of the table."""
    plain = {"RIM_EDGE_KERNELS": "0"}
    file = str(folder / "logits.npy")
    kl: dict[str, list[float]] = {name: [] for name in ("reference, libllama", "reference, ours", "both", "split")}
    surprise: dict[str, list[float]] = {name: [] for name in ("reference", "libllama", "ours")}
    with ExitStack() as stack:
        sides = {
            name: stack.enter_context(
                Child(
                    "divergence:Side",
                    {"path": str(path), "n_threads": options.threads},
                    name=f"{path.name}, {name}",
                    environment=environment,
                )
            )
            for name, path, environment in (
                ("reference", reference, plain),
                ("libllama", model, plain),
                ("ours", model, {}),
            )
        }
        tokens = sides["reference"].call("tokens", text=text[: 8 * options.length * options.passages])
        passages = [tokens[i : i + options.length] for i in range(0, len(tokens) - options.length, options.length)]
        for passage in passages[: options.passages]:
            found = {}
            for name, side in sides.items():
                side.call("logits", tokens=passage, width=options.length, file=file)
                found[name] = log_softmax(np.load(file))
                next_tokens = found[name][np.arange(len(passage) - 1), passage[1:]]
                surprise[name] += (-next_tokens).tolist()
            kl["reference, libllama"] += divergence(found["reference"], found["libllama"]).tolist()
            kl["reference, ours"] += divergence(found["reference"], found["ours"]).tolist()
            kl["both"] += divergence(found["libllama"], found["ours"]).tolist()
            sides["libllama"].call("logits", tokens=passage, width=options.split, file=file)
            kl["split"] += divergence(found["libllama"], log_softmax(np.load(file))).tolist()
    cells = [f"{np.mean(values):.5f}" for values in kl.values()]
    perplexity = {name: float(np.exp(np.mean(values))) for name, values in surprise.items()}
    cells += [f"{value:.3f}" for value in perplexity.values()]
    cells.append(f"{100 * (perplexity['ours'] / perplexity['libllama'] - 1):+.2f} %")
    return [model.stem, *cells]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference", type=Path)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--passages", type=int, default=16)
    parser.add_argument("--length", type=int, default=256, help="tokens of a passage (%(default)s)")
    parser.add_argument("--split", type=int, default=32, help="tokens of a pass where libllama splits (%(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    try:
        text = read(options.text)
        heads = [
            "weights",
            "KL(ref, libllama)",
            "KL(ref, ours)",
            "KL(libllama, ours)",
            "KL(libllama, its split)",
        ]
        heads += ["perplexity ref", "libllama", "ours", "ours / libllama"]
        print("| " + " | ".join(heads) + " |")
        print("| --- " + "| ---: " * (len(heads) - 1) + "|")
        with tempfile.TemporaryDirectory() as folder:
            for model in options.models:
                row = measure(options.reference, model, text, options, Path(folder))
                print("| " + " | ".join(row) + " |", flush=True)
    except (OSError, RimError, ValueError) as error:
        print(f"divergence: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
