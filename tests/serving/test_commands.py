"""The commands as a person types them."""

import sys
import xml.etree.ElementTree as ET
from dataclasses import replace

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
    assert "40 items, for cpu, cuda, tpu; later versions of JAX can read it until" in output


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
