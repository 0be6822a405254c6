"""The commands of docs/features.md do what the page says."""

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shelf

from bert4rec_jax import cli
from bert4rec_jax.features.content import Content

PAGE = (Path(__file__).parents[2] / "docs" / "features.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^bert4rec (features .*)$", PAGE, re.MULTILINE)


def test_the_page_has_commands():
    assert len(COMMANDS) >= 7


@pytest.mark.parametrize("command", COMMANDS)
def test_commands(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("bert4rec_jax.entry.tune_memory", lambda: None)
    monkeypatch.setattr(
        "bert4rec_jax.features.sources.load_model",
        lambda name, **options: shelf.Fake(name, dim=384),
    )
    store = shelf.store(tmp_path / "data" / "movies")
    shelf.store(tmp_path / "data" / "shop")
    goods = {"item_id": shelf.IDS, "brand": [*"abaab", None], "categories": [["x"]] * 6}
    pq.write_table(pa.table(goods | {"price": [1.0] * 6}), tmp_path / "products.parquet")
    rows = [f"{item_id},x;y,Of steel.\n" for item_id in shelf.IDS]
    (tmp_path / "products.csv").write_text("".join(["sku,categories,description\n", *rows]))
    shelf.write_parquet(tmp_path / "movies.parquet")
    (tmp_path / "ids.txt").write_text("".join(f"{i} tt{i}\n" for i in shelf.IDS))
    np.save(tmp_path / "vectors.npy", np.eye(6, dtype=np.float32))
    vectors = {"imdb_id": shelf.IDS, "vector": pa.array(np.eye(6).tolist())}
    pq.write_table(pa.table(vectors), tmp_path / "vectors.parquet")
    monkeypatch.setattr(sys, "argv", ["bert4rec", *shlex.split(command)])
    cli.main()
    content = Content.open(tmp_path / "data" / "content", store.catalog)
    names = {span.name for span in content.blocks}
    assert ("companies" in names) == ("--metadata movies" in command)
    assert ({"brand", "categories", "other numbers"} <= names) == ("products.parq" in command)
    assert ("categories" in names) == ("products" in command)
    assert ("keywords" in names) == ("--blocks" in command)
    assert ("text" in names) == ("--text" in command)
    assert ("embeddings" in names) == ("--embeddings" in command)


def test_the_python_of_the_page(tmp_path, monkeypatch):
    build, read = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bert4rec_jax.entry.tune_memory", lambda: None)
    store = shelf.store(tmp_path / "data" / "movies")
    shelf.write_parquet(tmp_path / "movies.parquet")
    exec(build, {})
    made = Content.open(tmp_path / "content" / "python", store.catalog)
    assert {span.name for span in made.blocks} >= {"genres", "companies"}
    np.save(tmp_path / "vectors.npy", np.eye(6, dtype=np.float32))
    before = next(command for command in COMMANDS if "vectors.npy" in command)
    monkeypatch.setattr(sys, "argv", ["bert4rec", *shlex.split(before)])
    cli.main()
    names = {}
    exec(read, names)
    assert names["rows"].shape == (6, names["content"].width)
