"""A run over a split by time: its trend is kept, evaluated and exported with it."""

import io
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from bert4rec_jax.config import (
    Config,
    DataConfig,
    EvaluationConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    TrainingConfig,
)
from bert4rec_jax.data.split import train_counts
from bert4rec_jax.evaluation.metrics import POPULARITY, popularity_groups, summary
from bert4rec_jax.evaluation.rank_file import VALIDATION_RANKS, RankFile
from bert4rec_jax.evaluation.trend import Trend
from bert4rec_jax.experiment import protocol
from bert4rec_jax.experiment.corrections import CALIBRATION, Corrections
from bert4rec_jax.experiment.finished import load_selected, open_finished
from bert4rec_jax.report.evidence import gather
from bert4rec_jax.serving.evaluation import rank_cases
from bert4rec_jax.serving.export import export
from bert4rec_jax.serving.scorer import load
from bert4rec_jax.training.coverage import make_plan
from bert4rec_jax.training.digests import digest

QUIET = Console(file=io.StringIO())


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    """A finished run, its results and its workdir."""
    workdir = tmp_path_factory.mktemp("trend") / "run"
    config = Config(
        data=DataConfig(path=str(store.path), max_length=8, split="global-time"),
        model=ModelConfig(dim=8, heads=2, layers=1, ffn_dim=8),
        optimizer=OptimizerConfig(peak_lr=1e-2, warmup_steps=1),
        training=TrainingConfig(epochs=2, batch_size=16, evaluate_every=1),
        evaluation=EvaluationConfig(batch_size=32, baselines=False, bootstrap=100),
        workdir=str(workdir),
    )
    return config, protocol.run(config, recipe="trend", console=QUIET), workdir


def copied(run, tmp_path):
    """The run in a folder of its own, for tests that change what it keeps."""
    config, results, workdir = run
    copy = shutil.copytree(workdir, tmp_path / "run")
    return replace(config, workdir=str(copy)), results, copy


def test_it_is_kept_with_the_run_and_tested_beside_the_model_without(run, tmp_path):
    config, results, workdir = copied(run, tmp_path)
    kept = json.loads((workdir / CALIBRATION).read_text())
    assert len(kept["trials"]) > 5
    trend = {"days": 3, "smoothing": 10.0, "weight": 1.0, "against": 0.5}
    (workdir / CALIBRATION).write_text(json.dumps({**kept, "trend": trend}))
    finished = open_finished(workdir, QUIET)
    setting = finished.setting
    shift = Trend(**trend).shift(setting.store, setting.split.refit_stop)
    np.testing.assert_array_equal(finished.corrections.shift, shift)
    again = protocol.run(config, recipe="trend", console=QUIET)
    assert list(again["test"]) == ["BERT4Rec", "BERT4Rec alone"]
    cases = setting.tested()["test"]
    for name, corrections in (("BERT4Rec", Corrections(shift=shift)), ("BERT4Rec alone", None)):
        ranks = setting.rank(
            finished.best.state.params, finished.trained, cases, corrections=corrections
        ).ranks
        assert again["test"][name]["mrr"] == pytest.approx((1 / ranks).mean(), abs=1e-6)
    assert results["parameters_sha256"] == again["parameters_sha256"]


def test_it_is_chosen_by_the_model_that_has_not_seen_validation(run):
    _, _, workdir = run
    finished = open_finished(workdir, QUIET)
    setting, split = finished.setting, finished.setting.split
    selected = load_selected(setting, QUIET).state.params
    found, refitted = (
        summary(setting.rank(params, setting.trained(split.train_stop), split.validation).ranks)
        for params in (selected, finished.best.state.params)
    )
    without = json.loads((workdir / CALIBRATION).read_text())["ndcg@10_without"]
    assert without == pytest.approx(found["ndcg@10"], abs=1e-6)
    assert without != pytest.approx(refitted["ndcg@10"], abs=1e-4)


def test_targets_are_grouped_by_the_events_that_the_tested_model_has_seen(run):
    _, results, workdir = run
    setting = open_finished(workdir, QUIET).setting
    store, split = setting.store, setting.split
    targets = store.tokens[setting.tested()["test"].rows]
    groups, earlier = (
        np.bincount(popularity_groups(train_counts(store, stop))[targets], minlength=4).tolist()
        for stop in (split.refit_stop, split.train_stop)
    )
    assert groups != earlier
    found = results["test"]["BERT4Rec"]["by_popularity"]
    assert [found[name]["cases"] for name in POPULARITY] == groups


def test_validation_asks_the_model_that_was_selected_not_the_one_refitted_on_it(run, tmp_path):
    """With the same corrections, counted on the rows that this one was trained on."""
    _, _, workdir = copied(run, tmp_path)
    trend = {"days": 3, "smoothing": 10.0, "weight": 1.0, "against": 0.5}
    kept = json.loads((workdir / CALIBRATION).read_text())
    (workdir / CALIBRATION).write_text(json.dumps({**kept, "trend": trend}))
    protocol.evaluate(workdir, console=QUIET)
    found = RankFile.read(workdir / VALIDATION_RANKS).sets["validation"].ranks
    setting = open_finished(workdir, QUIET).setting
    selected, stop = load_selected(setting, QUIET).state.params, setting.split.train_stop
    shift = Trend(**trend).shift(setting.store, stop)
    for name, corrections in (("BERT4Rec", Corrections(shift=shift)), ("BERT4Rec alone", None)):
        asked = setting.rank(
            selected, setting.trained(stop), setting.split.validation, corrections=corrections
        )
        np.testing.assert_array_equal(found[name], asked.ranks)


def test_the_refit_repeats_the_updates_of_selection_on_more_rows(run, tmp_path):
    """Longer epochs, but the same learning rates: it ends as decayed as the selected model did."""
    config, _, _ = run
    training = replace(config.training, batch_size=4, log_every=1)
    data = replace(config.data, max_length=4, window="tiles")
    config = replace(config, data=data, training=training, workdir=str(tmp_path / "run"))
    protocol.run(config, recipe="trend", console=QUIET)
    rates = []
    for folder in (tmp_path / "run", tmp_path / "run" / "refit"):
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        rates.append({x["step"]: x["learning_rate"] for x in lines if "learning_rate" in x})
    selection, refit = rates
    setting = open_finished(tmp_path / "run", QUIET).setting
    steps = [
        make_plan(config, setting.store, stop).steps_per_epoch
        for stop in (setting.split.train_stop, setting.split.refit_stop)
    ]
    assert steps[0] < steps[1]
    assert max(selection) == 2 * steps[0] and max(refit) == load_selected(setting, QUIET).step
    assert refit == {step: rate for step, rate in selection.items() if step in refit}


def test_the_bundle_ranks_as_the_evaluator_does(run, tmp_path):
    _, _, workdir = copied(run, tmp_path)
    kept = json.loads((workdir / CALIBRATION).read_text())
    trend = {"days": 3, "smoothing": 10.0, "weight": 1.0, "against": 0.0}
    (workdir / CALIBRATION).write_text(json.dumps({**kept, "trend": trend}))
    finished = open_finished(workdir, QUIET)
    cases = finished.setting.tested()["test"]
    params = finished.best.state.params
    expected = finished.setting.rank(
        params, finished.trained, cases, corrections=finished.corrections
    ).ranks
    plain = finished.setting.rank(params, finished.trained, cases).ranks
    assert (expected != plain).any(), "a trend that moves nothing shows nothing"
    export(workdir, tmp_path / "bundle", console=QUIET)
    ranks = rank_cases(load(tmp_path / "bundle"), finished.setting.store, cases)
    np.testing.assert_array_equal(ranks, expected)


def test_a_trend_of_other_parameters_is_not_used(run, tmp_path):
    _, _, workdir = copied(run, tmp_path)
    kept = json.loads((workdir / CALIBRATION).read_text())
    (workdir / CALIBRATION).write_text(json.dumps({**kept, "parameters_sha256": "others"}))
    assert open_finished(workdir, QUIET).corrections.shift is None


@pytest.mark.parametrize("at", ["no checkpoint", "the first checkpoint"])
def test_a_model_that_is_not_trained_to_its_end_is_not_used(run, tmp_path, at):
    """A stop while the model is trained anew leaves the one that validation selected."""
    _, _, workdir = copied(run, tmp_path)
    whole = open_finished(workdir, QUIET)
    checkpoints = workdir / "refit" / "checkpoints"
    step = whole.best.step
    shutil.rmtree(checkpoints / str(step))
    (other,) = {int(path.name) for path in (workdir / "checkpoints").iterdir()} - {step}
    if at != "no checkpoint":
        shutil.copytree(workdir / "checkpoints" / str(other), checkpoints / str(other))
    said = Console(file=io.StringIO(), width=300)
    found = open_finished(workdir, said)
    selected = load_selected(found.setting, QUIET)
    assert digest(found.best.state.params) == digest(selected.state.params)
    assert digest(found.best.state.params) != digest(whole.best.state.params)
    shown = said.file.getvalue()
    assert found.corrections.shift is None and "stopped before its calibration" in shown
    assert (f"holds a model at step {other} of {step}:" in shown) == (at[:3] == "the")


def test_a_run_can_be_opened_on_other_devices(run, tmp_path, monkeypatch):
    config, _, workdir = copied(run, tmp_path)
    trained_on = replace(config, mesh=MeshConfig(data=1, model=64))
    monkeypatch.setattr("bert4rec_jax.experiment.opening.from_json", lambda values: trained_on)
    assert open_finished(workdir, QUIET).setting.mesh.shape["model"] == 1


def test_a_report_about_validation_asks_the_model_that_never_saw_these_cases(run, tmp_path):
    _, _, workdir = copied(run, tmp_path)
    (workdir / "ledger.jsonl").unlink()  # as if the test split had not been read
    evidence = gather(workdir, QUIET)
    asked = RankFile.read(workdir / VALIDATION_RANKS).sets["validation"].ranks["BERT4Rec"]
    assert evidence.set_name == "validation"
    np.testing.assert_array_equal(evidence.ranks["the model"], asked)
