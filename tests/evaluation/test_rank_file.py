"""The rank file: what it says of its cases, what it refuses, and files of earlier versions."""

import re
from pathlib import Path

import numpy as np
import pytest

from bert4rec_jax.data.split import Cases, leave_one_out
from bert4rec_jax.data.store import write_arranged
from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation.rank_file import RankFile, cases_sha256

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "evaluation.md"
PUBLISHED = sorted((ROOT / "results").glob("*/*.npz"))


def ranked(letters, path, **settings):
    """What two models answered about the last letters of abc, abd and acb, written and read."""
    cases = Cases(np.arange(3), letters.store.offsets[1:4] - 1, {})
    ranks = {"test": {"mine": np.array([1, 5, 2]), "a/path": np.array([3, 3, 3])}}
    RankFile.of(ranks, {"test": cases}, letters.store, **settings).write(path)
    return RankFile.read(path)


def test_it_says_who_was_asked_for_what(five, tmp_path):
    found = ranked(five, tmp_path / "ranks.npz", parameters="p", corrections="c")
    assert (found.parameters, found.corrections) == ("p", "c")
    with np.load(tmp_path / "ranks.npz") as file:
        arrays = dict(file)
    assert arrays["test/user_ids"].tolist() == ["0", "1", "2"]
    assert arrays["test/item_ids"].tolist() == ["c", "d", "b"]
    assert arrays["test/targets"].tolist() == five.tokens("cdb").tolist()
    assert arrays["test/users"].tolist() == [0, 1, 2]
    assert arrays["test/rows"].tolist() == [2, 5, 8]
    assert len(str(arrays["test/cases_sha256"])) == 64
    assert {k: r.tolist() for k, r in found.sets["test"].ranks.items()} == {
        "mine": [1, 5, 2], "a/path": [3, 3, 3]
    }  # fmt: skip


def test_lists_of_ranks_and_text_as_path_will_do(five, tmp_path):
    cases = Cases(np.arange(3), five.store.offsets[1:4] - 1, {})
    path = str(tmp_path / "ranks.npz")
    RankFile.of({"test": {"mine": [1, 5, 2]}}, {"test": cases}, five.store).write(path)
    assert RankFile.read(path).sets["test"].ranks["mine"].tolist() == [1, 5, 2]


def test_the_hash_follows_all_that_a_rank_depends_on(five, write):
    def of(store, users=(0, 1), back=(1, 1), **settings):
        stops = store.offsets[1:][list(users)]
        return cases_sha256(Cases(np.array(users), stops - np.array(back), {}), store, **settings)

    store = five.store
    expected = of(store)
    assert of(store, within=five.tokens("edcba")) == expected  # the whole catalog, in any order
    for other in (
        of(store, users=(1, 0)),
        of(store, back=(1, 2)),
        of(store, users=(0, 2)),
        of(store, within=five.tokens("abcd")),
        of(store, repeats=True),
    ):
        assert other != expected
    histories = {
        "other tokens": ["abc", "abd", "bca", "bd", "ae"],
        "another history": ["bac", "abd", "acb", "bd", "ae"],
        "another catalog": ["abc", "abd", "acb", "bd", "a"],
    }
    hashes = {name: of(write(rows).store) for name, rows in histories.items()}
    assert [name for name in hashes if hashes[name] == expected] == ["other tokens"]


def test_equal_questions_to_other_stores_have_the_same_hash(five, tmp_path):
    """The last user first: rows, users and tokens are others."""
    other = write_arranged(
        five.store, tmp_path / "turned", rows=np.array([9, 10, 0, 1, 2]),
        offsets=np.array([0, 2, 5]), users=np.array([3, 0]), source={},
    )  # fmt: skip
    here = Cases(np.array([0]), np.array([2]), {})
    there = Cases(np.array([1]), np.array([4]), {})
    assert cases_sha256(here, five.store) == cases_sha256(there, other)


@pytest.mark.skipif(not PAGE.is_file(), reason="docs/ lies in the repository only")
def test_the_table_of_the_page(five, tmp_path, monkeypatch):
    (code,) = [
        text
        for text in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
        if "ranks.csv" in text
    ]
    (tmp_path / "runs" / "trial").mkdir(parents=True)
    cases = Cases(np.array([0, 3]), five.store.offsets[[1, 4]] - 1, {})
    ranks = {"test": {"BERT4Rec": np.array([3, 21])}}
    RankFile.of(ranks, {"test": cases}, five.store).write(tmp_path / "runs/trial/ranks.npz")
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert (tmp_path / "ranks.csv").read_text().splitlines() == [
        '"user_id","item_id","rank","ndcg@20"', '"0","c",3,0.5', '"3","d",21,0'
    ]  # fmt: skip


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_published_files_are_read(path):
    for found in RankFile.read(path).sets.values():
        assert len(found) == len(found.cases["users"]) > 50
        assert not {"users", "rows"} & found.ranks.keys()


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        (np.array([1.5, 1.5, 3]), r"test/mine holds float64 from 1\.5; expected whole ranks"),
        (np.array([0, 1, 2]), "test/mine holds int64 from 0; expected whole ranks from 1"),
        (np.array([1, 2]), r"test/users has shape \(3,\); expected \(2,\), a value per case"),
    ],
)
def test_what_is_no_rank_for_each_case_is_not_written(five, ranks, message):
    cases = Cases(np.arange(3), five.store.offsets[1:4] - 1, {})
    with pytest.raises(UserError, match=message):
        RankFile.of({"test": {"mine": ranks}}, {"test": cases}, five.store)


def test_names_of_models_that_are_taken(five, tmp_path):
    cases = leave_one_out(five.store).test["test"]
    with pytest.raises(UserError, match=r"a model is named 'rows', .* choose a name other than"):
        RankFile.of({"test": {"rows": np.ones(3)}}, {"test": cases}, five.store)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "holds no ranks; expected arrays named SET/MODEL"),
        ({"test/mine": np.ones(2, int)}, "holds mine of 'test'; expected .* users or user_ids"),
        (
            {"test/targets": np.ones(2, int), "test/mine": np.ones(2, int)},
            "holds targets, mine of 'test'; expected .* users or user_ids",
        ),
        ({"test/users": np.arange(2)}, "holds users of 'test'; expected the ranks of a model"),
        (
            {"test/users": np.arange(2), "test/mine": np.ones(3, int)},
            r"test/users has shape \(2,\); expected \(3,\), a value per case",
        ),
        (
            {"test/users": np.arange(2), "test/mine": np.array([0, 1])},
            "test/mine holds int64 from 0; expected whole ranks from 1",
        ),
        ({"test/users": np.arange(2), "test/mine": np.ones(2)}, "test/mine holds float64 from 1.0"),
        (
            {"test/users": np.arange(2), "test/mine": np.ones(2, int), "test/zones": ["a", "b"]},
            "test/zones holds <U1; expected whole ranks from 1",
        ),
        (
            {"test/mine": np.array([None])},
            "cannot read .*evaluate .* makes the file of a run again",
        ),
    ],
)
def test_other_files_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "ranks.npz", **arrays)
    with pytest.raises(UserError, match=message):
        RankFile.read(tmp_path / "ranks.npz")


def test_damaged_files_are_refused(five, tmp_path):
    path = tmp_path / "ranks.npz"
    ranked(five, path)
    whole = path.read_bytes()
    np.save(tmp_path / "array.npy", np.ones(3))
    for content in (b"", b"damaged", whole[:-30], (tmp_path / "array.npy").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"cannot read .*ranks\.npz|is no \.npz file"):
            RankFile.read(path)
    with pytest.raises(UserError, match=r"cannot read .*none\.npz"):
        RankFile.read(tmp_path / "none.npz")
