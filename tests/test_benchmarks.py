"""Benchmarks show and measure what they are asked for."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bert4rec_jax.data.store import SequenceStore

FOLDER = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="benchmarks/ lies in the repository only"
)


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))


def test_runs_of_one_name_have_a_curve_each(tmp_path):
    import learning_curve

    runs = tuple(tmp_path / seed / "run" for seed in ("one", "two"))
    for run in runs:
        run.mkdir(parents=True)
        lines = [{"step": step, "validation": {"ndcg@10": step / 10}} for step in (1, 2)]
        (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    learning_curve.main(tmp_path / "drawn.svg", runs, level=("a=b=0.1",))
    drawn = (tmp_path / "drawn.svg").read_text()
    assert all(str(run) in drawn for run in runs) and "a=b" in drawn
    learning_curve.main(tmp_path / "drawn.svg", runs[:1])
    assert ">run<" in (tmp_path / "drawn.svg").read_text()


def test_a_table_without_a_line_is_empty(monkeypatch):
    import page

    monkeypatch.setattr(page, "read", lambda name: [])
    assert {name: table() for name, table in page.TABLES.items()} == dict.fromkeys(page.TABLES, "")


def test_rows_need_not_divide_by_users(tmp_path):
    import training_memory

    training_memory._write(tmp_path / "store", 104, 10, 5)
    store = SequenceStore.open(tmp_path / "store")
    assert sorted(store.lengths.tolist()) == [10] * 6 + [11] * 4


def test_mistakes_of_a_benchmark_of_bundles_are_one_line(tmp_path):
    arguments = [sys.executable, FOLDER / "candidates.py", tmp_path / "a", tmp_path / "b", tmp_path]
    for more, message in (
        ([], f"{tmp_path} holds no prepared data"),
        (["--candidates"], "nothing to compare; give --candidates and --blends"),
    ):
        done = subprocess.run([*arguments, *more], capture_output=True, text=True)
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: {message}") and done.stderr.count("\n") == 1
