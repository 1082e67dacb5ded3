"""Which quantization? Sweep a model over many types, or make a single file.

    python convert/quantize.py model-bf16.gguf --data problems.jsonl --out sweep/
    python convert/quantize.py model-bf16.gguf --data test.jsonl --out sweep/ --types q8_0 q4_k_m --calibrate c.jsonl
    python convert/quantize.py model-bf16.gguf --type q4_k_m --output model-q4_k_m.gguf

The same command is installed as ``rim-edge quantize``. What it measures and writes is said in docs/quantize.md.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not __package__:  # run as a file: convert/ is this checkout's, rim_edge the installed one
    sys.path[:] = [*sys.path[1:], str(Path(__file__).resolve().parents[1])]
    __package__ = "convert"

import click

from rim_edge.cli import console
from rim_edge.cli.app import CommandGroup
from rim_edge.cli.work import interrupt_on_sigterm
from rim_edge.errors import OptionError

_PATH = click.Path(path_type=Path)


class _Command(click.Command):
    """``--types a b c`` takes every following word that names a type; click knows one value per option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _spread_types(args))


def _spread_types(args: list[str]) -> list[str]:
    from .quantization.recipe import Recipe

    def is_type(word: str) -> bool:
        try:
            return bool(Recipe(word).type)
        except OptionError:
            return False

    spread: list[str] = []
    i = 0
    while i < len(args):
        spread.append(args[i])
        i += 1
        if spread[-1] == "--types" and i < len(args):
            words = [args[i]]
            while i + len(words) < len(args) and is_type(args[i + len(words)]):
                words.append(args[i + len(words)])
            spread.append(",".join(words))
            i += len(words)
    return spread


@click.command(
    cls=_Command,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  rim-edge quantize model-bf16.gguf --data problems.jsonl --out sweep
  rim-edge quantize model-bf16.gguf --data test.jsonl --out sweep --types q8_0 q4_k_m q2_k --calibrate train.jsonl
  rim-edge quantize model-bf16.gguf --type q4_k_m --output model-q4_k_m.gguf --tensor-type ffn_down=q6_k""",
)
@click.argument("source", metavar="MODEL", type=_PATH)
@click.option("--data", type=_PATH, metavar="FILE", help="Sweep: problems to measure with, JSON lines.")
@click.option("--out", type=_PATH, metavar="DIR", help="Sweep: folder of files and reports; run again to go on.")
@click.option("--types", multiple=True, metavar="TYPE...", help="Sweep: types to make. Default: q8_0 to q2_k, eight.")
@click.option("--type", "kind", metavar="TYPE", help="Make a single file of this type, without measuring.")
@click.option("-o", "--output", type=_PATH, metavar="FILE", help="The single file.")
@click.option("--force", is_flag=True, help="Overwrite the single file.")
@click.option("--tensor-type", multiple=True, metavar="REGEX=TYPE", help="Type of the tensors whose name it finds.")
@click.option("--output-type", metavar="TYPE", help="Type of the output matrix.")
@click.option("--embedding-type", metavar="TYPE", help="Type of the token embedding.")
@click.option(
    "--calibrate", type=_PATH, metavar="FILE", help="Collect an importance matrix on these answered problems."
)
@click.option(
    "--slot-weight", type=click.FloatRange(0), default=1.0, show_default=True, help="Weight of memory-block positions."
)
@click.option("--text-only", is_flag=True, help="Calibrate without memory blocks, as for a plain model.")
@click.option("--imatrix", type=_PATH, metavar="FILE", help="Take a finished importance matrix (GGUF).")
@click.option("--save-imatrix", type=_PATH, metavar="FILE", help="Where to leave the importance matrix too.")
@click.option("--suite", metavar="NAME", help="Kind of the data: gsm8k, svamp, math500, ...; default: any known form.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N problems.")
@click.option("--blocks", type=click.IntRange(0, 256), metavar="K", help="Memory blocks to run. Default: as trained.")
@click.option(
    "--max-tokens", type=click.IntRange(1), metavar="N", help="Most tokens of an answer. Default: the suite's."
)
@click.option("--batch", type=click.IntRange(1, 256), default=4, show_default=True, help="Problems side by side.")
@click.option("--rounds", type=click.IntRange(0), default=5, show_default=True, help="Speed samples; 0: no speed.")
@click.option("--slots", is_flag=True, help="Measure also what the precision of the slot embeddings does.")
@click.option(
    "--keep/--discard", default=True, help="Keep the quantized files of the sweep, or remove them at the end."
)
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Default: the physical cores.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def quantize(source: Path, **options: Any) -> int:
    """Quantize MODEL, a GGUF file of F32, F16 or BF16.

    With --data and --out: a sweep. Each type is made and measured against MODEL at every readout, and the reports
    say which file to ship. With --type and --output: a single file.
    """
    interrupt_on_sigterm()
    single = options["kind"] is not None or options["output"] is not None
    wanted = ("kind", "output") if single else ("data", "out")
    names = {"kind": "--type", "output": "--output", "data": "--data", "out": "--out", "types": "--types"}
    for name in wanted:
        if options[name] is None:
            other = next(n for n in wanted if n != name)
            raise click.UsageError(
                f"{names[name]} is missing beside {names[other]}"
                if options[other] is not None
                else "give --data and --out for a sweep, or --type and --output for a single file"
            )
    for name in ("data", "out", "types") if single else ():
        if options[name]:
            raise click.UsageError(f"{names[name]} belongs to a sweep, --type and --output make a single file")
    if options["calibrate"] and options["imatrix"]:
        raise click.UsageError("--calibrate collects an importance matrix and --imatrix reads one: give one of them")
    if options["save_imatrix"] and not options["calibrate"]:
        raise click.UsageError("--save-imatrix leaves what --calibrate collects: give that too")
    return _single(source, options) if single else _sweep(source, options)


def _calibration(options: dict[str, Any]) -> Any:
    from .sweep.plan import Calibration

    if options["calibrate"] is None and options["imatrix"] is None:
        return None
    return Calibration(options["calibrate"], options["slot_weight"], options["text_only"], options["imatrix"])


def _sweep(source: Path, options: dict[str, Any]) -> int:
    from rim_edge.evaluation.suites import find_suite

    from .quantization.recipe import parse_tensor_type
    from .sweep.plan import DEFAULT_TYPES, Settings, SweepOptions
    from .sweep.progress import watching
    from .sweep.report import complete, write_reports
    from .sweep.run import Sweep
    from .sweep.table import quality_lines, slot_lines, speed_lines, type_lines

    types = tuple(word for text in options["types"] for word in text.replace(",", " ").split())
    settings = Settings(
        blocks=options["blocks"],
        max_tokens=options["max_tokens"] or find_suite(options["suite"]).max_tokens,
        batch=options["batch"],
        suite=options["suite"],
        n_threads=options["threads"],
    )
    plan = SweepOptions(
        source=source,
        data=options["data"],
        out=options["out"],
        types=types or DEFAULT_TYPES,
        tensor_types=tuple(parse_tensor_type(text) for text in options["tensor_type"]),
        output_type=options["output_type"],
        embedding_type=options["embedding_type"],
        calibration=_calibration(options),
        limit=options["limit"],
        rounds=options["rounds"],
        slots=options["slots"],
        keep=options["keep"],
        save_matrix=options["save_imatrix"],
        settings=settings,
    )
    with watching(options["quiet"]) as watch:
        sweep = Sweep(plan, watch)
        try:
            report = complete(sweep.run())
        except KeyboardInterrupt:
            watch.say(f"Finished parts are kept in {plan.out}: the same command goes on from there.")
            raise
        notices = [*report["notices"], *write_reports(report, plan.out)]
    for lines in (
        quality_lines(report["types"]),
        speed_lines(report["types"]),
        type_lines(report["types"]),
        slot_lines(report["slots"]) if report["slots"] else [],
    ):
        if lines:
            console.out("\n".join(lines) + "\n")
    console.out(report["recommendation"]["sentence"])
    console.out(f"Reports: {plan.out / 'sweep.html'}, sweep.png, sweep.json, sweep.csv")
    for notice in notices:
        console.remark(f"Note: {notice}")
    return 0


def _single(source: Path, options: dict[str, Any]) -> int:
    from .progress_bar import progress_bar
    from .quantization.importance import ImportanceMatrix
    from .quantization.quantizer import quantize_file
    from .quantization.recipe import Recipe, parse_tensor_type
    from .sweep.calibration import calibration_problems, collect
    from .sweep.files import facts, fallback_notice
    from .sweep.progress import watching
    from .sweep.table import type_lines
    from .whole_file import check_output

    overrides = tuple(parse_tensor_type(text) for text in options["tensor_type"])
    recipe = Recipe(options["kind"], overrides, options["output_type"], options["embedding_type"])
    output: Path = options["output"]
    check_output(output, options["force"])
    calibration, matrix = _calibration(options), None
    if calibration is not None and calibration.matrix is not None:
        matrix = ImportanceMatrix.load(calibration.matrix)
    elif calibration is not None:
        problems = calibration_problems(calibration, options["suite"])
        with watching(options["quiet"]) as watch:
            watch.stage("calibrating", len(problems))
            matrix = collect(
                source, calibration, problems, options["suite"], options["threads"], lambda done, _: watch.done(done)
            )
        if options["save_imatrix"] is not None:
            matrix.save(options["save_imatrix"], force=True)
    with progress_bar(output.name) as progress:
        file = quantize_file(
            source,
            output,
            recipe,
            matrix,
            n_threads=options["threads"] or 0,
            progress=progress,
            force=options["force"],
        )
    console.out("\n".join(type_lines([{"type": recipe.type, "file": facts(file)}])))
    console.out(f"{output}: {file.size_bytes / 1e6:,.2f} MB, {file.bits_per_weight:.2f} bits per weight")
    console.out(f"SHA-256 {file.sha256}")
    if file.fallbacks:
        console.remark(f"Note: {fallback_notice(recipe.type, file.fallbacks)}")
    for notice in file.notices:
        console.remark(f"Note: {notice}")
    return 0


class _Alone(CommandGroup):
    """The group of ``rim-edge``, for the way it ends, with this command in it."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        return quantize


def main(arguments: list[str] | None = None) -> None:
    """The command by itself; leaves through SystemExit as ``rim-edge quantize`` does."""
    _Alone("quantize.py").main(["quantize", *(sys.argv[1:] if arguments is None else arguments)], prog_name="")


if __name__ == "__main__":
    main()
