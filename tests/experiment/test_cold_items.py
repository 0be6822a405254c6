"""A run with items held out: trained, calibrated, tested, evaluated again, exported."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from bert4rec_jax.config import (
    CalibrationConfig,
    Config,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    OptimizerConfig,
    TrainingConfig,
)
from bert4rec_jax.data.cold import choose_cold
from bert4rec_jax.errors import UserError
from bert4rec_jax.experiment import protocol
from bert4rec_jax.experiment.corrections import CALIBRATION, Corrections
from bert4rec_jax.experiment.finished import open_finished
from bert4rec_jax.features.build import build, training_items
from bert4rec_jax.features.sources import Sources
from bert4rec_jax.serving.evaluation import exported, rank_cases
from bert4rec_jax.serving.export import export
from bert4rec_jax.serving.scorer import load

QUIET = Console(quiet=True)
SETS = {"test_warm", "test_cold", "test_cold_only", "test_all"}


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    """A short run whose content says where in the walk an item stands."""
    folder = tmp_path_factory.mktemp("cold")
    places = np.array([int(item) for item in store.catalog.item_ids]) * 2 * np.pi / 40
    np.save(folder / "places.npy", np.stack([np.sin(places), np.cos(places)], 1))
    fitted = training_items(store, "cold-items")
    assert fitted.sum() == 32
    places = Sources(embeddings=folder / "places.npy")
    build(store, folder / "content", fitted=fitted, sources=places, about={"split": "cold-items"})
    config = Config(
        data=DataConfig(path=str(store.path), max_length=12, split="cold-items",
                        content=str(folder / "content")),
        model=ModelConfig(dim=16, layers=1, ffn_dim=32, init_scale=0.2, dropout=0.0,
                          attention_dropout=0.0),
        optimizer=OptimizerConfig(peak_lr=0.01, warmup_steps=10),
        training=TrainingConfig(epochs=20, batch_size=16, evaluate_every=10),
        evaluation=EvaluationConfig(batch_size=64, bootstrap=100),
        workdir=str(folder / "run"),
    )  # fmt: skip
    said = Console(file=io.StringIO(), width=200)
    return config, protocol.run(config, recipe="cold", console=said), said.file.getvalue()


def test_what_is_reported(run, store):
    _, results, said = run
    assert results.keys() >= SETS
    about = results["data"]
    assert (about["users"], about["interactions"]) == (store.num_users, store.num_interactions)
    assert f"{store.num_interactions:,} interactions of {store.num_users:,} users" in said
    assert {"BERT4Rec", "popular", "content-knn"} <= results["test_cold"].keys()
    assert "ranked among 4 cold items" in said
    assert said.count("Share of untrained items in the lists") == 3
    for name in ("test_warm", "test_cold"):
        shares = {model: found["cold_exposure@10"] for model, found in results[name].items()}
        assert shares["popular"] < shares["content-knn"] < 1 and 0 < shares["BERT4Rec"] < 1
    assert results["test_cold_only"]["popular"]["cold_exposure@10"] == 1
    assert results["data"]["test_cold"]["cases"] + sum(
        results["data"]["test_cold"]["left_out"].values()
    ) == store.num_users  # fmt: skip


def test_content_finds_what_nobody_watched(run):
    cold, only = run[1]["test_cold"], run[1]["test_cold_only"]
    assert cold["BERT4Rec"]["mrr"] > 2 * cold["popular"]["mrr"]
    assert only["BERT4Rec"]["mrr"] > cold["BERT4Rec"]["mrr"]  # fewer rivals


@pytest.mark.slow
def test_ids_alone_know_nothing_of_cold_items(run, tmp_path):
    config = run[0]
    ids = replace(
        config,
        data=replace(config.data, content=""),
        training=replace(config.training, epochs=2, evaluate_every=2),
        evaluation=replace(config.evaluation, baselines=False),
        workdir=str(tmp_path / "ids"),
    )
    results = protocol.run(ids, recipe="cold", console=QUIET)
    assert results["test_cold"]["BERT4Rec"]["hr@10"] == 0
    assert results["test_cold"]["BERT4Rec"]["cold_exposure@10"] == 0
    assert results["test_warm"]["BERT4Rec"]["mrr"] > 0
    kept = json.loads((tmp_path / "ids" / CALIBRATION).read_text())
    assert kept == {"parameters_sha256": results["parameters_sha256"]["tested"]}  # nothing added


def test_less_kept_for_trained_targets_is_calibrated_again(run, tmp_path):
    config, results, _ = run
    workdir = tmp_path / "run"
    shutil.copytree(config.workdir, workdir)
    before = json.loads((workdir / CALIBRATION).read_text())
    calibration = replace(config.calibration, warm_kept=0.5)
    other = replace(config, calibration=calibration, workdir=str(workdir))
    again = protocol.run(other, recipe="cold", console=QUIET)
    assert again["steps"]["done"] == results["steps"]["done"]  # nothing was trained
    after = json.loads((workdir / CALIBRATION).read_text())
    assert (before["warm_kept"], after["warm_kept"]) == (0.97, 0.5)
    assert after["offset"] >= before["offset"] and after["cold_ndcg@10"] >= before["cold_ndcg@10"]
    assert after["warm_ndcg@10"] >= 0.5 * max(t["warm_ndcg@10"] for t in after["trials"])


def test_the_offset_is_kept_with_the_run_and_used(run, tmp_path):
    config, results, _ = run
    workdir = tmp_path / "run"
    shutil.copytree(config.workdir, workdir)
    kept = json.loads((workdir / CALIBRATION).read_text())
    least = kept["warm_kept"] * max(t["warm_ndcg@10"] for t in kept["trials"])
    able = [t for t in kept["trials"] if t["warm_ndcg@10"] >= least]
    assert kept["cold_ndcg@10"] == max(t["cold_ndcg@10"] for t in able)
    finished = open_finished(workdir, QUIET)
    assert finished.corrections.offset == kept["offset"]
    shown = results["validation"]["BERT4Rec"]["ndcg@10"]  # with the offset, as in the test
    assert shown == pytest.approx(kept["warm_ndcg@10"], abs=2e-6)
    cases = finished.setting.tested()["test_cold"]

    def mrr(offset):
        params = finished.best.state.params
        return (
            1
            / finished.setting.rank(
                params, finished.trained, cases, corrections=Corrections(offset)
            ).ranks
        ).mean()

    assert mrr(kept["offset"]) == pytest.approx(results["test_cold"]["BERT4Rec"]["mrr"], abs=1e-6)
    assert mrr(-20) < mrr(0) < mrr(20)
    (workdir / CALIBRATION).write_text(json.dumps({**kept, "parameters_sha256": "others"}))
    console = Console(file=io.StringIO(), width=200)
    assert open_finished(workdir, console).corrections.offset == 0
    assert "was stopped before its calibration" in console.file.getvalue()
    (workdir / CALIBRATION).write_text("{")
    with pytest.raises(UserError, match=r"cannot read .*calibration\.json .*remove it"):
        open_finished(workdir, QUIET)


@pytest.mark.slow
def test_the_bundle_ranks_cold_targets_as_the_evaluator_does(run, store, tmp_path):
    config, _, _ = run
    export(Path(config.workdir), tmp_path / "bundle")
    setting = open_finished(Path(config.workdir), QUIET).setting
    ranks = np.load(f"{config.workdir}/ranks.npz")["test_cold/BERT4Rec"]
    scorer = load(tmp_path / "bundle", batch_size=16)
    found = rank_cases(scorer, setting.store, setting.tested()["test_cold"])
    np.testing.assert_array_equal(found, ranks)
    cold = choose_cold(store).either
    assert scorer.bundle.known[: len(cold)][cold].all()
    copy = shutil.copytree(config.workdir, tmp_path / "run")  # the test split is read again
    tested = protocol.evaluate(copy, exported=exported([tmp_path / "bundle"]), console=QUIET)
    for name in ("test_cold", "test_warm"):
        of_run, of_bundle = (tested[name][x] for x in ("BERT4Rec", str(tmp_path / "bundle")))
        assert of_bundle["mrr"] == of_run["mrr"] == run[1][name]["BERT4Rec"]["mrr"]


def test_the_model_alone_has_an_offset_of_its_own(run, tmp_path):
    config, results, _ = run
    shutil.copytree(config.workdir, tmp_path / "run")
    counted = replace(
        config, workdir=str(tmp_path / "run"), calibration=CalibrationConfig(covisitation=True)
    )
    found = protocol.run(counted, recipe="cold", console=QUIET)
    kept = json.loads((tmp_path / "run" / CALIBRATION).read_text())
    earlier = json.loads((Path(config.workdir) / CALIBRATION).read_text())
    assert kept["offset_alone"] == earlier["offset"]
    corrections = open_finished(tmp_path / "run", QUIET).corrections
    assert (corrections.offset, corrections.offset_alone) == (kept["offset"], earlier["offset"])
    name = "BERT4Rec alone" if corrections.moves else "BERT4Rec"
    for cases in SETS:
        assert found[cases][name]["ndcg@10"] == results[cases]["BERT4Rec"]["ndcg@10"]


def test_what_an_earlier_version_chose_is_used_as_it_was_chosen(run, tmp_path):
    """Its offset stands in for the average gain of items without counts, which it did not have."""
    workdir = shutil.copytree(run[0].workdir, tmp_path / "run")
    kept = json.loads((workdir / CALIBRATION).read_text())
    chosen = {"decay": 0.6, "smoothing": 5.0, "weight": 0.75, "popularity": 0.25}
    uncounted = []
    for more in ({}, {"uncounted_gain": True}):
        found = {**kept, "covisitation": {"chosen": chosen, **more}}
        (workdir / CALIBRATION).write_text(json.dumps(found))
        found = open_finished(workdir, QUIET).corrections.covisitation
        uncounted.append(found["uncounted"].sum() if "uncounted" in found else None)
    assert uncounted == [None, 8]
