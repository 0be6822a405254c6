"""docs/extending.md: its code runs in order, and what it says of the results is so."""

import json
import re
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import bert4rec_jax
from bert4rec_jax import cli
from bert4rec_jax.config import Config, DataConfig
from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation.baselines import Popular
from bert4rec_jax.evaluation.rank_file import RankFile
from bert4rec_jax.experiment import protocol

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"
QUIET = Console(quiet=True)
pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="docs/ lies in the repository only")


@pytest.fixture(scope="module")
def folder(store, tmp_path_factory):
    """Where all of the page has been run, each block for itself."""
    made = tmp_path_factory.mktemp("extending")
    shutil.copytree(store.path, made / "data" / "mine")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        patch.setattr("bert4rec_jax.entry.tune_memory", lambda: None)
        for language, text in re.findall(
            r"^```(python|bash)\n(.*?)^```",
            PAGE.read_text(encoding="utf-8"),
            re.DOTALL | re.MULTILINE,
        ):
            if language == "python":
                exec(compile(text, PAGE.name, "exec"), {"__name__": "page"})
            else:
                patch.setattr(sys, "argv", shlex.split(text))
                cli.main()
    return made


def test_an_own_baseline_is_tuned_and_tested_as_all_are(folder):
    found = json.loads((folder / "runs/extended/metrics.json").read_text())
    assert found["test"].keys() == {"BERT4Rec", "together"}
    assert found["validation"]["together"]["trials"] == 3
    assert found["validation"]["together"]["settings"].keys() == {"power"}
    assert found["test"]["together"]["ndcg@10"] > 0.1
    ranks = RankFile.read(folder / "runs/extended/ranks.npz").sets["test"].ranks
    hits = (ranks["together"] <= 10).mean()
    assert found["test"]["together"]["hr@10"] == pytest.approx(hits, abs=1e-6)


def test_a_finished_run_takes_it_as_well(folder, monkeypatch):
    monkeypatch.chdir(folder)

    def popular(store, stop):
        yield Popular.fit(store, stop)

    found = bert4rec_jax.evaluate("runs/extended", baselines={"as popular": popular}, console=QUIET)
    assert found["test"].keys() == {"BERT4Rec", "as popular"}
    ranks = RankFile.read(folder / "runs/extended/ranks.npz").sets["test"].ranks
    assert list(ranks) == ["BERT4Rec", "as popular", "together"]


def test_the_ranks_of_a_model_of_another_library_are_about_the_same_cases(folder):
    files = [folder / name for name in ("runs/extended/ranks.npz", "factors.npz")]
    run, own = (RankFile.read(path).sets["test"] for path in files)
    assert run.sha256 == own.sha256 and len(own) == len(run) > 50
    assert (1 / own.ranks["factors"]).mean() > 2 * (1 / np.arange(1, 41)).mean()  # by chance


@pytest.mark.parametrize("name", ["popular", "content-knn", "BERT4Rec", "BERT4Rec alone"])
def test_names_that_are_there_are_refused_before_any_work(name):
    for start in (lambda own: protocol.run(Config(), baselines=own),
                  lambda own: protocol.evaluate("nowhere", baselines=own)):  # fmt: skip
        with pytest.raises(UserError, match=f"baseline '{name}' is there already"):
            start({name: None})
    with pytest.raises(UserError, match="a model is named 'users'"):
        protocol.run(Config(), baselines={"users": None})


@dataclass(slots=True)
class WithSettings:
    settings: object

    name = "own"
    refit = scores = None


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (
            {"mine": Popular},
            "baseline 'mine' yields nothing; expected a function of store an",
        ),
        ({"mine": lambda store, stop: iter([])}, "baseline 'mine' yields nothing"),
        ({"mine": lambda store, stop: None}, "baseline 'mine' yields nothing"),
        ({"mine": lambda store, stop: [object()]}, "'mine' yields one without settings"),
        ({"mine": lambda store, stop: WithSettings({})}, "baseline 'mine' yields nothing"),
        (
            {"mine": lambda store, stop: [WithSettings({"of": {1}})]},
            r"baseline 'own' has settings \{'of': \{1\}\}, which metrics.json cannot hold",
        ),
        ({"mine": lambda store, stop: [WithSettings(None)]}, "'own' has settings None, which"),
        ({"mine": lambda store, stop: [WithSettings]}, "'own' has settings <member 'settings'"),
        ({1: lambda store, stop: [WithSettings({})]}, "the name 1 of a baseline is of type int"),
        ([Popular], "baselines is a list; expected a dict"),
    ],
)
def test_what_is_no_grid_is_refused_before_training(store, tmp_path, own, message):
    config = Config(data=DataConfig(path=str(store.path)), workdir=str(tmp_path / "run"))
    with pytest.raises(UserError, match=message):
        protocol.run(config, baselines=own, console=QUIET)
    assert not (tmp_path / "run").exists()


def test_places_that_the_page_names_are_there():
    text = PAGE.read_text(encoding="utf-8")
    package = Path(bert4rec_jax.__file__).parent
    named = {*re.findall(r"`(?:bert4rec_jax/)?((?:\w+/)?\w+\.py)`", text)}
    missing = {name for name in named if not (package / name).is_file()}
    assert len(named) > 8 and missing == {"models/NAME.py", "train.py"}
