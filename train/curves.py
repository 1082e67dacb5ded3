"""Learning curves of one or more runs as a picture: accuracy on held-out problems over the questions seen.

    python -m train.curves RiM=docs/rim-tiny/rim direct=docs/rim-tiny/direct -o curves.png

One panel per step count; the accuracy is that of the last readout (a control: the whole answer). Needs matplotlib.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

STEPS = ("2", "3", "4", "5")


def read_log(folder: Path) -> list[tuple[int, float, dict[str, float]]]:
    """(questions, minutes, accuracy by step count) of every evaluation. Raises ValueError for a run without one."""
    points = []
    for line in (folder / "log.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if "evaluation" in entry:
            last = {steps: table["last"] for steps, table in entry["evaluation"].items()}
            points.append((entry["samples"], entry["elapsed_s"] / 60, last))
    if not points:
        raise ValueError(f"{folder}/log.jsonl holds no evaluation yet")
    return points


def draw(runs: dict[str, Path], output: Path) -> None:
    """Write the picture of ``runs`` (label: folder) to ``output`` (.png, .svg, .pdf)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(STEPS), figsize=(13, 4), sharey=True, layout="constrained")
    for label, folder in runs.items():
        points = read_log(folder)
        for panel, steps in zip(panels, STEPS, strict=True):
            panel.plot([p[0] / 1000 for p in points], [100 * p[2][steps] for p in points], marker=".", label=label)
    for panel, steps in zip(panels, STEPS, strict=True):
        panel.set_title(f"{steps} steps")
        panel.set_xlabel("thousand questions")
        panel.set_ylim(0, 100)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("right answers, %")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(runs))
    figure.savefig(output, dpi=120)
    pyplot.close(figure)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m train.curves",
        description="Draw the learning curves of runs.",
        epilog="example: python -m train.curves RiM=docs/rim-tiny/rim direct=docs/rim-tiny/direct -o curves.png",
    )
    parser.add_argument("runs", nargs="+", metavar="LABEL=DIR", help="folders of runs and what to call them")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="picture to write")
    options = parser.parse_args(arguments)
    runs = {}
    for text in options.runs:
        label, equals, folder = text.partition("=")
        if not equals:
            parser.error(f"{text!r}: write LABEL=DIR")
        runs[label] = Path(folder)
    try:
        draw(runs, options.output)
    except (OSError, ValueError, KeyError) as error:
        print(f"train.curves: {error}", file=sys.stderr)
        return 1
    except ImportError:
        print("train.curves: matplotlib is missing: pip install '.[train]'", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
