"""The ledger: every reading of a test split leaves a line and its ranks."""

import json

import numpy as np
import pytest

from bert4rec_jax.data.split import Cases, leave_one_out, train_counts
from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation.comparison import compare
from bert4rec_jax.evaluation.evaluator import Ranking
from bert4rec_jax.evaluation.ledger import LEDGER, append, fingerprint, record
from bert4rec_jax.evaluation.rank_file import RankFile
from bert4rec_jax.experiment import protocol


@pytest.fixture
def compared(store):
    split = leave_one_out(store)
    cases = split.test["test"]
    ranks = 1 + np.arange(len(cases)) % 20
    top = np.tile(np.arange(2, 12, dtype=np.int32), (len(cases), 1))
    models = {"first": lambda cases, among=None: Ranking(ranks, top)}
    comparison = compare(
        models, {"test": cases}, store, counts=train_counts(store, split.train_stop),
        resamples=100, sampled_lists={},
    )  # fmt: skip
    return comparison, cases, ranks


def test_each_reading_adds_a_line_and_keeps_its_ranks(tmp_path, compared, store):
    comparison, cases, ranks = compared
    found = RankFile.of({"test": {"first": ranks}}, {"test": cases}, store)
    for command in ("train", "evaluate"):
        record(tmp_path, comparison, {"test": cases}, found, about={"command": command})
    lines = [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
    assert [line["command"] for line in lines] == ["train", "evaluate"]
    found = lines[0]["sets"]["test"]
    ndcg = np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0).mean()
    assert found["ndcg@10"] == {"first": pytest.approx(ndcg, abs=1e-6)}
    assert found["cases"] == len(cases) and found["sha256"] == fingerprint(cases)
    arrays = np.load(tmp_path / "ranks.npz")
    assert arrays["test/first"].tolist() == ranks.tolist()
    assert arrays["test/users"].tolist() == cases.users.tolist()


def test_a_line_that_was_cut_off_takes_no_later_one_with_it(tmp_path, compared):
    _, cases, _ = compared
    for command in ("train", "evaluate"):
        append(tmp_path, {}, {"test": cases}, about={"command": command})
        if command == "train":
            path = tmp_path / LEDGER
            path.write_text(path.read_text()[:-5])
    first, last = path.read_text().splitlines()
    assert '"command": "train"' in first and json.loads(last)["command"] == "evaluate"


def test_ranks_of_other_models_stay_where_the_test_is_the_same(tmp_path, compared, store):
    comparison, cases, ranks = compared

    def models(**given):
        settings = {"parameters": "p", "corrections": "c", **given}
        cases_now = settings.pop("cases", cases)
        names = settings.pop("models")
        found = {"test": {name: ranks[: len(cases_now)] for name in names}}
        file = RankFile.of(found, {"test": cases_now}, store, **settings)
        record(tmp_path, comparison, {"test": cases}, file, about={})
        return list(RankFile.read(tmp_path / "ranks.npz").sets["test"].ranks)

    assert models(models=["model", "popular"]) == ["model", "popular"]
    assert models(models=["model", "bundle"]) == ["model", "bundle", "popular"]
    assert models(models=["model"], parameters="other") == ["model"]
    assert models(models=["popular"], parameters="other") == ["popular", "model"]
    assert models(models=["model"], parameters="other", corrections="d") == ["model"]
    assert models(models=["popular"], parameters="other", corrections="d", cases=cases[:5]) == [
        "popular"
    ]
    (tmp_path / "ranks.npz").write_bytes(b"damaged")
    assert models(models=["model"]) == ["model"]


def test_the_fingerprint_follows_users_and_rows():
    cases = Cases(np.array([0, 1]), np.array([3, 9]), {})
    same = Cases(np.array([0, 1], np.int32), np.array([3, 9]), {"short": 2})
    assert fingerprint(cases) == fingerprint(same)
    assert fingerprint(cases) != fingerprint(Cases(np.array([0, 1]), np.array([3, 8]), {}))
    assert fingerprint(cases) != fingerprint(Cases(np.array([1, 0]), np.array([3, 9]), {}))


@pytest.mark.parametrize("name", ["run", "ledger.jsonl"])
def test_a_run_that_may_not_be_written_to_is_refused_before_its_test(tmp_path, monkeypatch, name):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / LEDGER).touch()
    monkeypatch.setattr("os.access", lambda place, mode: place.name != name)
    with pytest.raises(UserError, match=rf"{name} may not be written to, .* copy the run"):
        protocol.evaluate(folder)
