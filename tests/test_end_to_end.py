"""`train.py` as a user runs it: to the end, killed, stopped, continued, and with wrong input."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bert4rec_jax.config import from_json
from bert4rec_jax.data.split import leave_one_out, train_counts
from bert4rec_jax.evaluation.baselines import Popular
from bert4rec_jax.evaluation.evaluator import Evaluator, ScoringModel
from bert4rec_jax.sharding import make_mesh
from bert4rec_jax.training.inputs import TrainingData
from bert4rec_jax.training.parts import build_model
from bert4rec_jax.training.restore import load_best
from bert4rec_jax.training.run_record import read_config

TRAIN = Path(__file__).parents[1] / "train.py"
pytestmark = pytest.mark.skipif(not TRAIN.is_file(), reason="train.py lies in the repository only")

SMALL = {
    "data.max-length": 12, "data.min-user-interactions": 1, "data.min-item-interactions": 1,
    "data.content": "", "model.dim": 16, "model.init-scale": 0.2, "model.layers": 1,
    "model.ffn-dim": 32, "model.dropout": 0.1, "masking.objective": "masked",
    "masking.last-only": 0.5, "optimizer.peak-lr": 0.01, "optimizer.warmup-steps": 10,
    "training.batch-size": 8, "training.epochs": 30, "training.evaluate-every": 10,
    "training.save-every": 25, "training.log-every": 5, "training.patience": 9,
    "evaluation.batch-size": 64, "evaluation.bootstrap": 100,
}  # fmt: skip


def command(store, workdir, **changes):
    settings = {**SMALL, "data.path": store.path, "workdir": workdir}
    settings |= {name.replace("__", ".").replace("_", "-"): v for name, v in changes.items()}
    flags = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    return [sys.executable, str(TRAIN), *flags]


def run(arguments, environment):
    return subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=200)


def results(workdir):
    return json.loads((workdir / "metrics.json").read_text())


@pytest.fixture(scope="module")
def finished(store, environment, tmp_path_factory):
    """An uninterrupted run: its output and its folder."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    done = run([*command(store, workdir), "--evaluation.sampled"], environment)
    assert done.returncode == 0, done.stderr
    return done, workdir


def test_what_a_user_sees(finished):
    output = finished[0].stdout
    for part in ("validation", "BERT4Rec", "popular", "skip-gram-markov", "chosen next"):
        assert part in output
    assert "Traceback" not in finished[0].stderr


def test_metrics_json_holds_the_run(finished, store):
    found = results(finished[1])
    assert found["recipe"] == "movietweetings"
    assert found["config"]["model"]["dim"] == 16
    assert found["data"]["fingerprint"] == store.fingerprint
    assert len(found["parameters_sha256"]["tested"]) == 64
    assert {"jax", "cpu", "cores", "platform"} <= found["device"].keys()
    models = ["BERT4Rec", "popular", "recent-popular", "markov-1", "skip-gram-markov", "item-knn"]
    for which in ("validation", "test"):
        assert [name for name in models if name not in found[which]] == []
    model = found["test"]["BERT4Rec"]
    low, high = model["interval_95"]["ndcg@10"]
    assert low <= model["ndcg@10"] <= high
    for variant in ("never_drawn", "drawn_and_dropped"):  # among fewer items, better ranks
        for name in models:
            assert found["sampled"][variant][name]["mrr"] >= found["test"][name]["mrr"]
    assert (finished[1] / "sampled_candidates.npz").is_file()
    ranks = np.load(finished[1] / "ranks.npz")["test/BERT4Rec"]
    assert (1 / ranks).mean() == pytest.approx(model["mrr"], abs=1e-6)


def test_the_model_learns_what_popularity_cannot_know(finished):
    """Everyone moves on by one or two items, so the next item is among two."""
    found = results(finished[1])["test"]
    assert found["popular"]["lead_interval_95"]["ndcg@10"][0] > 0.1


def test_permuted_targets_leave_nothing_to_know(finished, store):
    """With the targets of other users a model is no better than popularity on the same targets."""
    workdir = finished[1]
    config = dataclasses.replace(from_json(read_config(workdir)), workdir=str(workdir))
    mesh = make_mesh()
    data = TrainingData(store, (6, 9))
    params = load_best(config, data, mesh=mesh, folder=workdir, warn=print).state.params
    split = leave_one_out(store)
    cases, counts = split.test["test"], train_counts(store, split.refit_stop)

    class Permuted:
        """The store with its test targets dealt out anew."""

        offsets, catalog, ratings = store.offsets, store.catalog, store.ratings
        timestamps = store.timestamps

        def deal(self, generator):
            self.tokens = np.array(store.tokens)
            self.tokens[cases.rows] = generator.permutation(self.tokens[cases.rows])

    permuted, generator = Permuted(), np.random.default_rng(0)
    evaluator = Evaluator(permuted, mesh=mesh, batch_size=64, item_chunk=256, thumbs=(6, 9))
    model = build_model(config.model, num_rows=store.catalog.num_rows, max_length=12)
    scoring = ScoringModel(model, {"params": params}, known=counts > 0, max_length=12, causal=False)
    gains = []
    for _ in range(20):
        permuted.deal(generator)
        found = evaluator.rank_model(scoring, cases)
        popular = evaluator.rank_scorer(Popular(counts), cases)
        gains.append((1 / found.ranks).mean() - (1 / popular.ranks).mean())
    assert abs(np.mean(gains)) < 0.03  # untouched, the model's MRR is higher by more than .3
    real = results(workdir)["test"]
    assert real["BERT4Rec"]["mrr"] - real["popular"]["mrr"] > 0.3


def test_the_logs_are_whole(finished):
    lines = [json.loads(line) for line in (finished[1] / "log.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if "loss" in line]
    assert steps == list(range(5, steps[-1] + 1, 5))
    assert steps[-1] == results(finished[1])["steps"]["done"]
    assert list(finished[1].glob("events.out.tfevents.*"))
    assert {"learning_rate", "grad_norm", "examples_per_second"} <= lines[0].keys()


def test_the_same_command_again_changes_nothing(finished, store, environment):
    workdir = finished[1]
    before = results(workdir)
    again = run(command(store, workdir), environment)
    assert again.returncode == 0, again.stderr
    after = results(workdir)
    assert after["parameters_sha256"] == before["parameters_sha256"]
    assert after["test"] == before["test"]
    assert after["steps"]["resumed_from"] == before["steps"]["done"]


def wait_for_checkpoint(process, workdir, at_least):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        steps = [int(p.name) for p in (workdir / "checkpoints").glob("*") if p.name.isdigit()]
        if steps and max(steps) >= at_least:
            return
        time.sleep(0.01)
    raise AssertionError(f"no checkpoint of step {at_least} in time")


def test_a_run_stopped_again_and_again_ends_with_the_very_same_parameters(
    finished, store, environment, tmp_path
):
    workdir = tmp_path / "run"
    arguments = command(store, workdir)
    stops = [(signal.SIGTERM, 143, 25), (signal.SIGINT, 130, 75), (signal.SIGKILL, -9, 125)]
    for number, code, at_least in stops:
        with subprocess.Popen(
            arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            wait_for_checkpoint(process, workdir, at_least)
            process.send_signal(number)
            _, errors = process.communicate(timeout=100)
        assert process.returncode == code, errors
        assert not (workdir / "metrics.json").exists()
        if number != signal.SIGKILL:
            assert "stopped by" in errors and "same command" in errors
            assert "Traceback" not in errors
    again = run(arguments, environment)
    assert again.returncode == 0, again.stderr
    found, expected = results(workdir), results(finished[1])
    assert 125 <= found["steps"]["resumed_from"] < found["steps"]["done"]
    assert found["parameters_sha256"] == expected["parameters_sha256"]
    assert found["test"] == expected["test"]
    log = (workdir / "log.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in log if "loss" in line]
    assert len(steps) == len(set(steps))


def copy_of(finished, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished[1], workdir)
    return workdir


def test_another_configuration_is_refused_with_the_fields_named(
    finished, store, environment, tmp_path
):
    workdir = copy_of(finished, tmp_path)
    other = run(command(store, workdir, model__dim=32, optimizer__b1=0.8), environment)
    assert other.returncode == 2
    assert "model.dim: 16 -> 32" in other.stderr and "optimizer.b1: 0.9 -> 0.8" in other.stderr
    assert "Traceback" not in other.stderr


@pytest.mark.parametrize(
    "damage", ["a half-deleted folder", pytest.param("changed bytes", marks=pytest.mark.slow)]
)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_taken(
    finished, store, environment, tmp_path, damage
):
    workdir = copy_of(finished, tmp_path)
    newest = max((workdir / "checkpoints").iterdir(), key=lambda p: int(p.name))
    if damage == "changed bytes":
        # Of every file that holds arrays: which parts of one are in use is up to Orbax.
        for path in (newest / "state").rglob("d/*"):
            path.write_bytes(bytes(b ^ 255 for b in path.read_bytes()))
    else:
        shutil.rmtree(newest / "state")
    again = run(command(store, workdir), environment)
    assert again.returncode == 0, again.stderr
    assert f"checkpoint {newest.name}" in again.stdout and "cannot be read" in again.stdout
    assert newest.with_name(f"{newest.name}.corrupt").is_dir()
    found, expected = results(workdir), results(finished[1])
    assert 0 < found["steps"]["resumed_from"] < expected["steps"]["done"]
    assert found["parameters_sha256"] == expected["parameters_sha256"]


@pytest.mark.slow
def test_a_full_disk_is_one_clear_error_and_the_run_continues_later(
    finished, store, environment, tmp_path
):
    """No file may grow beyond a few kilobytes: as on a full disk, writing a checkpoint fails."""
    workdir = tmp_path / "run"
    arguments = command(store, workdir)
    limited = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)); "
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    full = run([sys.executable, "-c", limited, *arguments[1:]], environment)
    assert full.returncode == 75, full.stderr
    assert "could not be saved" in full.stderr and "run the same command" in full.stderr
    assert "Traceback" not in full.stderr
    assert not (workdir / "metrics.json").exists()
    again = run(arguments, environment)
    assert again.returncode == 0, again.stderr
    assert results(workdir)["parameters_sha256"] == results(finished[1])["parameters_sha256"]


@pytest.mark.slow
def test_evaluate_repeats_the_test_of_a_run(finished, environment, tmp_path):
    output = tmp_path / "evaluation.json"
    code = "from bert4rec_jax.cli import main; main()"
    done = run(
        [sys.executable, "-c", code, "evaluate", str(finished[1]), "--output", str(output)],
        environment,
    )
    assert done.returncode == 0, done.stderr
    found, expected = json.loads(output.read_text()), results(finished[1])
    assert found["test"] == expected["test"] and found["validation"] == expected["validation"]
    assert found["parameters_sha256"]["tested"] == expected["parameters_sha256"]["tested"]


@pytest.mark.slow
def test_the_test_split_stays_unread_until_asked_for(finished, store, environment, tmp_path):
    workdir = copy_of(finished, tmp_path)
    for name in ("metrics.json", "ledger.jsonl", "ranks.npz"):
        (workdir / name).unlink()
    arguments = command(store, workdir)
    done = run([*arguments, "--evaluation.no-test"], environment)
    assert done.returncode == 0, done.stderr
    found = results(workdir)
    assert found["validation"].keys() == results(finished[1])["validation"].keys()
    assert "test" not in found and "sampled" not in found
    assert not (workdir / "ledger.jsonl").exists()
    again = run(arguments, environment)
    assert again.returncode == 0, again.stderr
    assert results(workdir)["test"] == results(finished[1])["test"]
    assert len((workdir / "ledger.jsonl").read_text().splitlines()) == 1
