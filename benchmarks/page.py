"""Make the tables of docs/performance.md from the lines that `record.py` kept.

    python benchmarks/page.py

Replaces the text between `<!-- NAME -->` and `<!-- end -->`; a table without any line is empty.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import tyro
from record import read

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
Line = dict[str, Any]


def main() -> None:
    """Write the tables into the page."""
    text = PAGE.read_text(encoding="utf-8")

    def filled(match: re.Match[str]) -> str:
        return f"{match[1]}\n\n{TABLES[match[2]]()}\n\n<!-- end -->"

    text = re.sub(r"(<!-- ([\w-]+) -->)\n.*?<!-- end -->", filled, text, flags=re.DOTALL)
    PAGE.write_text(text, encoding="utf-8")


def ranking() -> str:
    """Users per second, in batches."""
    lines = [line for line in read("ranking") if "users_per_s" in line]
    systems = list(dict.fromkeys(name for line in lines for name in line["users_per_s"]))
    rows = [
        [
            {"candidates": "200 candidates", "catalog": "whole catalog, top 10"}[line["case"]],
            line["dim"],
            line["history"],
            *(_rate(line, name) for name in systems),
            f"{line['matmul_share']:.0%}",
        ]
        for line in lines
    ]
    names = [_NAMES.get(name, name) for name in systems]
    return _table(["", "width", "history", *names, "share of the product limit"], rows, lines)


def latency() -> str:
    """Milliseconds of one request."""
    lines = [line for line in read("ranking") if line["case"].startswith("one_")]
    systems = ["bundle_float32", "torch"]
    rows = [
        [
            {"one_candidates": "200 candidates", "one_catalog": "whole catalog"}[line["case"]],
            line["dim"],
            line["history"],
            *(f"{line[n]['p50_ms']:.1f} / {line[n]['p99_ms']:.1f}" for n in systems if n in line),
        ]
        for line in lines
    ]
    return _table(["p50 / p99 in ms", "width", "history", "this package", "PyTorch"], rows, lines)


def training() -> str:
    """Sequences per second of training."""
    lines = [line for line in read("training") if "system" in line]
    summary = [line["summary"] for line in read("training") if "summary" in line]
    systems = list(dict.fromkeys(line["system"] for line in lines))

    def median(system: str, key: str, tuned: bool) -> float:
        return statistics.median(
            line[key] for line in lines if (line["system"], line["tuned_malloc"]) == (system, tuned)
        )

    rows = [
        [
            system,
            *(f"{median(system, 'sequences_per_s', tuned):,.0f}" for tuned in (False, True)),
            median(system, "peak_rss_gb", True),
        ]
        for system in systems
    ]
    head = ["sequences per second", "malloc as it comes", "malloc tuned", "peak memory, GB"]
    shares = [line["share_of_limit"] for line in lines if "share_of_limit" in line]
    ratios = summary[-1] if summary else {"ratio_as_shipped": "", "ratio_all_tuned": ""}
    return (
        f"{_table(head, rows, lines)}\n\nAs shipped, where this package tunes malloc by itself, it "
        f"is {ratios['ratio_as_shipped']} times as fast as the fastest other system; with malloc "
        f"tuned for all, {ratios['ratio_all_tuned']} times. The products that the histories need "
        f"run at {statistics.median(shares):.0%} of the product limit."
        if lines
        else ""
    )


def prepare() -> str:
    """Seconds and memory of `bert4rec prepare`."""
    lines = read("prepare")
    rows = [
        [
            f"{line['n']:,}{' (extrapolated)' if 'extrapolated_from' in line else ''}",
            line["seconds"],
            line["peak_rss_gb"],
        ]
        for line in lines
    ]
    return _table(["interactions", "seconds", "peak memory, GB"], rows, lines)


def gpu() -> str:
    """Sequences per second of training on a GPU."""
    lines = read("gpu")
    ours = {
        (line["size"], _batch(line)): line["sequences_per_s"]
        for line in lines
        if line["system"] == "BERT4Rec-JAX" and line["bfloat16"]
    }
    rows = [
        [
            line["system"],
            {"default": "compiled", "reduce-overhead": "compiled, CUDA graphs"}.get(
                line.get("compile", ""), "" if line["bfloat16"] else "float32"
            ),
            f"{line['width']}, {line['layers']} layers",
            _batch(line),
            f"{line['sequences_per_s']:,.0f}",
            f"{ours[line['size'], _batch(line)] / line['sequences_per_s']:.2f}",
        ]
        for line in lines
    ]
    head = ["", "", "width", "histories per step", "sequences per second", "this package's lead"]
    return _table(head, rows, lines)


def _batch(line: Line) -> int:
    return 512 if line["sequences_per_step"] > 256 else 128


TABLES: dict[str, Callable[[], str]] = {
    "ranking": ranking,
    "latency": latency,
    "training": training,
    "prepare": prepare,
    "gpu": gpu,
}
_NAMES = {
    "ours": "this package",
    "bundle_float32": "this package",
    "torch": "PyTorch",
    "rectools": "RecTools",
}


def _rate(line: Line, name: str) -> str:
    if name not in line["users_per_s"]:
        return ""
    rates = line["users_per_s"]
    ours = next(rate for system, rate in rates.items() if _NAMES.get(system) == "this package")
    share = "" if rates[name] == ours else f" ({rates[name] / ours:.2f})"
    return f"{rates[name]:,.0f}{share}"


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]], lines: list[Line]) -> str:
    """A Markdown table, and below it the command, commit and device of its lines, if any."""
    if not lines:
        return ""
    head = list(head)
    shown = [head, ["---"] * len(head), *rows]
    text = "\n".join(f"| {' | '.join(str(cell) for cell in row)} |" for row in shown)
    sources = dict.fromkeys(
        f"`{line['command']}`, commit {line['commit']}, {_device(line['device'])}, JAX "
        f"{line['device']['jax']}"
        for line in lines
    )
    return text + "\n\n" + "; ".join(sources) + "."


def _device(device: Line) -> str:
    if device["platform"] == "cpu":
        return f"{device['cores']} cores of {device['cpu']}"
    return str(device["kind"])


if __name__ == "__main__":
    tyro.cli(main)
