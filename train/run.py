"""Train a RiM model from scratch with the two-stage curriculum, within a budget of wall-clock time.

    python -m train.run -o runs/rim-tiny --steps 7000 --device cuda --compile --piece-positions 512 --workers 8

Progress is the share of the time budget (or of ``--steps``) that is used, so the schedule always reaches its end. The
folder gets ``checkpoint.pt`` (every few minutes, whole or not at all) and ``log.jsonl``; the same command goes on from
the checkpoint. Ctrl-C writes a checkpoint and leaves.

Controls see the very questions that RiM sees at the same step: ``--control direct`` answers at once, ``--control told``
does so with RiM's hints about the facts, ``--control chain`` writes every step's value first; ``--stage1 0 --deep 0``
has blocks without grounding ("filler").

Several worker processes of one thread each split every batch into small pieces and take the next piece when free; they
add up their gradients once per step. On few cores that is faster than one process with several threads. With ``--device
cuda`` the workers make batches and one process trains (see ``train/graph.py``); rows then have ``--piece-positions``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from train.curriculum import (
    BLOCK_COUNT,
    Branch,
    Sample,
    Tap,
    chain,
    direct,
    grounding,
    lay_out,
    loss_sum,
    pointers,
    refinement,
    told_values,
)
from train.data import draw, split_of
from train.evaluate import accuracy, held_out
from train.files import atomic_write
from train.graph import Ahead, Arrays, GraphSteps, arrays_of
from train.model import MULTIPLIES_BF16, Llama, ModelConfig
from train.optim import Optimizer
from train.problems import Problem
from train.tokenizer import Vocabulary, build_json


@dataclass(frozen=True)
class Options:
    """What a run is made of; stored in its checkpoint."""

    output: str
    control: str = ""  # direct, told, chain, or none
    minutes: float = 100.0
    steps: int = 0  # 0: as many as the minutes allow
    device: str = "cpu"  # or cuda
    workers: int = 2
    batch_positions: int = 8000
    piece_positions: int = 1000
    questions: int = 4
    stage1: float = 0.4
    deep: float = 1.0
    told: float = 1.0  # told values' weight, as a part of what --deep gives them
    muon_lr: float = 0.005
    adam_lr: float = 1e-3
    average: float = 0.995
    seed: int = 1
    layers: int = 10
    hidden: int = 256
    ffn: int = 256
    heads: int = 8
    kv_heads: int = 2
    save_every: float = 180.0
    evaluate_every: float = 240.0
    evaluate_on: int = 96
    compile: bool = False


# Curriculum within the curriculum: up to which progress of the run, weights of 1..5 steps, and the shares of practice:
# bare arithmetic ("numbers": short, the same arithmetic and chaining as in the word problems), looking up ("lookup":
# who has what), and at the end more of the kinds that are learnt last.
DIFFICULTY: tuple[tuple[float, tuple[float, ...], dict[str, float]], ...] = (
    (0.02, (1, 1, 0, 0, 0), {"numbers": 1.0}),
    (0.10, (1, 1, 0, 0, 0), {"numbers": 0.15, "lookup": 0.5}),
    (0.18, (1, 2, 1, 0, 0), {"numbers": 0.1, "lookup": 0.2}),
    (0.35, (1, 4, 3, 1, 1), {"numbers": 0.05, "lookup": 0.15}),
    (1.01, (0.3, 3, 4, 5, 5), {"numbers": 0.02, "relations": 0.12, "shop": 0.1, "two-stories": 0.12}),
)


CONTROLS: dict[str, Callable[[Problem, Vocabulary], Branch]] = {"direct": direct, "told": direct, "chain": chain}
"""How a control is asked; ``told`` is ``direct`` with the pointers and told values that RiM's questions get."""


def batch_of(options: Options, vocabulary: Vocabulary, step: int, progress: float) -> list[list[Sample]]:
    """The pieces of one step, the longest samples first; the same on every worker.

    A step has a fixed number of positions, not of samples, so that steps of short problems hold many of them.
    """
    rng = random.Random(f"{options.seed}/{step}")
    _, weights, practice = next(row for row in DIFFICULTY if progress < row[0])
    most_steps = max(n for n, weight in enumerate(weights, start=1) if weight > 0)
    samples: list[Sample] = []
    positions = 0
    in_blocks = 0 if options.control else 1  # a control's blocks are laid out for their length alone
    while positions < options.batch_positions:
        kind = rng.choices((*practice, None), (*practice.values(), 1 - sum(practice.values())))[0]
        n_steps = 1 if kind == "lookup" else rng.choices((1, 2, 3, 4, 5), weights)[0]
        main = draw(rng, "train", n_steps, kind=kind)
        others = [
            other
            for other in main.others
            if len(other.operations) <= most_steps and split_of(other.canonical) == "train"
        ]
        recalls = [other for other in others if other.kind == "recall"]
        questions = [other for other in others if other.kind != "recall"]
        problems = [main, *rng.sample(questions, min(len(questions), options.questions - 1))]
        if progress < options.stage1:
            deep = options.deep
            s = progress / options.stage1
            branches = [grounding(p, vocabulary, s, in_blocks * deep, blocks_of(rng, p)) for p in problems]
        else:
            deep = 0.6 * options.deep * (1 - 0.8 * (progress - options.stage1) / (1 - options.stage1))
            branches = [refinement(p, vocabulary, in_blocks * deep) for p in problems]
        branches += [direct(p, vocabulary) for p in recalls]
        facts = vocabulary.encode(main.facts)
        taps: list[Tap] = []
        if options.control in ("", "told"):
            taps = pointers(main, facts, vocabulary, 0.8 * deep)
            taps += told_values(main, vocabulary, 0.8 * deep * options.told)
        sample = Sample(facts, branches, taps)
        positions += sample.length
        if options.control:
            sample = replace(sample, branches=[CONTROLS[options.control](p, vocabulary) for p in problems + recalls])
        samples.append(sample)
    samples.sort(key=lambda sample: -sample.length)
    pieces: list[list[Sample]] = [[]]
    for sample in samples:
        if (len(pieces[-1]) + 1) * pieces[-1][0].length > options.piece_positions if pieces[-1] else False:
            pieces.append([])
        pieces[-1].append(sample)
    return pieces


def blocks_of(rng: random.Random, problem: Problem) -> int:
    """How many blocks a problem gets in stage 1: often one per step, at times more, up to all."""
    n_steps = len(problem.values)
    return min(BLOCK_COUNT, n_steps + rng.choices((0, 1, 2, BLOCK_COUNT), (4, 3, 2, 1))[0])


def lr_scale(progress: float, stage1: float) -> float:
    """Learning-rate factor. Stage 1: 4 % warm-up, then constant. Stage 2: 4 % warm-up, then cosine to 5 %."""
    if progress < stage1:
        return min(1.0, 0.02 + progress / stage1 / 0.04)
    within = (progress - stage1) / (1 - stage1)
    return min(0.02 + within / 0.04, 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, within))))


class Run:
    """State of one training run in one worker process."""

    def __init__(self, options: Options, rank: int) -> None:
        self.options, self.rank = options, rank
        self.folder = Path(options.output)
        self.vocabulary = Vocabulary(build_json())
        self.config = ModelConfig(
            len(self.vocabulary), options.hidden, options.ffn, options.layers, options.heads, options.kv_heads
        )
        self.model = Llama(self.config)
        self.model.initialise(options.seed)
        self._twin_forms()
        self.model.to(options.device)
        if options.compile:
            for layer in self.model.layers:
                layer.compile(dynamic=True)
        self.step, self.samples, self.elapsed_s, self.stage = 0, 0, 0.0, 1
        self.optimizer = self._fresh_optimizer()
        self.average: dict[str, torch.Tensor] | None = None
        self.stop = False
        if (self.folder / "checkpoint.pt").exists():
            self._load()

    def _fresh_optimizer(self) -> Optimizer:
        return Optimizer(self.model, self.options.muon_lr, self.options.adam_lr)

    @torch.no_grad()
    def _twin_forms(self) -> None:
        """Start the two forms of a word, with and without its leading space, from one embedding."""
        weight, ids = self.model.embed_tokens.weight, self.vocabulary.ids
        for token, index in ids.items():
            if token.startswith("Ġ") and token[1:] in ids:
                weight[ids[token[1:]]] = weight[index]

    @property
    def progress(self) -> float:
        """How much of the budget is used, in 0..1."""
        return self.progress_at(self.step)

    def progress_at(self, step: int) -> float:
        """``progress`` when ``step`` is the next; a budget of time does not know that and gives today's."""
        if self.options.steps:
            return min(1.0, step / self.options.steps)
        return min(1.0, self.elapsed_s / (60 * self.options.minutes))

    def checkpoint(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "config": self.config.as_dict(),
            "tokenizer": self.vocabulary.tokenizer_json,
            "options": asdict(self.options),
            "step": self.step,
            "samples": self.samples,
            "elapsed_s": self.elapsed_s,
            "stage": self.stage,
        }

    def save(self, name: str = "checkpoint.pt") -> None:
        with atomic_write(self.folder / name) as stream:
            torch.save(self.checkpoint(), stream)

    def _load(self) -> None:
        saved = torch.load(self.folder / "checkpoint.pt", weights_only=True, map_location=self.options.device)
        if saved["config"] != self.config.as_dict() or saved["tokenizer"] != self.vocabulary.tokenizer_json:
            raise ValueError(
                f"{self.folder}/checkpoint.pt holds a model of another shape or vocabulary: use a new folder"
            )
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.average = saved["average"]
        self.step, self.samples = saved["step"], saved["samples"]
        self.elapsed_s, self.stage = saved["elapsed_s"], saved["stage"]

    def log(self, **fields: Any) -> None:
        if self.rank == 0:
            line = json.dumps(
                {"step": self.step, "samples": self.samples, "elapsed_s": round(self.elapsed_s, 1), **fields}
            )
            with open(self.folder / "log.jsonl", "a") as stream:
                stream.write(line + "\n")
            print(line, flush=True)

    def count(self, questions: int) -> None:
        """A step on so many questions is done."""
        self._update_average()
        self.step += 1
        self.samples += questions

    @torch.no_grad()
    def _update_average(self) -> None:
        """Exponential average of the weights, in stage 2."""
        if self.stage != 2 or self.rank != 0:
            return
        state = self.model.state_dict()
        if self.average is None:
            self.average = {name: value.clone() for name, value in state.items()}
        torch._foreach_lerp_([self.average[name] for name in state], list(state.values()), 1 - self.options.average)

    def enter_stage_2(self) -> None:
        """Optimizer and schedule start anew."""
        self.stage = 2
        self.optimizer = self._fresh_optimizer()
        self.average = None

    def evaluate(self, problems: Any) -> None:
        kind = self.options.control or ("grounding" if self.stage == 1 else "refinement")
        # Other shapes, and no gradients: compiling for them would take longer than it saves.
        with torch.compiler.set_stance("force_eager"):
            table = accuracy(self.model, self.vocabulary, problems, kind)
        self.log(evaluation=table)


class CpuSteps:
    """Steps that several worker processes share: each takes the next piece of the batch when it is free."""

    def __init__(self, run: Run, store: Any) -> None:
        self.run, self.store = run, store

    def take(self) -> float:
        """One optimizer step on one batch; returns the loss per unit of weight."""
        run = self.run
        pieces = batch_of(run.options, run.vocabulary, run.step, run.progress)
        total = sum(sample.total_weight for piece in pieces for sample in piece)
        run.model.zero_grad(set_to_none=False)
        loss = 0.0
        for number in self._taken_pieces(len(pieces)):
            # Matrix products alone are in BF16; weights, norms and losses stay in FP32.
            with torch.autocast("cpu", torch.bfloat16, enabled=MULTIPLIES_BF16):
                piece_loss = loss_sum(run.model, lay_out(pieces[number], run.vocabulary)) / total
            piece_loss.backward()  # type: ignore[no-untyped-call]
            loss += piece_loss.item()
        loss = self._add_up(loss)
        run.optimizer.step(lr_scale(run.progress, run.options.stage1))
        run.count(sum(len(sample.branches) for piece in pieces for sample in piece))
        return loss

    def _taken_pieces(self, n_pieces: int) -> Iterator[int]:
        """Numbers of the pieces of this step that this worker takes."""
        while (taken := self.store.add(f"step-{self.run.step}", 1) - 1) < n_pieces:
            yield taken

    def _add_up(self, loss: float) -> float:
        """Sum gradients (and the loss) over the workers."""
        parameters = list(self.run.model.parameters())
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([torch.tensor([loss]), *(p.grad.flatten() for p in parameters if p.grad is not None)])
        if dist.get_world_size() > 1:
            dist.all_reduce(flat)
        for parameter, gradient in zip(parameters, torch.split(flat[1:], [p.numel() for p in parameters]), strict=True):
            parameter.grad = gradient.view_as(parameter)
        return float(flat[0])

    def close(self) -> None:
        """Leave the other workers."""
        dist.barrier()
        dist.destroy_process_group()


@cache
def _vocabulary() -> Vocabulary:
    return Vocabulary(build_json())


def arrays_for(options: Options, step: int, progress: float) -> Arrays:
    """The batch of one step as ``train/graph.py`` takes it."""
    vocabulary = _vocabulary()
    samples = [sample for piece in batch_of(options, vocabulary, step, progress) for sample in piece]
    return arrays_of(samples, vocabulary, options.piece_positions, options.layers)


class GpuSteps:
    """Steps on a GPU; the worker processes make batches."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.ahead = Ahead(partial(arrays_for, run.options), run.options.workers, run.step)
        self.steps: GraphSteps | None = None
        self.phase: tuple[int, int] | None = None

    def take(self) -> Tensor:
        """One optimizer step on one batch; returns the loss per unit of weight, on the GPU."""
        run = self.run
        phase = run.stage, next(i for i, row in enumerate(DIFFICULTY) if run.progress < row[0])
        if self.steps is None or self.steps.optimizer is not run.optimizer:
            self.steps = GraphSteps(run.model, run.optimizer)
        elif phase != self.phase:
            self.steps.shrink()
        self.phase = phase
        arrays = self.ahead.take(run.progress_at)
        loss = self.steps.step(arrays, lr_scale(run.progress, run.options.stage1))
        run.count(arrays.questions)
        return loss

    def close(self) -> None:
        """End the worker processes."""
        self.ahead.close()


def agree(values: list[float]) -> list[float]:
    """Rank 0's values on every worker."""
    tensor = torch.tensor(values, dtype=torch.float64)
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.broadcast(tensor, 0)
    return [float(value) for value in tensor]


def work(rank: int, options: Options, store_path: str) -> None:
    """What each process that trains does from start to end."""
    torch.set_num_threads(1)
    run = Run(options, rank)
    steps: CpuSteps | GpuSteps
    if options.device == "cuda":
        steps = GpuSteps(run)
    else:
        store = dist.FileStore(store_path, options.workers)  # type: ignore[attr-defined]
        dist.init_process_group("gloo", store=store, rank=rank, world_size=options.workers)
        steps = CpuSteps(run, dist.PrefixStore("pieces", store))  # type: ignore[attr-defined]
    try:
        _train(run, steps)
    finally:
        steps.close()


def _train(run: Run, steps: CpuSteps | GpuSteps) -> None:
    options, rank = run.options, run.rank

    def request_stop(number: int, frame: object) -> None:
        run.stop = rank == 0

    signal.signal(signal.SIGINT, request_stop)
    signal.signal(signal.SIGTERM, request_stop)
    problems = held_out((2, 3, 4, 5), options.evaluate_on, seed=1000) if rank == 0 else {}
    last = time.monotonic()
    saved_s = evaluated_s = logged_s = run.elapsed_s
    losses: list[float | Tensor] = []
    samples_then = run.samples
    while True:
        now = time.monotonic()
        run.elapsed_s, last = run.elapsed_s + now - last, now
        run.elapsed_s, stop = agree([run.elapsed_s, float(run.stop)])
        if run.stage == 1 and run.progress >= options.stage1:
            run.evaluate(problems)
            if rank == 0:
                run.save("stage1.pt")
            run.enter_stage_2()
        if stop or run.progress >= 1.0:
            break
        losses.append(steps.take())
        if run.elapsed_s - logged_s > 20:
            rate = (run.samples - samples_then) / (run.elapsed_s - logged_s)
            loss = sum(float(loss) for loss in losses) / len(losses)
            run.log(stage=run.stage, loss=round(loss, 4), samples_per_s=round(rate, 1))
            losses, logged_s, samples_then = [], run.elapsed_s, run.samples
        if rank == 0 and run.elapsed_s - evaluated_s > options.evaluate_every:
            run.evaluate(problems)
            evaluated_s = run.elapsed_s
        if rank == 0 and run.elapsed_s - saved_s > options.save_every:
            run.save()
            saved_s = run.elapsed_s
    if rank == 0:
        run.save()
        run.evaluate(problems)


def parse(arguments: list[str] | None) -> Options:
    parser = argparse.ArgumentParser(
        prog="python -m train.run",
        description="Train a RiM model from scratch: grounding, then refinement. Continues from a checkpoint.",
        epilog="example: python -m train.run -o runs/rim-tiny --minutes 300 --compile",
    )
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="folder of the run")
    for name, default in asdict(Options("")).items():
        if name == "output":
            continue
        flag = "--" + name.replace("_", "-")
        if name == "control":
            parser.add_argument(flag, choices=sorted(CONTROLS), default="", help="train a control instead")
        elif name == "device":
            parser.add_argument(flag, choices=("cpu", "cuda"), default=default, help=f"(default {default})")
        elif isinstance(default, bool):
            parser.add_argument(flag, action="store_true", help=f"(default {default})")
        else:
            parser.add_argument(flag, type=type(default), default=default, help=f"(default {default})")
    return Options(**vars(parser.parse_args(arguments)))


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    options = parse(arguments)
    try:
        if options.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("this PyTorch sees no CUDA device: leave --device out to train on the CPU")
        Path(options.output).mkdir(parents=True, exist_ok=True)
        handle, store_path = tempfile.mkstemp(prefix="train-store-")
        os.close(handle)
        os.unlink(store_path)
        others = [
            mp.get_context("spawn").Process(target=work, args=(rank, options, store_path), daemon=True)
            for rank in range(1, options.workers if options.device == "cpu" else 1)
        ]
        for process in others:
            process.start()
        work(0, options, store_path)
        for process in others:
            process.join()
    except (OSError, ValueError) as error:
        print(f"train.run: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
