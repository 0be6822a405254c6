import subprocess
import sys

import numpy as np
import pytest
import shelf

from bert4rec_jax import cli
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.features.content import Content


@pytest.fixture(autouse=True)
def no_memory_settings(monkeypatch):
    monkeypatch.setattr("bert4rec_jax.entry.tune_memory", lambda: None)


def run(monkeypatch, *arguments):
    """Exit status of `bert4rec features`."""
    monkeypatch.setattr(sys, "argv", ["bert4rec", "features", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as exit:
        return exit.code
    return 0


def test_content_is_written_and_its_coverage_shown(tmp_path, monkeypatch, capsys):
    shelf.store(tmp_path / "store")
    table = shelf.write_csv(tmp_path / "movies.csv")
    np.save(tmp_path / "e.npy", np.eye(6, dtype=np.float32))
    status = run(
        monkeypatch, tmp_path / "store", "--output", tmp_path / "content", "--metadata", table,
        "--min-count", 1, "--embeddings", tmp_path / "e.npy", "--blocks", "genres", "numbers",
        "--leaky-columns",
    )  # fmt: skip
    shown = capsys.readouterr()
    assert status == 0, shown.err
    # 6 genres, others, missing; 3 numbers of two knots and "missing" each; of the leaky ones one of
    # two knots and three that one movie has; 6 numbers and "missing".
    rows = [line.split() for line in shown.out.splitlines()]
    assert ["rows", "by", "imdb_id", "33", "83.3%", "96.2%"] in rows
    assert ["genres", "8", "66.7%", "76.9%"] in rows
    assert ["runtime", "50.0%", "57.7%"] in rows
    assert ["embeddings", "7", "100.0%", "100.0%"] in rows
    assert "movies.csv matches 5 of 6 items by imdb_id" in " ".join(shown.err.split())
    assert "results with this content know the future" in " ".join(shown.err.split())
    content = Content.open(tmp_path / "content", SequenceStore.open(tmp_path / "store").catalog)
    assert content.manifest["split"] == "leave-one-out"
    assert content.matrix.shape == (256, 33)


def test_text_shows_its_progress(tmp_path, monkeypatch, capsys):
    shelf.store(tmp_path / "store")
    monkeypatch.setattr(
        "bert4rec_jax.features.sources.load_model", lambda name, **options: shelf.Fake(name)
    )
    status = run(
        monkeypatch, tmp_path / "store", "--output", tmp_path / "content", "--text",
        "--truncate-dim", 4, "--cache", tmp_path / "cache",
    )  # fmt: skip
    shown = capsys.readouterr()
    assert status == 0, shown.err
    assert "5/5" in shown.err
    content = Content.open(tmp_path / "content", SequenceStore.open(tmp_path / "store").catalog)
    assert content.manifest["text"]["model"] == "google/embeddinggemma-300m"
    assert content.manifest["text"]["prompt"] == "title: {title} | text: {text}"
    assert next((tmp_path / "cache").iterdir()).name.startswith("google-embeddinggemma-300m-")


def test_a_mistake_is_one_paragraph_and_status_2(tmp_path, monkeypatch, capsys):
    shelf.store(tmp_path / "store")
    arguments = (tmp_path / "store", "--output", tmp_path / "content")
    assert run(monkeypatch, *arguments, "--metadata", tmp_path / "absent.csv") == 2
    error = capsys.readouterr().err
    assert error == f"error: {tmp_path / 'absent.csv'} does not exist\n"
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    assert run(monkeypatch, *arguments, "--text") == 2
    assert "pip install 'bert4rec-jax[text]'" in capsys.readouterr().err
    assert not (tmp_path / "content").exists()


def test_options_without_an_effect_are_refused(tmp_path, monkeypatch, capsys):
    shelf.store(tmp_path / "store")
    arguments = (tmp_path / "store", "--output", tmp_path / "content")
    assert run(monkeypatch, *arguments) == 0
    capsys.readouterr()
    more = (tmp_path / "store", "--output", tmp_path / "more")
    np.save(tmp_path / "e.npy", np.eye(6, dtype=np.float32))
    like = ("--like", tmp_path / "content")
    for options, message in (
        (("--truncate-dim", 4), "--truncate-dim has no effect without --text"),
        (("--text-columns", "a"), "--text-columns has no effect without --metadata"),
        (("--text-columns", "a", "--metadata", "m.csv"), "no effect without --text or --text-m"),
        (("--cast", 9), "--cast has no effect without --blocks ... cast"),
        (("--companies", 9, "--blocks", "genres"), "no effect without --blocks ... companies"),
        (("--text-model", ""), "--text-model is empty; expected a name on the Hugging Face hub"),
        (("--companies", 9), "--companies has no effect without --metadata"),
        (("--buckets", 8), "--buckets has no effect without --metadata"),
        (("--buckets", 8, "--blocks", "genres", "--metadata", "m.csv"), "without --blocks of key"),
        (("--min-count", 2, "--blocks", "numbers"), "without --blocks other than numbers, or"),
        (("--cache", tmp_path / "cache"), "--cache has no effect without --text or --text-model"),
        (("--separator", ";"), "--separator has no effect without --metadata"),
        (("--leaky-columns",), "--leaky-columns has no effect without --metadata"),
        (("--text-batch-size", 8), "--text-batch-size has no effect without --text"),
        (("--time-quantile", 0.8), "--time-quantile has no effect without --split global-time"),
        ((*like, "--blocks", "language"), "leave out the options that choose columns"),
        ((*like, "--split", "cold-items"), "and the split that they are fitted for"),
        ((*like, "--embeddings", tmp_path / "e.npy"), "have no block 'embeddings'"),
    ):
        assert run(monkeypatch, *more, *options) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    assert run(monkeypatch, *more, *like) == 0
    manifests = [
        Content.open(tmp_path / name, SequenceStore.open(tmp_path / "store").catalog).manifest
        for name in ("content", "more")
    ]
    assert (
        manifests[1]["like"] and manifests[1]["split"] == manifests[0]["split"] == "leave-one-out"
    )


def test_like_reads_a_table_as_the_first_one(tmp_path, monkeypatch, capsys):
    shelf.store(tmp_path / "store")
    table = tmp_path / "goods.csv"
    rows = [f"{item_id},toys;garden,Acme\n" for item_id in shelf.IDS]
    table.write_text("".join(["sku,shelves,brand\n", *rows]))
    arguments = (tmp_path / "store", "--metadata", table)
    status = run(
        monkeypatch, *arguments, "--output", tmp_path / "content", "--id-column", "sku",
        "--separator", ";", "--name-columns", "shelves", "--min-count", 1,
    )  # fmt: skip
    assert status == 0
    assert "not used: brand (see --name-columns," in " ".join(capsys.readouterr().err.split())
    like = ("--like", tmp_path / "content")
    assert run(monkeypatch, *arguments, "--output", tmp_path / "again", *like) == 0
    assert "not used" not in capsys.readouterr().err
    contents = [
        Content.open(tmp_path / name, SequenceStore.open(tmp_path / "store").catalog)
        for name in ("content", "again")
    ]
    np.testing.assert_array_equal(contents[0].matrix, contents[1].matrix)
    more = (*like, "--separator", "|")
    assert run(monkeypatch, *arguments, "--output", tmp_path / "other", *more) == 0
    assert "warning: lists are cut at '|', and were cut" in " ".join(
        capsys.readouterr().err.split()
    )


def test_titles_are_shown_as_they_are(tmp_path, monkeypatch, capsys):
    shelf.store(tmp_path / "store")
    rows = [row | {"title": "[/bold] [REC]"} for row in shelf.ROWS]
    table = shelf.write_csv(tmp_path / "movies.csv", rows)
    arguments = (tmp_path / "store", "--output", tmp_path / "content", "--metadata", table)
    assert run(monkeypatch, *arguments) == 0
    assert "'[/bold] [REC]'" in " ".join(capsys.readouterr().err.split())


def test_the_command_runs_without_jax(tmp_path):
    shelf.store(tmp_path / "store")
    blocked = "import sys; sys.modules.update(dict.fromkeys(('jax', 'jaxlib', 'grain', 'flax')))\n"
    arguments = ["bert4rec", "features", f"{tmp_path}/store", "--output", f"{tmp_path}/content"]
    finished = subprocess.run(
        [sys.executable, "-c",
         f"{blocked}sys.argv = {arguments!r}\nfrom bert4rec_jax.cli import main\nmain()"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "content" / "content.npy").is_file()
