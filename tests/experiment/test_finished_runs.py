"""Commands on a finished run add to what is recorded, and take nothing of the same test away."""

import io
import json
import shutil
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

from bert4rec_jax.config import (
    CalibrationConfig,
    Config,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    TrainingConfig,
)
from bert4rec_jax.errors import TemporaryError
from bert4rec_jax.evaluation.metrics import ndcg
from bert4rec_jax.evaluation.rank_file import VALIDATION_RANKS, RankFile
from bert4rec_jax.evaluation.tuning import GRIDS
from bert4rec_jax.experiment import protocol
from bert4rec_jax.experiment.finished import open_finished
from bert4rec_jax.locks import locked
from bert4rec_jax.sharding import make_mesh

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def config(store, tmp_path_factory):
    """Of a short run with baselines and the sampled protocol, which has ended."""
    made = Config(
        data=DataConfig(path=str(store.path), max_length=6, content=""),
        model=ModelConfig(dim=8, heads=2, layers=1, ffn_dim=16),
        training=TrainingConfig(epochs=1, batch_size=16, evaluate_every=1),
        evaluation=EvaluationConfig(batch_size=64, bootstrap=100, sampled=True),
        workdir=str(tmp_path_factory.mktemp("runs") / "run"),
    )
    protocol.run(made, console=QUIET)
    return made


def recorded(config):
    """The metrics of a run, and the names of its ranks."""
    with np.load(Path(config.workdir) / "ranks.npz") as file:
        ranks = [name for name in file.files if name.startswith("test/")]
    return json.loads((Path(config.workdir) / "metrics.json").read_text()), ranks


def evaluated(config, **settings):
    changed = replace(config, evaluation=replace(config.evaluation, **settings))
    return protocol.run(changed, console=QUIET)


def test_the_sampled_protocol_is_shown(config):
    console = Console(file=io.StringIO(), width=100)
    found = protocol.evaluate(config.workdir, console=console)
    shown = " ".join(console.file.getvalue().split())
    assert "finds only 16 unseen" in shown and "not 100: its figures cannot be compared" in shown
    assert "against 100 sampled items (drawn and dropped)" in shown
    assert f"{found['sampled']['never_drawn']['popular']['hr@10']:.4f}" in shown


def test_without_a_test_or_baselines_what_was_found_stays(config):
    before, ranks = recorded(config)
    assert {"popular", "item-knn"} <= before["test"].keys() and "test/item-knn" in ranks
    assert before["data"]["test"]["cases_sha256"] != before["data"]["validation"]["cases_sha256"]
    for settings in ({"test": False}, {"baselines": False, "sampled": False}):
        returned = evaluated(config, **settings)
        after, ranks_after = recorded(config)
        assert returned == after
        for section in ("validation", "test", "sampled"):
            assert after[section] == before[section]
        assert set(ranks_after) == set(ranks)
    protocol.evaluate(config.workdir, console=QUIET)
    assert set(recorded(config)[1]) == set(ranks)


def test_a_later_test_is_added_to_what_is_recorded(config, tmp_path):
    untested = replace(
        config,
        evaluation=replace(config.evaluation, test=False, baselines=False, sampled=False),
        workdir=str(tmp_path / "run"),
    )
    before = protocol.run(untested, console=QUIET)
    assert "test" not in before
    found = protocol.evaluate(untested.workdir, console=QUIET, baselines={})
    after, _ = recorded(untested)
    assert after["test"] == found["test"]
    assert {name: x for name, x in after.items() if name != "test"} == before
    path = Path(untested.workdir) / "metrics.json"
    path.write_text(json.dumps({**before, "corrections_sha256": "others"}))
    protocol.evaluate(untested.workdir, console=QUIET)
    assert "test" not in json.loads(path.read_text())  # it is about another model


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_what_another_command_writes_meanwhile_stays(config, monkeypatch, command):
    """It holds the lock when this one has its results, and adds a model before it lets go."""
    workdir = Path(config.workdir)
    protocol.run(config, console=QUIET)
    monkeypatch.setattr("bert4rec_jax.locks._QUIET", 0.0)
    (workdir / ".recording").touch()
    with ExitStack() as other:
        other.enter_context(locked(workdir / ".recording"))

        class Screen(io.StringIO):
            waits = 0

            def write(self, text):
                if "waiting for another command" in text:
                    self.waits += 1
                    metrics = json.loads((workdir / "metrics.json").read_text())
                    metrics["test"]["theirs"] = metrics["test"]["popular"]
                    (workdir / "metrics.json").write_text(json.dumps(metrics))
                    with np.load(workdir / "ranks.npz") as file:
                        arrays = dict(file)
                    arrays["test/theirs"] = arrays["test/popular"]
                    np.savez(workdir / "ranks.npz", **arrays)
                    other.close()
                return super().write(text)

        screen = Screen()
        console = Console(file=screen, width=500)
        if command == "train":
            returned = protocol.run(config, console=console)
            assert "theirs" in returned["test"]
        else:
            protocol.evaluate(workdir, console=console)
    assert screen.waits == 1
    metrics, ranks = recorded(config)
    assert {"theirs", "BERT4Rec"} <= metrics["test"].keys()
    assert {"test/theirs", "test/BERT4Rec"} <= set(ranks)


def test_with_other_corrections_nothing_stays(config):
    calibrated = replace(config, calibration=CalibrationConfig(covisitation=True))
    before, _ = recorded(config)
    returned = evaluated(calibrated, baselines=False, sampled=False)
    after, ranks = recorded(config)
    assert after["parameters_sha256"] == before["parameters_sha256"]
    assert after["corrections_sha256"] != before["corrections_sha256"]
    assert returned["test"].keys() == {"BERT4Rec", "BERT4Rec alone"}
    assert "sampled" not in after and "test/popular" not in ranks
    assert after["test"]["BERT4Rec alone"]["mrr"] == before["test"]["BERT4Rec"]["mrr"]


def test_intervals_of_a_baseline_are_the_same_for_all_seeds(config, tmp_path):
    training = replace(config.training, seed=1)
    other = replace(config, training=training, workdir=str(tmp_path / "run"))
    protocol.run(other, console=QUIET)
    first = evaluated(config)["test"]["popular"]
    assert recorded(other)[0]["test"]["popular"]["interval_95"] == first["interval_95"]


def test_a_folder_in_which_another_run_trains_is_left_alone(config):
    before = recorded(config)
    with locked(Path(config.workdir)), pytest.raises(TemporaryError, match="another process is tr"):
        evaluated(config)
    assert recorded(config) == before


def test_no_data_is_prepared_in_the_folder_of_another_training(config, tmp_path):
    new = tmp_path / "new"
    new.mkdir()
    with locked(new), pytest.raises(TemporaryError, match="another process is training"):
        protocol.run(replace(config, workdir=str(new)), console=QUIET)
    assert not list(new.iterdir())


def test_it_is_opened_with_the_settings_of_its_last_start(config):
    before, _ = recorded(config)
    assert before["seconds"]["training"] > 0
    evaluated(config, bootstrap=177)
    assert open_finished(Path(config.workdir), QUIET).setting.config.evaluation.bootstrap == 177
    after, _ = recorded(config)
    assert after["seconds"]["training"] == before["seconds"]["training"]  # nothing was trained
    evaluated(config)
    assert open_finished(Path(config.workdir), QUIET).setting.config == config


def test_metrics_of_validation_are_of_the_model_that_is_tested_and_of_the_ranks(config):
    metrics, _ = recorded(config)
    found = RankFile.read(Path(config.workdir) / VALIDATION_RANKS).sets["validation"]
    assert found.sha256 == metrics["data"]["validation"]["cases_sha256"]
    assert found.ranks.keys() == metrics["validation"].keys() == metrics["test"].keys()
    for name, ranks in found.ranks.items():
        written = metrics["validation"][name]["ndcg@10"]
        assert written == pytest.approx(ndcg(ranks, 10).mean(), abs=1e-6)
    steps = [json.loads(line) for line in (Path(config.workdir) / "log.jsonl").open()]
    by_step = {line["step"]: line["validation"] for line in steps if "validation" in line}
    selected = by_step[metrics["steps"]["best"]]["ndcg@10"]
    alone = [name for name in metrics["validation"] if name.endswith(" alone")] or ["BERT4Rec"]
    assert metrics["validation"][alone[0]]["ndcg@10"] == pytest.approx(selected, abs=1e-5)
    assert selected == max(line["ndcg@10"] for line in by_step.values())


def test_it_is_opened_on_a_number_of_devices_that_splits_no_batch(config, monkeypatch):
    """A run of 16 rows per step, tested 64 at once, on a machine with three accelerators."""
    alone = open_finished(Path(config.workdir), QUIET)
    mesh = make_mesh(devices=jax.devices()[:3])
    monkeypatch.setattr("bert4rec_jax.experiment.opening.make_mesh", lambda **_: mesh)
    found = open_finished(Path(config.workdir), QUIET)
    assert found.setting.mesh.shape["data"] == 3
    ranks = [
        each.setting.rank(each.best.state.params, each.trained, each.setting.split.validation).ranks
        for each in (alone, found)
    ]
    np.testing.assert_array_equal(*ranks)


def test_names_with_square_brackets_are_shown_as_they_are(config, tmp_path):
    shutil.copytree(config.workdir, tmp_path / "run")
    copy = replace(
        config,
        evaluation=replace(config.evaluation, test=False, baselines=False, sampled=False),
        workdir=str(tmp_path / "run"),
    )
    console = Console(file=io.StringIO(), width=200)
    recipe, baseline = "mine [v1][/]", "counts [bold][/]"
    protocol.run(copy, recipe=recipe, console=console, baselines={baseline: GRIDS["popular"]})
    shown = console.file.getvalue()
    assert f"{recipe} on " in shown and f"{baseline} 0." in shown
