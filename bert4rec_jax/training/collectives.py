"""Collectives: the communication between devices in a compiled step, as counted and as expected.

`collectives` reads them from the program that XLA compiled. `expected` computes what a step has to
send at least. With a batch of B rows of L positions and S slots over r devices, and an item table
of V rows of width D over m devices, a device takes part in

    over the item table (m > 1)          all-reduce  4 D B/r (L + S)   rows looked up; dL/dh
                                         all-reduce  12 N              maximum, sum, label score
    over the batch (r > 1)               all-reduce  4 (D + 1) V/m     dL/d(vectors, bias)
                                         all-reduce  4 P               dL/d(everything else)
      where B L < 2 V/m                  all-gather  4 (D + 1) B L     dL/d(rows looked up)
      elsewhere                          all-reduce  4 D V/m

bytes, where N is B S / r rounded up to whole blocks of slots, and P is the number of parameters
without a row per item.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from dataclasses import dataclass

from jax.sharding import Mesh

from bert4rec_jax.sharding import devices_along, exchanges_rows
from bert4rec_jax.training.tiling import padded_slots

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_BITS = re.compile(r"\d+")
_INSTRUCTION = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\(")
_SHAPE = re.compile(r"(\w+)\[([\d,]*)\]")
_CALLED = re.compile(r"(?:calls|body|condition|to_apply|branch_computations)=\{?([^,){}]+)")
_CHAIN = re.compile(r'chain_id="(\d+)"')  # of an asynchronous collective that is split into pieces
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


@dataclass(frozen=True)
class Collective:
    """One collective of a program.

    Attributes:
      kind: one of `KINDS`.
      shapes: shapes of its results.
      size: bytes of its results; for a reduce-scatter, bytes of its input.
      devices: number of devices in a group.
      times: how often a step runs it.
    """

    kind: str
    shapes: tuple[tuple[int, ...], ...]
    size: int
    devices: int
    times: int

    @property
    def sent(self) -> float:
        """Bytes that a device sends per step with ring algorithms."""
        share = (self.devices - 1) / self.devices
        return (
            self.times
            * self.size
            * {"all-reduce": 2 * share, "collective-permute": 1}.get(self.kind, share)
        )


def collectives(program: str, *, trips: int = 1) -> list[Collective]:
    """The collectives of a compiled program, `Compiled.as_text()`.

    Args:
      program: HLO text.
      trips: assumed trip count of loops whose trip count the program does not state.
    """
    found: dict[str, list[Collective]] = defaultdict(list)
    calls: dict[str, Counter[str]] = defaultdict(Counter)
    name = entry = ""
    chains = set()
    for line in program.splitlines():
        if line.startswith(("%", "ENTRY ")) and line.endswith("{"):
            name = line.removeprefix("ENTRY ").split(maxsplit=1)[0].lstrip("%")
            entry = name if line.startswith("ENTRY ") else entry
        elif line.startswith(" "):
            chain = _CHAIN.search(line)
            if (match := _INSTRUCTION.search(line)) and (not chain or chain[1] not in chains):
                found[name].append(_collective(match, line))
                chains |= {chain[1]} if chain else set()
            known = _TRIPS.search(line)
            runs = int(known[1]) if known else trips if " while(" in line else 1
            for called in _CALLED.findall(line):
                if "-done(" not in line and "-update(" not in line:
                    calls[name][called.strip().lstrip("%")] += runs
    return [
        Collective(one.kind, one.shapes, one.size, one.devices, times)
        for computation, times in _runs(entry, calls).items()
        for one in found[computation]
    ]


def expected(
    mesh: Mesh,
    *,
    batch_size: int,
    max_length: int,
    slots: int,
    num_rows: int,
    dim: int,
    other_parameters: int,
) -> dict[str, int]:
    """Bytes of the collectives that a step with the full softmax needs; see the module docstring.

    Args:
      mesh: the devices.
      batch_size: rows B of a batch.
      max_length: positions L of a row.
      slots: slots S of a row.
      num_rows: rows V of the item table.
      dim: width D.
      other_parameters: P, number of parameters other than the table and its biases.

    Returns:
      Name of what is sent -> bytes of its collective on one device.
    """
    along_batch, along_items = devices_along(mesh)
    rows, items = batch_size // along_batch, num_rows // along_items
    sizes = {}
    if along_items > 1:
        sizes["rows looked up"] = 4 * dim * rows * max_length
        sizes["softmax"] = 12 * padded_slots(rows * slots)
        sizes["gradient of slots"] = 4 * dim * rows * slots
    if along_batch > 1:
        sizes["gradient of items"] = 4 * (dim + 1) * items
        sizes["gradient of the rest"] = 4 * other_parameters
        indices = batch_size * max_length
        by_row = exchanges_rows(mesh, indices=indices, num_rows=num_rows)
        sizes["gradient of rows looked up"] = 4 * ((dim + 1) * indices if by_row else dim * items)
    return sizes


def _collective(match: re.Match[str], line: str) -> Collective:
    kind = match[2]
    results = [
        (int(_BITS.findall(dtype)[0]) if _BITS.search(dtype) else 8, _dimensions(text))
        for dtype, text in _SHAPE.findall(match[1])
    ]
    if match[3] and kind == "collective-permute":  # (input, output, two flags)
        results = results[1:2]
    elif match[3] and kind != "all-reduce":  # (inputs, outputs)
        results = results[len(results) // 2 :]
    devices = _group(line)
    size = sum(bits // 8 * math.prod(shape) for bits, shape in results)
    shapes = tuple(shape for _, shape in results)
    return Collective(kind, shapes, size * (devices if kind == "reduce-scatter" else 1), devices, 1)


def _dimensions(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in text.split(",") if n)


def _group(line: str) -> int:
    """Number of devices in a group, from any of XLA's notations for groups."""
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return listed[1].count(",") + 1
    if counted := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
        return int(counted[1])
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", line):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", named[2]))
    if "source_target_pairs=" in line:
        return 2
    raise ValueError(f"cannot read the groups of this collective: {line.strip()}")


def _runs(entry: str, calls: dict[str, Counter[str]]) -> Counter[str]:
    """How often each computation runs; computations are never recursive."""
    runs: Counter[str] = Counter({entry: 1})
    todo = [(entry, 1)]
    while todo:
        caller, times = todo.pop()
        for called, count in calls[caller].items():
            runs[called] += times * count
            todo.append((called, times * count))
    return runs
