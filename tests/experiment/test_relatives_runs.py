"""A run whose items have content: counts are smoothed towards items that are alike."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
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
from bert4rec_jax.errors import UserError
from bert4rec_jax.experiment import protocol
from bert4rec_jax.experiment.calibration import _most
from bert4rec_jax.experiment.corrections import CALIBRATION
from bert4rec_jax.experiment.finished import open_finished
from bert4rec_jax.experiment.inputs import likeness_of
from bert4rec_jax.features.build import build, training_items
from bert4rec_jax.features.options import Options, OtherColumns
from bert4rec_jax.features.shared_names import TITLE
from bert4rec_jax.features.sources import Sources
from bert4rec_jax.serving.evaluation import rank_cases
from bert4rec_jax.serving.export import export
from bert4rec_jax.serving.scorer import load

QUIET = Console(quiet=True)
SHELF = "shelf [/m]"  # looks like the end of a style of rich
OPTIONS = Options(others=OtherColumns(names=(SHELF,)))


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    """A short run; items that stand side by side in the walk share a keyword."""
    folder = tmp_path_factory.mktemp("relatives")
    ids = store.catalog.item_ids
    table = {
        "item_id": ids,
        "genres": ["Drama" if int(item) % 2 else "War" for item in ids],
        "keywords": [[f"k{int(item) // 4}"] for item in ids],
        SHELF: [f"s{int(item) // 8}" for item in ids],
    }
    pq.write_table(pa.table(table), folder / "items.parquet")
    build(
        store,
        folder / "content",
        fitted=training_items(store),
        sources=Sources(folder / "items.parquet", id_column="item_id"),
        options=OPTIONS,
    )
    config = Config(
        data=DataConfig(path=str(store.path), max_length=12, content=str(folder / "content")),
        model=ModelConfig(dim=8, layers=1, ffn_dim=16, init_scale=0.2),
        optimizer=OptimizerConfig(peak_lr=0.01, warmup_steps=10),
        training=TrainingConfig(epochs=2, batch_size=16, evaluate_every=2),
        evaluation=EvaluationConfig(batch_size=64, bootstrap=100),
        calibration=CalibrationConfig(covisitation=True),
        workdir=str(folder / "run"),
    )
    said = Console(file=io.StringIO(), width=200)
    protocol.run(config, recipe="relatives", console=said)
    printed = said.file.getvalue()
    assert "  items go together by " in printed and "keywords (" in printed
    assert f"{SHELF} (" in printed
    return config


def calibration(workdir):
    return json.loads((Path(workdir) / CALIBRATION).read_text())["covisitation"]


def test_what_goes_together_is_learned(run):
    found = calibration(run.workdir)
    assert found["likeness"]["keywords"] > 0.5
    assert {trial["relatives"] for trial in found["trials"]} >= {0, 1, 2, 3, 4}


def test_only_weights_that_count_are_shown():
    weights = {"a": 0.04, "b": 0.06, "c": 2.0, "d": -1.0, "e": 0.3, "f": 0.2, "g": 0.5, "h": 0.4}
    assert _most(weights) == "c (2.0), g (0.5), h (0.4), e (0.3), f (0.2)"
    assert _most({"a": 0.04, "b": 0.06}) == "b (0.1)"
    assert _most({"a": 0.04, "d": -1.0}) == ""


def test_items_known_by_id_alone_have_no_relatives(run, store, tmp_path):
    config = replace(run, data=replace(run.data, content=""), workdir=str(tmp_path / "run"))
    protocol.run(config, recipe="ids", console=QUIET)
    found = calibration(config.workdir)
    assert "likeness" not in found
    assert {trial["relatives"] for trial in found["trials"]} == {0}


def test_the_bundle_ranks_as_the_evaluator_does(run, tmp_path):
    workdir = shutil.copytree(run.workdir, tmp_path / "run")
    kept = json.loads((workdir / CALIBRATION).read_text())
    ranks = []
    for strength in (0.0, 3.0):
        chosen = {"decay": 0.6, "smoothing": 5.0, "weight": 1.0, "popularity": 0.25}
        kept["covisitation"]["chosen"] = {**chosen, "relatives": strength}
        (workdir / CALIBRATION).write_text(json.dumps(kept))
        finished = open_finished(workdir, QUIET)
        setting, best = finished.setting, finished.best
        cases = setting.tested()["test"]
        ranking = setting.rank(
            best.state.params, finished.trained, cases, corrections=finished.corrections
        )
        bundle = tmp_path / f"bundle{strength:g}"
        export(workdir, bundle, console=QUIET)
        found = rank_cases(load(bundle), setting.store, cases)
        np.testing.assert_array_equal(found, ranking.ranks)
        ranks.append(ranking.ranks)
    assert (ranks[0] != ranks[1]).any()


def test_content_of_earlier_versions_has_titles_and_genres(run, store):
    setting = open_finished(Path(run.workdir), QUIET).setting
    names = set(setting.likeness().names)
    assert names == {"genres", "keywords", SHELF}
    earlier = replace(setting.known_content, shared_names=None)
    assert "genres" in likeness_of(run.data, store.catalog, earlier).names
    catalog = replace(run.data, content="catalog")
    assert set(likeness_of(catalog, store.catalog, None).names) <= {"genres", TITLE}


def test_names_that_changed_since_the_calibration_are_refused(run, store, tmp_path):
    """Keywords have no columns of their own, so the matrix of the content stays the same."""
    workdir = shutil.copytree(run.workdir, tmp_path / "run")
    kept = json.loads((workdir / CALIBRATION).read_text())
    kept["covisitation"]["chosen"] = {"relatives": 2.0}
    (workdir / CALIBRATION).write_text(json.dumps(kept))
    before = open_finished(workdir, QUIET).corrections.digest

    content = Path(run.data.content)
    table = pq.read_table(content.parent / "items.parquet")
    others = pa.array([[f"k{place % 3}"] for place in range(len(table))])
    changed = table.set_column(table.column_names.index("keywords"), "keywords", others)
    pq.write_table(changed, tmp_path / "items.parquet")
    sources = Sources(tmp_path / "items.parquet", id_column="item_id")
    shutil.copytree(content, tmp_path / "before")
    try:
        build(store, content, fitted=training_items(store), sources=sources, options=OPTIONS)
        with pytest.raises(UserError, match=r"had other names in common .* remove the file, and"):
            open_finished(workdir, QUIET)
        del kept["covisitation"]["names_sha256"]  # as earlier versions wrote it
        (workdir / CALIBRATION).write_text(json.dumps(kept))
        assert open_finished(workdir, QUIET).corrections.digest != before
    finally:
        shutil.rmtree(content)
        shutil.copytree(tmp_path / "before", content)
    assert open_finished(workdir, QUIET).corrections.digest == before
