"""The commands as a person types them."""

import importlib
import json
import re
import shlex
import shutil
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from unittest.mock import create_autospec

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from bert4rec_jax import cli
from bert4rec_jax.serving.explanation import explain
from bert4rec_jax.serving.explanation_display import explanation_table
from bert4rec_jax.serving.picture import picture


@pytest.fixture(autouse=True)
def no_memory_settings(monkeypatch):
    """The settings are those of a whole process: keep them out of the one that runs the tests."""
    monkeypatch.setattr("bert4rec_jax.entry.tune_memory", lambda: None)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def bert4rec(monkeypatch, capsys):
    """Run a command: its status, output and errors."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["bert4rec", *map(str, arguments)])
        status = 0
        try:
            cli.main()
        except SystemExit as exit:
            status = exit.code
        return status, *capsys.readouterr()

    return call


def cells(output):
    """Tables as lists of cells."""
    return [
        [cell.strip() for cell in line.split("│")[1:-1]]
        for line in output.splitlines()
        if "│" in line
    ]


def test_export_says_what_it_made(bert4rec, run, tmp_path):
    status, output, _ = bert4rec("export", run, tmp_path / "bundle")
    assert status == 0
    assert (
        "40 items, float32, for cpu, cuda, tpu; later versions of JAX can read it until" in output
    )


def test_evaluate_tests_bundles_beside_the_run(bert4rec, run, bundle, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")  # the test split is read, which leaves a trace
    status, output, _ = bert4rec(
        "evaluate", copy, "--bundles", bundle, "--output", tmp_path / "metrics.json"
    )
    assert status == 0 and "+0.0000" in output
    found = json.loads((tmp_path / "metrics.json").read_text())["test"]
    of_bundle = found[str(bundle)]
    assert of_bundle["ndcg@10"] == found["BERT4Rec"]["ndcg@10"]
    assert of_bundle["coverage@10"] == found["BERT4Rec"]["coverage@10"]


def test_bundles_that_are_not_named_are_not_evaluated(bert4rec, run):
    status, _, said = bert4rec("evaluate", run, "--bundles")
    assert status == 2 and "--bundles names no bundle" in said


def test_recommend_shows_titles_with_scores(bert4rec, bundle, scorer):
    ids = scorer.catalog.item_ids
    status, output, _ = bert4rec("recommend", bundle, ids[0], ids[1], "-k", 3)
    answer = scorer.recommend(ids[:2], 3)
    assert status == 0
    assert f"after {ids[0]}, {ids[1]}" in output
    assert [(row[1], row[-1]) for row in cells(output)] == [
        (title, f"{score:.3f}") for title, score in zip(answer.titles, answer.scores)
    ]


def test_similar_shows_titles_with_cosines(bert4rec, bundle, scorer):
    item = scorer.catalog.item_ids[4]
    status, output, _ = bert4rec("similar", bundle, item)
    assert status == 0 and f"like {item}" in output and "cosine" in output
    assert len(cells(output)) == 10


def test_explain_shows_influence_attention_and_both_sides(bert4rec, bundle, scorer, tmp_path):
    ids = scorer.catalog.item_ids
    command = ("explain", bundle, "--history", *ids[:4])
    status, output, _ = bert4rec(*command, "--picture", tmp_path / "why.svg")
    found = explain(scorer, ids[:4])
    assert status == 0
    rows = {row[0]: row for row in cells(output) if len(row) == 5}
    for influence in found.influences:
        assert f"{influence.log_probability:+.3f}" in rows[influence.title]
    assert f"why {found.title}: place 1" in output and f"hidden: {ids[2]}" in output
    drawn = ET.fromstring((tmp_path / "why.svg").read_text())
    shown = [element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {*ids[:4], "(the place itself)"} <= set(shown)


def test_explain_hides_a_movie_of_the_last_ones_in_a_long_history(bert4rec, bundle, scorer):
    ids, length = scorer.catalog.item_ids, scorer.bundle.max_length
    assert len(ids) > 2 * length + 2
    status, output, _ = bert4rec("explain", bundle, "--history", *ids[: 2 * length + 2])
    assert status == 0 and f"hidden: {ids[length + 2 + length // 2]}" in output


def test_explain_refuses_what_cannot_be_meant(bert4rec, bundle, scorer):
    ids = scorer.catalog.item_ids
    for arguments, message in (
        (("--history",), "the history is empty; name at least one"),
        (("--history", "Casablanca"), "no title is clearly 'Casablanca'"),
        (("--history", ids[0], "--item", "Casablanca"), "no title is clearly 'Casablanca'"),
        (("--history", ids[0], "--masked", ids[5]), f"'{ids[5]}' is not in the history"),
    ):
        status, _, errors = bert4rec("explain", bundle, *arguments)
        assert status == 2 and errors.startswith(f"error: {message}")


def test_hostile_titles_stay_text(scorer):
    hostile = "[bold]<script>&"
    found = explain(scorer, scorer.catalog.item_ids[:2])
    influences = tuple(replace(influence, title=hostile) for influence in found.influences)
    found = replace(found, title=hostile, influences=influences)
    drawn = picture(found)
    assert "<script" not in drawn and ET.fromstring(drawn).get("aria-label").count(hostile) == 1
    console = Console(width=200)
    with console.capture() as shown:
        console.print(explanation_table(found))
    assert shown.get().count(hostile) == 3


def test_a_title_that_is_none_is_one_clear_error(bert4rec, bundle):
    status, _, errors = bert4rec("recommend", bundle, "Casablanca")
    assert status == 2 and errors.startswith("error: no title is clearly 'Casablanca'")


def test_rank_shows_progress_and_counts(bert4rec, bundle, histories, tmp_path):
    asked = pa.table({"user_id": ["a", "b"], "history": [histories[0], ["x"]]})
    pq.write_table(asked, tmp_path / "in.parquet")
    command = ("rank", bundle, "--requests", tmp_path / "in.parquet", "--output", tmp_path / "out")
    status, output, errors = bert4rec(*command, "--top", 3)
    assert status == 0
    assert ["requests", "2"] in cells(output)
    assert ["of them not in the catalog, skipped", "1"] in cells(output)
    assert "2/2 requests" in errors
    assert pq.read_table(tmp_path / "out")["item_ids"].to_pylist()[1] != []
    status, _, errors = bert4rec(*command, "--top", 3)
    assert status == 0 and "2 of 2 requests are done" in errors
    status, _, errors = bert4rec(*command, "--top", 4)
    assert status == 2 and "belongs to another job" in errors and "Traceback" not in errors


def test_help_explains_the_columns(bert4rec):
    status, output, _ = bert4rec("rank", "--help")
    assert status == 0
    for part in ("user_id and history", "--requests", "--shard-rows"):
        assert part in output


def commands_of(page):
    """Every `bert4rec` command in the shell blocks of a page, as a shell would take it apart."""
    for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if "bert4rec rank" in line or line.startswith("bert4rec"):
                words = shlex.split(line.replace("; do", ""), comments=True)
                yield words[words.index("bert4rec") :]


def test_the_commands_of_the_page_are_understood(monkeypatch, bert4rec):
    """Each reaches what works, with arguments that it takes."""
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    done = []
    manifest = {
        "counts": {}, "step": 0, "known_items": 0, "readable_until": "",
        "functions": {"encode": {"platforms": []}},
    }  # fmt: skip
    for place in (
        "serving.export.export", "serving.job.rank_file", "experiment.protocol.evaluate",
        "serving.display.show_recommendations", "serving.display.show_similar",
    ):  # fmt: skip
        stands_in = create_autospec(import_of(place), return_value=manifest)
        stands_in.side_effect = lambda *a, place=place, **k: done.append(place) or manifest
        monkeypatch.setattr(f"bert4rec_jax.{place}", stands_in)
    monkeypatch.setattr("bert4rec_jax.serving.scorer.load", Path)
    monkeypatch.setattr("bert4rec_jax.serving.evaluation.exported", list)
    monkeypatch.setattr("bert4rec_jax.serving.ray_engine.require_ray", lambda: None)
    found = list(commands_of(page))
    for words in found:
        status, _, errors = bert4rec(*words[1:])
        assert status == 0, (words, errors)
    assert len(done) == len(found) and len(set(done)) == 5


def import_of(place):
    module, _, name = place.rpartition(".")
    return getattr(importlib.import_module(f"bert4rec_jax.{module}"), name)


def test_options_of_the_other_engine_are_refused(bert4rec, tmp_path):
    command = ("rank", tmp_path, "--requests", tmp_path, "--output", tmp_path / "out")
    status, _, errors = bert4rec(*command, "--ray-actors", 2)
    assert status == 2 and "--ray-actors are for --engine ray" in errors
