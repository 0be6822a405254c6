"""Which mesh for how many items and chips: compiles the train step for TPUs that are not there.

    pip install libtpu
    python benchmarks/tpu_plan.py results/performance/tpu_plan.jsonl --grid
    python benchmarks/tpu_plan.py plan.jsonl --topology v5e:4x4 --items 1000000 --dim 128 --model 4

`libtpu` compiles for any topology on a Linux machine without a TPU. Nothing is run: the compiler
gets shapes, not arrays. Every case appends one JSON line to the file; cases that are in it already
are skipped, so the same command continues.

From the compiler, a line has the bytes of memory per chip, and the collectives of the compiled
program. The time of a step is predicted from the published rates of the chips:

- compute: the operations of the matrix products (the formula is `operations`) at the peak in
  bfloat16;
- memory: bytes accessed, as XLA estimates them with each loop counted once, and the item table
  three times more (the softmax reads it twice and writes its gradient), at the memory's bandwidth;
- links: the bytes that a ring sends, at the rate of the links along one dimension of the torus.

`seconds` also has the largest of the three (perfect overlap) and their sum (no overlap).
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")

import jax
import tyro
from jax.experimental import topologies

from bert4rec_jax.config import Config, DataConfig, ModelConfig, TrainingConfig
from bert4rec_jax.data.catalog import FIRST_ITEM, ROW_MULTIPLE
from bert4rec_jax.sharding import make_mesh
from bert4rec_jax.training.collectives import collectives, expected
from bert4rec_jax.training.description import describe
from bert4rec_jax.training.tiling import padded_slots

_1M, _10M, _100M = 10**6, 10**7, 10**8
# (slice, width) -> items -> chips along the item table: the fewest that hold it, and more.
_GRID = {
    ("v5e:2x2", 128): {80_000: (1,), _1M: (1,), _10M: (4,)},
    ("v5e:4x4", 128): {80_000: (1, 4), _1M: (1, 4), _10M: (4, 16)},
    ("v5e:8x8", 128): {_10M: (4,), _100M: (64,)},
    ("v5e:16x16", 128): {_10M: (16,), _100M: (64,)},
    ("v6e:8x8", 128): {_10M: (4,), _100M: (16,)},
    ("v5e:4x4", 64): {_100M: (16,)},
    ("v5e:4x4", 256): {_10M: (16,)},
    ("v5e:4x4", 512): {_1M: (4,)},
}
_BLOCKS = 8  # of slots: the most iterations of a loop whose length is unknown


@dataclass(frozen=True)
class Chip:
    """Published rates of one chip, per second.

    From the pages "TPU v5e" and "TPU v6e" of https://docs.cloud.google.com/tpu/docs:
    peak compute in bfloat16, capacity and bandwidth of the memory, and the bandwidth of the
    bidirectional interconnect. A chip sends at a quarter of the latter along each of the two
    dimensions of the torus.
    """

    operations: float
    memory: float
    memory_rate: float
    interconnect: float

    @property
    def link_rate(self) -> float:
        """Bytes per second that a chip sends along one dimension."""
        return self.interconnect / 4


CHIPS = {
    "v5e": Chip(197e12, 16e9, 819e9, 400e9),
    "v6e": Chip(918e12, 32e9, 1638e9, 800e9),
}


@dataclass(frozen=True)
class Case:
    """What is compiled.

    Attributes:
      topology: chips and how they are wired, such as v5e:4x4.
      items: items of the catalog.
      dim: width D; heads of 64 columns at most, a feed-forward layer of 4 D, 2 layers, bfloat16.
      model: chips along the item table; the others are along the batch.
      rows_per_chip: histories of a step, per chip.
      max_length: positions L, of which a fifth is masked.
    """

    topology: str = "v5e:4x4"
    items: int = 1_000_000
    dim: int = 128
    model: int = 4
    rows_per_chip: int = 16
    max_length: int = 200

    @property
    def chip(self) -> Chip:
        """The rates of its chips."""
        return CHIPS[self.topology.split(":")[0]]

    @property
    def num_rows(self) -> int:
        """Rows V of the item table, as `Catalog.num_rows`."""
        return -(-(self.items + FIRST_ITEM) // ROW_MULTIPLE) * ROW_MULTIPLE

    def config(self, chips: int) -> Config:
        """The config of its training run."""
        return Config(
            data=DataConfig(max_length=self.max_length),
            model=ModelConfig(
                dim=self.dim,
                heads=max(2, self.dim // 64),
                ffn_dim=4 * self.dim,
                dtype="bfloat16",
            ),
            training=TrainingConfig(batch_size=self.rows_per_chip * chips),
        )


def main(
    output: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")],
    case: Annotated[Case, tyro.conf.arg(name="")] = Case(),
    grid: bool = False,
    table: bool = False,
    limit_s: float = 1e9,
) -> None:
    """Compile and predict.

    Args:
        output: JSON lines, which are added to.
        case: The one case that is compiled.
        grid: Compile those of docs/scaling.md instead.
        table: Compile nothing; print what the file has as the table of docs/scaling.md.
        limit_s: Begin no further case after so many seconds.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    lines = output.read_text().splitlines() if output.exists() else []
    if table:
        print(_table([json.loads(line) for line in lines]))
        return
    done = [json.loads(line)["case"] for line in lines]
    begun = time.monotonic()
    for one in [*_grid()] if grid else [case]:
        if asdict(one) in done:
            continue
        if time.monotonic() - begun > limit_s:
            sys.exit("out of time: the same command continues")
        line = json.dumps({"case": asdict(one), **plan(one)})
        print(line, flush=True)
        with output.open("a") as file:
            file.write(line + "\n")


def plan(case: Case) -> dict[str, Any]:
    """Compile a case; returns the compiler's figures and the predictions from them."""
    topology = topologies.get_topology_desc(platform="tpu", topology_name=case.topology)
    chips = len(topology.devices)
    mesh = make_mesh(model=case.model, devices=topology.devices)
    config = case.config(chips)
    described = describe(config, mesh, num_rows=case.num_rows)
    needed = {"state_gb": _gigabytes(state_bytes(case))}
    try:
        begun = time.monotonic()
        compiled = described.compile()
        took = time.monotonic() - begun
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        found = re.search(r"Used ([\d.]+)G of", str(error))
        used = {"memory_gb": round(float(found[1]) * 1.073741824, 2)} if found else {}
        return {"chips": chips, "fits": False, **needed, **used}
    memory: Any = compiled.memory_analysis()
    held = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.generated_code_size_in_bytes
    )
    sent = collectives(compiled.as_text(), trips=_BLOCKS)
    parameters = sum(x.size for x in jax.tree.leaves(described.state.params))
    wanted = expected(
        mesh,
        batch_size=config.training.batch_size,
        max_length=case.max_length,
        slots=described.slots,
        num_rows=case.num_rows,
        dim=case.dim,
        other_parameters=parameters - case.num_rows * (case.dim + 1),
    )
    cost: Any = compiled.cost_analysis()
    done = operations(case, chips, described.slots)
    table = 4 * case.dim * case.num_rows // case.model
    accessed = cost["bytes accessed"] + 3 * table
    seconds = {
        "compute": done / case.chip.operations,
        "memory": accessed / case.chip.memory_rate,
        "links": sum(one.sent for one in sent) / case.chip.link_rate,
    }
    return {
        "chips": chips,
        "fits": held <= case.chip.memory,
        **needed,
        "memory_gb": _gigabytes(held),
        "arguments_gb": _gigabytes(memory.argument_size_in_bytes),
        "temporary_gb": _gigabytes(memory.temp_size_in_bytes),
        "operations": done,
        "xla_operations_loops_once": cost["flops"],
        "bytes_accessed": accessed,
        "collective_bytes": sum(one.size * one.times for one in sent),
        "collective_bytes_expected": sum(wanted.values()),
        "largest_collective_bytes": max((one.size for one in sent), default=0),
        "sent_bytes": sum(one.sent for one in sent),
        "seconds": {name: round(value, 6) for name, value in seconds.items()}
        | {
            "overlapped": round(max(seconds.values()), 6),
            "serial": round(sum(seconds.values()), 6),
        },
        "compile_s": round(took, 1),
        "jax": jax.__version__,
    }


def operations(case: Case, chips: int, slots: int) -> float:
    """Operations of a step's matrix products on one chip, forward and backward, all slots in use.

    A layer needs 8 D^2 + 4 L D + 4 D F operations per position of a history; the last layer has
    queries and a feed-forward network only at the slots. The backward pass makes it three times as
    many. The softmax over V/m items needs 2 D operations per slot and item four times: scores for
    the normaliser, scores for the gradient, and the two gradients.
    """
    d, length = case.dim, case.max_length
    rows = case.rows_per_chip * case.model  # of the batch, on each chip
    layers, hidden = 2, 4 * d

    def layer(asked: int) -> int:
        return asked * (4 * d * d + 4 * length * d + 4 * d * hidden) + length * 4 * d * d

    encoder = 3 * rows * ((layers - 1) * layer(length) + layer(slots) + 2 * slots * d * d)
    softmax = 8 * padded_slots(rows * slots) * d * (case.num_rows // case.model)
    return float(encoder + softmax)


def state_bytes(case: Case) -> int:
    """Bytes of a chip's part of the item table: parameters and AdamW's two moments."""
    return 12 * (case.dim + 1) * case.num_rows // case.model


def _grid() -> list[Case]:
    return [
        Case(topology, items, dim, model)
        for (topology, dim), sizes in _GRID.items()
        for items, models in sizes.items()
        for model in models
    ]


def _table(lines: list[dict[str, Any]]) -> str:
    """A Markdown table with a row per case; memory in GB, times in ms, thousand histories/s."""
    rows = [
        "| slice | items | D | mesh, data x model | memory per chip | compute, memory, links "
        "| step | thousand histories/s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    order = [(case.topology, case.dim, case.items, case.model) for case in _grid()]

    def place(line: dict[str, Any]) -> int:
        case = Case(**line["case"])
        key = (case.topology, case.dim, case.items, case.model)
        return order.index(key) if key in order else len(order)

    for line in sorted(lines, key=place):
        case, chips = Case(**line["case"]), line["chips"]
        start = f"| {case.topology} | {_count(case.items)} | {case.dim} | "
        start += f"{chips // case.model} x {case.model} |"
        if "seconds" not in line:
            rows.append(f"{start} {line.get('memory_gb', line['state_gb'])}: too much | | | |")
            continue
        ms = {name: 1e3 * value for name, value in line["seconds"].items()}
        histories = case.rows_per_chip * chips
        rows.append(
            f"{start} {line['memory_gb']:.1f} | "
            f"{ms['compute']:.1f}, {ms['memory']:.1f}, {ms['links']:.1f} | "
            f"{ms['overlapped']:.1f}-{ms['serial']:.1f} | "
            f"{histories / ms['serial']:.0f}-{histories / ms['overlapped']:.0f} |"
        )
    return "\n".join(rows)


def _count(items: int) -> str:
    return f"{items // 10**6} M" if items >= 10**6 else f"{items // 1000} k"


def _gigabytes(count: float) -> float:
    return round(count / 1e9, 3)


if __name__ == "__main__":
    tyro.cli(main)
