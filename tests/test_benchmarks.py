"""Benchmarks show and measure what they are asked for."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bert4rec_jax.data.split import leave_one_out, train_counts
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation.rank_file import RANKS, RankFile

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


def test_who_gains(store, tmp_path, capsys):
    import popularity_halves

    split = leave_one_out(store)
    cases, counts = split.test["test"], train_counts(store, split.train_stop)
    order = np.argsort(-counts, kind="stable")
    less = set(order[counts[order] > 0][np.count_nonzero(counts) // 2 :].tolist())
    few = np.array([token in less for token in store.tokens[cases.rows].tolist()])
    for name, ranks in (("a", np.where(few, 1, 2)), ("b", np.full(len(few), 3))):
        (tmp_path / name).mkdir()
        found = RankFile.of({"test": {"BERT4Rec": ranks}}, {"test": cases}, store)
        found.write(tmp_path / name / RANKS)
    a, b = tmp_path / "a", tmp_path / "b"
    popularity_halves.main(store.path, (a, a), (b,))
    every, more, fewer = map(json.loads, capsys.readouterr().out.splitlines())
    assert (more["cases"], fewer["cases"]) == ((~few).sum(), few.sum())
    assert every["cases"] == len(few) and fewer["gain"] == [0.5, 0.5, 0.5]
    assert (fewer["ndcg@10"], fewer["against"]) == (1, 0.5)
    assert more["ndcg@10"] == round(1 / np.log2(3), 4)
    with pytest.raises(UserError, match=r"has no ranks of EASE for test"):
        popularity_halves.main(store.path, (a,), (b,), model="EASE")


def test_mistakes_of_a_benchmark_of_bundles_are_one_line(tmp_path):
    arguments = [sys.executable, FOLDER / "candidates.py", tmp_path / "a", tmp_path / "b", tmp_path]
    for more, message in (
        ([], f"{tmp_path} holds no prepared data"),
        (["--candidates"], "nothing to compare; give --candidates and --blends"),
    ):
        done = subprocess.run([*arguments, *more], capture_output=True, text=True)
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: {message}") and done.stderr.count("\n") == 1
