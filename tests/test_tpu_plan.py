"""The train step compiles for TPUs, on a machine that has none."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "tpu_plan.py"


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed: pip install libtpu"
)
@pytest.mark.skipif(not SCRIPT.is_file(), reason="benchmarks/ lies in the repository only")
def test_the_step_compiles_for_a_slice_of_v5e_and_never_gathers_the_table(tmp_path):
    output = tmp_path / "plan.jsonl"
    case = ["--topology", "v5e:2x2", "--items", "100000", "--dim", "64", "--model", "2"]
    command = [sys.executable, str(SCRIPT), str(output), *case, "--max-length", "50"]
    for _ in range(2):  # the second time there is nothing left to do
        subprocess.run(command, check=True, capture_output=True)
    (line,) = map(json.loads, output.read_text().splitlines())
    assert line["chips"] == 4 and line["fits"]
    table = 4 * 64 * 100_000
    assert line["largest_collective_bytes"] < 0.51 * table
    assert line["collective_bytes"] == pytest.approx(line["collective_bytes_expected"], rel=0.02)
    assert 0 < line["seconds"]["overlapped"] <= line["seconds"]["serial"] < 1
