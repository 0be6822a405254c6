"""The report of a run: its figures are those of the run, and whatever a title holds stays text."""

import io
import json
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from bert4rec_jax.config import CalibrationConfig, from_json
from bert4rec_jax.data.catalog import Catalog
from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation.rank_file import RankFile
from bert4rec_jax.experiment import protocol
from bert4rec_jax.experiment.finished import open_finished
from bert4rec_jax.experiment.setting import Setting
from bert4rec_jax.report import sections
from bert4rec_jax.report.evidence import backwards, gather, look
from bert4rec_jax.report.page import Section, page, paragraph, table
from bert4rec_jax.report.report import write_report
from bert4rec_jax.serving.explanation import explain
from bert4rec_jax.training.run_record import read_config

QUIET = Console(quiet=True)
HOSTILE = "</td><script>alert(1)</script><img src=x onerror=alert(1)> & [bold]"


class Seen(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.text = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("href", "src")]

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def evidence(run):
    return gather(run, QUIET)


def test_a_model_that_reads_times_is_reported_like_others(run, tmp_path):
    config = from_json(read_config(run))
    short = replace(
        config,
        model=replace(config.model, times=True),
        training=replace(config.training, epochs=1, evaluate_every=1),
        evaluation=replace(config.evaluation, baselines=False),
        workdir=str(tmp_path / "run"),
    )
    said = Console(file=io.StringIO(), width=200)
    protocol.run(short, recipe="times", console=said)
    assert "BERT4Rec knows the time of the request (model.times)" in said.file.getvalue()
    write_report(tmp_path / "run", tmp_path / "report.html", QUIET)
    assert "attention from the place of the next item" in (tmp_path / "report.html").read_text()


def test_a_run_that_was_not_tested_is_reported_on_validation(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    config = from_json(read_config(copy))
    untested = replace(config, workdir=str(copy), evaluation=replace(config.evaluation, test=False))
    protocol.run(untested, recipe="untested", console=QUIET)
    (copy / "ledger.jsonl").unlink()
    write_report(copy, copy / "report.html", QUIET)
    assert "Validation: " in (copy / "report.html").read_text()


def test_a_page_holds_the_figures_of_the_run_and_needs_no_network(run, tmp_path):
    write_report(run, tmp_path / "report.html", QUIET)
    text = (tmp_path / "report.html").read_text()
    seen = Seen(text)
    recorded = json.loads((run / "metrics.json").read_text())["test"]["BERT4Rec"]
    assert f"{recorded['ndcg@10']:.4f}" in seen.text and f"{recorded['mrr']:.4f}" in seen.text
    assert all(address.startswith("#part-") for address in seen.addresses)
    assert not {"script", "link", "img", "iframe"} & set(seen.tags)
    assert (
        text.count("<table>")
        == text.count("<caption>")
        == text.count('role="region"') - (text.count("<svg"))
    )
    assert text.count('role="img" aria-label=') == text.count("<svg") > 0
    assert 'lang="en"' in text and 'name="viewport"' in text
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_run_is_named_from_within_its_folder(run, tmp_path, monkeypatch):
    monkeypatch.chdir(run)
    write_report(Path(), tmp_path / "report.html", QUIET)
    text = (tmp_path / "report.html").read_text()
    assert f"<h1>What {run.name} learned</h1>" in text and f"<td>{run.name}</td>" in text


def test_a_test_with_other_corrections_is_not_mixed_with_the_lists(run, tmp_path):
    """Counts that are switched on after the test, which is not read again."""
    copy = shutil.copytree(run, tmp_path / "run")
    config = from_json(read_config(copy))
    assert gather(copy, QUIET).set_name == "test"
    counted = replace(
        config,
        workdir=str(copy),
        calibration=CalibrationConfig(covisitation=True),
        evaluation=replace(config.evaluation, test=False),
    )
    protocol.run(counted, recipe="counted", console=QUIET)
    assert open_finished(copy, QUIET).corrections.covisitation is not None
    assert gather(copy, QUIET).set_name == "validation"


def test_ranks_of_another_model_are_not_shown(run, tmp_path):
    """The ledger has the line of a test whose ranks could not be written."""
    copy = shutil.copytree(run, tmp_path / "run")
    ranks = RankFile.read(copy / "ranks.npz")
    assert gather(copy, QUIET).set_name == "test"
    replace(ranks, parameters="of another model").write(copy / "ranks.npz")
    assert gather(copy, QUIET).set_name == "validation"


def test_lists_without_a_movie_are_said_to_have_none(evidence):
    nothing = replace(evidence, top=np.zeros_like(evidence.top))
    assert "No list has an item" in str(sections.breadth(nothing))


def test_the_gaze_is_that_of_the_exported_model(evidence, scorer, store):
    gaze = evidence.gaze
    np.testing.assert_allclose(gaze.weights.sum(-1), 1, atol=1e-5)
    for case in (0, 17):
        start, row = (store.offsets[evidence.cases.users[case]], evidence.cases.rows[case])
        history = [store.catalog.item_ids[token - 2] for token in store.tokens[start:row]]
        ratings = store.ratings[start:row].tolist()
        expected = explain(scorer, history, ratings=ratings).attention[..., ::-1]
        found = gaze.weights[case, :, :, : expected.shape[-1]]
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert gaze.tokens[case, :2].tolist() == [1, store.tokens[row - 1]]


def test_the_gaze_leaves_out_what_the_model_cannot_score(run, monkeypatch):
    finished = open_finished(run, QUIET)
    cases = finished.setting.tested()["test"]
    unknown = int(np.bincount(finished.setting.store.tokens).argmax())
    scored = finished.setting.scored(finished.trained)
    scored[unknown] = False
    monkeypatch.setattr(Setting, "scored", lambda *_: scored)
    gaze = look(finished, cases, np.zeros(len(cases), np.int32))
    assert not (gaze.tokens == unknown).any() and (gaze.tokens[:, 1] != 0).all()
    np.testing.assert_allclose(gaze.weights.sum(-1), 1, atol=1e-5)


def test_the_strongest_baseline_is_no_form_of_the_model(evidence):
    ours = evidence.ranks[evidence.model]
    names = ("BERT4Rec", "BERT4Rec alone", "a/bundle", "weak", "strong")
    ranks = {name: ours for name in names} | {"weak": ours + 100, "strong": ours + 1}
    shown = replace(evidence, ranks=ranks, baselines=("weak", "strong"))
    assert sections._strongest(shown) == "strong"
    assert sections._strongest(replace(shown, baselines=())) is None


def test_counting_back():
    rows = np.array([[7, 8, 1, 0], [7, 8, 9, 0]], np.int32)
    weights = np.array([[0.2, 0.5, 0.3, 0.0], [0.1, 0.2, 0.7, 0.0]], np.float32)[:, None, None]
    places = np.array([[2], [3]], np.int32)  # MASK; or, read from the left, after the newest
    turned, tokens = backwards(weights, rows, places)
    assert tokens.tolist() == [[1, 8, 7, 0], [0, 9, 8, 7]]
    np.testing.assert_allclose(turned[:, 0, 0], [[0.3, 0.5, 0.2, 0], [0, 0.7, 0.2, 0.1]])


def test_groups_are_parts_of_the_whole(evidence):
    """Means over groups, weighed by their sizes, are the mean over all."""
    ndcg = sections.contributions(evidence.ranks["BERT4Rec"])["ndcg@10"]
    text = Seen("".join(sections.groups(evidence).parts)).text
    lengths = evidence.lengths
    assert f"{ndcg[(lengths >= 6) & (lengths <= 10)].mean():.4f}" in text
    assert "The catalog has no genres." in text


def test_hostile_titles_stay_text(evidence, monkeypatch):
    monkeypatch.setattr(Catalog, "title", lambda self, token: HOSTILE)
    shown = page(HOSTILE, [f(evidence) for f in (sections.neighbours, sections.misses)])
    seen = Seen(shown)
    assert not {"script", "img"} & set(seen.tags) and seen.text.count(HOSTILE) > 20
    plain = page("x", [Section(HOSTILE, (paragraph(HOSTILE), table(HOSTILE, (HOSTILE,), [])))])
    assert not {"script", "img"} & set(Seen(plain).tags)


def test_what_was_not_tested_is_shown_on_validation(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "ledger.jsonl").unlink()
    found = gather(copy, QUIET)
    assert found.set_name == "validation" and list(found.ranks) == ["the model"]
    best = json.loads((run / "metrics.json").read_text())["validation"]["BERT4Rec"]
    ndcg = sections.contributions(found.ranks["the model"])["ndcg@10"].mean()
    assert ndcg == pytest.approx(best["ndcg@10"], abs=1e-6)


def test_a_baseline_that_was_tuned_on_cold_items_is_not_set_beside_others(evidence):
    tuned = {"ndcg@10": 0.5, "trials": 1}
    validation = {"popular": tuned, "content-knn": {**tuned, "cases": "cold"}}
    shown = replace(evidence, baselines=(), results={"validation": validation})
    text = str(sections.quality(shown))
    assert ">popular<" in text and ">content-knn on cold items<" in text


def test_a_test_of_a_pipeline_hides_no_test_of_the_model(run, tmp_path):
    """benchmarks/candidates.py leaves a line without parameters in the ledger of a run."""
    copy = shutil.copytree(run, tmp_path / "run")
    with (copy / "ledger.jsonl").open("a") as file:
        file.write(json.dumps({"time": "2026-01-01", "command": "candidates", "sets": {}}) + "\n")
    assert gather(copy, QUIET).set_name == "test"


def test_a_line_that_was_cut_off_hides_no_later_test(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    ledger = copy / "ledger.jsonl"
    ledger.write_text(ledger.read_text()[:100] + "\n" + ledger.read_text())
    assert gather(copy, QUIET).set_name == "test"


def test_files_that_contradict_the_run(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    with np.load(copy / "ranks.npz") as file:
        arrays = {name: file[name][:-1] for name in file.files if file[name].ndim}
    np.savez(copy / "ranks.npz", **arrays)
    with pytest.raises(UserError, match="is about other users than the data of the run"):
        gather(copy, QUIET)
    (copy / "ranks.npz").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"ranks\.npz is no \.npz file"):
        gather(copy, QUIET)
    with pytest.raises(UserError, match="holds no checkpoint"):
        gather(tmp_path, QUIET)


def test_what_was_listed_was_not_missed(evidence):
    ranks = evidence.ranks[evidence.model]
    everywhere = np.ones(len(ranks), bool)
    drawn = str(sections._missed(evidence, "Worst", everywhere))
    assert drawn.count("<tr") == 1 + min(8, int((ranks > 10).sum()))
    best = replace(evidence, ranks={**evidence.ranks, evidence.model: np.full_like(ranks, 10)})
    assert "Worst: all are among the first 10." in str(sections._missed(best, "Worst", everywhere))
    assert "Worst: there are none." in str(sections._missed(evidence, "Worst", ~everywhere))


def test_a_model_without_layers_has_no_heads(evidence):
    none = replace(evidence.gaze, weights=evidence.gaze.weights[:, :0])
    section = sections.heads(replace(evidence, gaze=none))
    assert "The model has no layers of attention." in str(section)


def test_a_causal_model_is_read_at_the_newest_movie(evidence, run_with_users):
    drawn = str(sections.heads(evidence))
    assert "attention from the place of the next item" in drawn and "itself" in drawn
    towers = gather(run_with_users, QUIET)
    drawn = str(sections.heads(towers))
    assert "attention from the newest item" in drawn and "itself" not in drawn
    # A head looks at movies alone, so its shares by distance sum to 1.
    weights = towers.gaze.weights[..., 1:].sum(-1)
    np.testing.assert_allclose(weights, 1, atol=1e-5)
