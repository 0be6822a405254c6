"""Covisitation in a run and in its bundle: one score everywhere."""

import contextlib
import io
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from bert4rec_jax.config import CalibrationConfig, Config, ConfigError, ModelConfig, from_json
from bert4rec_jax.data.catalog import FIRST_ITEM
from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation.metrics import coverage, summary
from bert4rec_jax.experiment import protocol
from bert4rec_jax.experiment.corrections import CALIBRATION
from bert4rec_jax.experiment.finished import open_finished
from bert4rec_jax.features.sources import Sources
from bert4rec_jax.report.evidence import gather
from bert4rec_jax.serving.add_items import add_items
from bert4rec_jax.serving.bundle import Bundle
from bert4rec_jax.serving.evaluation import rank_cases
from bert4rec_jax.serving.explanation import explain
from bert4rec_jax.serving.export import export
from bert4rec_jax.serving.retrieval import Nearby, Scan
from bert4rec_jax.serving.scorer import load
from bert4rec_jax.training.run_record import read_config

QUIET = Console(quiet=True)
CHOSEN = {"decay": 0.6, "smoothing": 5.0, "weight": 0.75, "popularity": 0.25}


@pytest.fixture(scope="module")
def counted(run, once):
    """The shared run, calibrated in a copy of its folder; then weights that move every list."""

    def calibrate(folder):
        shutil.copytree(run, folder / "run")
        config = from_json(read_config(run))
        config = replace(
            config, workdir=str(folder / "run"), calibration=CalibrationConfig(covisitation=True)
        )
        results = protocol.run(config, recipe="counted", console=QUIET)
        (folder / "results.json").write_text(json.dumps(results))
        file = folder / "run" / CALIBRATION
        kept = json.loads(file.read_text())
        (folder / "chosen.json").write_text(json.dumps(kept))
        kept["covisitation"]["chosen"] = CHOSEN
        file.write_text(json.dumps(kept))
        export(folder / "run", folder / "bundle", console=QUIET)

    return once("covisitation", calibrate)


@pytest.fixture(scope="module")
def raising(counted):
    return load(counted / "bundle", batch_size=16)


def test_a_finished_run_is_calibrated_without_training_again(counted, run):
    results = json.loads((counted / "results.json").read_text())
    earlier = json.loads((run / "metrics.json").read_text())
    assert results["parameters_sha256"] == earlier["parameters_sha256"]
    kept = json.loads((counted / "chosen.json").read_text())
    found = kept["covisitation"]
    assert len(found["trials"]) > 12
    best = max(trial["ndcg@10"] for trial in found["trials"])
    assert (found["chosen"] is None) == (best <= found["ndcg@10_without"])
    alone = results["validation"].get("BERT4Rec alone", results["validation"]["BERT4Rec"])
    assert alone["ndcg@10"] == pytest.approx(found["ndcg@10_without"], abs=1e-6)
    shown = results["validation"]["BERT4Rec"]["ndcg@10"]
    assert shown == pytest.approx(max(best, found["ndcg@10_without"]), abs=1e-6)


def test_the_bundle_ranks_as_the_evaluator_does(counted, raising, scorer):
    finished = open_finished(counted / "run", QUIET)
    setting = finished.setting
    cases = setting.split.validation
    params = finished.best.state.params
    expected = setting.rank(params, finished.trained, cases, corrections=finished.corrections).ranks
    alone = setting.rank(params, finished.trained, cases).ranks
    assert (expected != alone).mean() > 0.3, "counts that move nothing show nothing"
    np.testing.assert_array_equal(rank_cases(raising, setting.store, cases), expected)
    np.testing.assert_array_equal(rank_cases(scorer, setting.store, cases), alone)
    hidden = setting.encode(params, finished.trained, cases)
    again = setting.rank(
        params, finished.trained, cases, corrections=finished.corrections, hidden=hidden
    )
    np.testing.assert_array_equal(again.ranks, expected)


def test_a_report_shows_the_lists_that_were_tested(counted, run, tmp_path):
    copy = shutil.copytree(counted / "run", tmp_path / "run")
    config = from_json(read_config(copy))
    calibration = CalibrationConfig(covisitation=True)
    config = replace(config, workdir=str(copy), calibration=calibration)
    tested = protocol.run(config, recipe="counted", console=QUIET)["test"]["BERT4Rec"]
    evidence = gather(copy, QUIET)
    found = summary(evidence.ranks["BERT4Rec"])
    assert found["ndcg@10"] == pytest.approx(tested["ndcg@10"], abs=1e-6)
    finished = open_finished(copy, QUIET)
    alone = finished.setting.rank(finished.best.state.params, finished.trained, evidence.cases).top
    assert (evidence.top != alone).any(), "counts that move nothing show nothing"
    shown = coverage(evidence.top, len(evidence.catalog))
    assert shown == pytest.approx(tested["coverage@10"], abs=1e-6)


def test_candidates_score_as_in_the_whole_catalog(raising, histories):
    listed = raising.recommend_batch(histories[:20], k=8)
    ranked = raising.rank(histories[:20], [list(answer.item_ids) for answer in listed])
    for whole, among in zip(listed, ranked):
        assert among.item_ids == whole.item_ids
        np.testing.assert_allclose(among.scores, whole.scores, rtol=1e-5, atol=1e-5)


def test_an_explanation_is_about_the_score_that_is_listed(raising, scorer, histories):
    for history in histories[:3]:
        first = raising.recommend(history, k=1)
        found = explain(raising, history)
        assert (found.item_id, found.rank) == (first.item_ids[0], 1)
        assert found.score == pytest.approx(first.scores[0], abs=1e-5)
        assert found.score != pytest.approx(explain(scorer, history, found.item_id).score, abs=1e-3)


def test_items_can_be_added(counted, raising, histories, tmp_path):
    np.save(tmp_path / "new.npy", np.random.default_rng(1).normal(size=(300, 3)))
    new = tuple(f"new {number}" for number in range(300))
    sources = Sources(embeddings=tmp_path / "new.npy")
    add_items(counted / "bundle", tmp_path / "more", ids=new, sources=sources, offset=-50.0)
    more = load(tmp_path / "more", batch_size=16)
    assert more.recommend_batch(histories[:20]) == raising.recommend_batch(histories[:20])
    assert all(np.isfinite(more.recommend(["new 0"], k=5).scores))
    parameters = Bundle.open(tmp_path / "more").parameters()
    last = slice(FIRST_ITEM + len(raising.catalog), FIRST_ITEM + len(more.catalog))
    covered, uncovered = (parameters[f"covisitation/{x}covered"] for x in ("", "un"))
    assert not covered[last].any() and (uncovered[last] == 1).all()  # nothing followed them
    np.testing.assert_allclose((covered + uncovered)[: last.stop], 1, atol=1e-6)


def test_runs_of_earlier_versions_keep_the_digest_of_their_corrections(counted):
    corrections = open_finished(counted / "run", QUIET).corrections
    before = {name: x for name, x in corrections.covisitation.items() if name != "uncovered"}
    assert len(before) < len(corrections.covisitation)
    assert replace(corrections, covisitation=before).digest == corrections.digest
    other = {**before, "covered": before["covered"] / 2}
    assert replace(corrections, covisitation=other).digest != corrections.digest


def test_scanning_a_large_catalog_lists_the_same(counted, raising, histories):
    bundle = Bundle.open(counted / "bundle")
    rows = np.zeros((4, 5), np.int32)
    for row, history in zip(rows, histories):
        last = [raising.catalog.token(item) for item in history[-5:]]
        row[: len(last)] = last
    thumbs, nothing = np.zeros(rows.shape, np.int8), np.zeros((4, 1), np.int32)
    expected = raising.ranker.functions.top_k(rows, thumbs, nothing, 7)
    found = Scan(bundle, 16).top_k(rows, thumbs, nothing, 7)
    np.testing.assert_array_equal(found[1][:4], expected[1][:4])
    np.testing.assert_allclose(found[0][:4], expected[0][:4], rtol=1e-5, atol=1e-5)
    assert (np.asarray(found[1][:4]) >= FIRST_ITEM).all()
    with pytest.raises(UserError, match=r"groups of items are found by vectors alone.*--probes 0"):
        Nearby(bundle, 16, probes=2)
    for probes in (0, 2):
        with contextlib.ExitStack() as stack:
            if probes:
                stack.enter_context(pytest.raises(UserError, match="groups of items are found by"))
            bundle.behind(bundle, 5, probes)


def test_it_can_be_switched_off_again(counted, run, tmp_path):
    copy = shutil.copytree(counted / "run", tmp_path / "run")
    config = from_json(read_config(copy))
    off = replace(config, workdir=str(copy), calibration=CalibrationConfig(covisitation=False))
    results = protocol.run(off, recipe="off", console=QUIET)
    assert "BERT4Rec alone" not in results["test"]
    assert open_finished(copy, QUIET).corrections.covisitation is None
    manifest = export(copy, tmp_path / "bundle", console=QUIET)
    assert not any(
        name.startswith("covisitation") for name in Bundle.open(tmp_path / "bundle").parameters()
    )
    assert manifest["metrics"]["test"]["ndcg@10"] == results["test"]["BERT4Rec"]["ndcg@10"]


def test_a_run_that_was_stopped_before_it_says_so(counted, tmp_path):
    copy = shutil.copytree(counted / "run", tmp_path / "run")
    (copy / CALIBRATION).unlink()
    said = Console(file=io.StringIO(), width=300)
    config = replace(
        from_json(read_config(copy)),
        calibration=CalibrationConfig(covisitation=True),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bert4rec_jax.experiment.opening.from_json", lambda values: config)
        assert open_finished(copy, said).corrections.covisitation is None
    assert "was stopped before its calibration" in said.file.getvalue()


def test_two_towers_refuse_it():
    with pytest.raises(ConfigError, match=r"calibration\.covisitation is True; expected False"):
        Config(
            model=ModelConfig(kind="two-tower"),
            masking=replace(Config().masking, objective="next"),
            calibration=CalibrationConfig(covisitation=True),
        )
