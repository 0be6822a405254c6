"""The Ray engine: the local engine's bytes, and its errors. Skipped where Ray is not installed."""

import contextlib
import importlib.util
import os
import signal
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bert4rec_jax.errors import UserError
from bert4rec_jax.serving.job import rank_file, spans
from bert4rec_jax.serving.ray_engine import RayEngine
from bert4rec_jax.serving.worker import Options

SMALL = Options(top=5, batch_size=16, shard_rows=40)
needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="needs Ray: pip install 'bert4rec-jax[ray]'"
)


@pytest.fixture
def requests(tmp_path, histories):
    """200 requests."""
    users = [f"u{row}" for row in range(200)]
    asked = [histories[row % len(histories)][: 1 + row % 9] for row in range(200)]
    pq.write_table(pa.table({"user_id": users, "history": asked}), tmp_path / "in.parquet")
    return tmp_path / "in.parquet"


@pytest.fixture(scope="module")
def cluster():
    """A Ray of this machine with two CPUs, for all tests of this file."""
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def actors_below(ancestor):
    """Processes of actors of our engine, among those that come from this one."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(folder.name)] = int(
                (folder / "stat").read_text().rpartition(")")[2].split()[1]
            )
            names[int(folder.name)] = (folder / "cmdline").read_text()
    ours = {ancestor}
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return [pid for pid in ours if names.get(pid, "").startswith("ray::MapWorker")]


@pytest.mark.parametrize(
    ("numbers", "longest", "expected"),
    [
        ([0, 1, 2, 3, 4], 2, [(0, 2), (2, 4), (4, 5)]),
        ([1, 2, 5, 6, 7], 9, [(1, 3), (5, 8)]),
        ([3], 1, [(3, 4)]),
    ],
)
def test_shards_are_handed_out_in_runs_without_gaps(numbers, longest, expected):
    assert [(run.start, run.stop) for run in spans(numbers, longest)] == expected


def test_without_ray_the_error_says_what_to_install(bundle, requests, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'bert4rec-jax\[ray\]'"):
        rank_file(bundle, requests, tmp_path / "out", SMALL, engine=RayEngine())


def test_no_actors_are_refused():
    with pytest.raises(UserError, match="actors is 0; expected at least 1"):
        RayEngine(actors=0)


@needs_ray
def test_the_bytes_are_those_of_the_local_engine(cluster, bundle, requests, tmp_path, monkeypatch):
    """Begun by one engine, damaged and continued by the other."""
    rank_file(bundle, requests, tmp_path / "local", SMALL)
    monkeypatch.chdir(tmp_path)
    told = []
    rank_file(
        bundle, requests.relative_to(tmp_path), tmp_path / "ray", SMALL,
        engine=RayEngine(actors=2), progress=lambda *now: told.append(now),
    )  # fmt: skip
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")
    assert told[0] == (0, 200) and told[-1] == (200, 200) and len(told) == 6
    partial = (tmp_path / "local").rename(tmp_path / "local.partial")
    (partial / "part-000003.parquet").write_bytes(b"damaged")
    kept = (partial / "part-000002.parquet").stat().st_mtime_ns
    rank_file(bundle, requests, tmp_path / "local", SMALL, engine=RayEngine())
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")
    assert (tmp_path / "local" / "part-000002.parquet").stat().st_mtime_ns == kept


@needs_ray
def test_the_work_of_a_killed_actor_is_done_by_another(cluster, bundle, requests, tmp_path):
    """As when a machine is lost: nothing is missing, nothing is there twice."""
    rank_file(bundle, requests, tmp_path / "local", SMALL)
    killed = []

    def kill(done, total):
        if done and not killed:
            killed.extend(actors_below(os.getpid()))
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    engine = RayEngine(actors=1)
    rank_file(bundle, requests, tmp_path / "ray", SMALL, engine=engine, progress=kill)
    assert killed and contents(tmp_path / "ray") == contents(tmp_path / "local")


@needs_ray
def test_what_an_actor_finds_wrong_is_one_clear_error(cluster, bundle, requests, tmp_path):
    table = pq.read_table(requests)
    ratings = [[5.0] * len(row) for row in table["history"].to_pylist()]
    ratings[77] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    pq.write_table(table.append_column("ratings", pa.array(ratings)), requests)
    with pytest.raises(UserError, match=r"in.parquet, row 77: 7 ratings for 6 items in history"):
        rank_file(bundle, requests, tmp_path / "out", SMALL, engine=RayEngine())


@needs_ray
def test_more_actors_than_the_cluster_has_room_for(cluster, bundle, requests, tmp_path):
    with pytest.raises(UserError, match="99 actors were asked for, and the cluster has 2 CPUs"):
        rank_file(bundle, requests, tmp_path / "out", SMALL, engine=RayEngine(actors=99))
