"""Repeats in a row: the same as a transcription that has the whole log in memory."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sample import interactions

from bert4rec_jax.data import parquet
from bert4rec_jax.data.prepare import is_prepared_from, prepare
from bert4rec_jax.errors import UserError

ALL = {"min_user_interactions": 1, "min_item_interactions": 1}


def test_by_hand():
    log = interactions(
        [
            ("u", "x", 1, 3.0),
            ("u", "x", 2, 4.0),  # once more, with another rating
            ("u", "y", 3, 1.0),
            ("u", "x", 9, 2.0),  # comes back
            ("v", "x", 1, 5.0),  # another user
            ("v", "x", 7, 1.0),
            ("v", "x", 8, 1.0),
        ]
    )
    kept = log.without_repeats()
    assert kept.items.tolist() == log.items[[0, 2, 3, 4]].tolist()
    assert kept.timestamps.tolist() == [1, 3, 9, 1]
    assert kept.ratings.tolist() == [3.0, 1.0, 2.0, 5.0]


@pytest.mark.parametrize("rows", [0, 1])
def test_nothing_and_one_row(rows):
    log = interactions([("u", "x", 1)]).take(np.arange(rows))
    assert len(log.without_repeats()) == rows


def random_log(seed, users=12, items=4, count=400):
    """Few items, so that many follow themselves; users are spread over the whole log."""
    generator = np.random.default_rng(seed)
    return {
        "user_id": (generator.exponential(size=count) * users / 4).astype(int),
        "item_id": generator.integers(0, items, count),
        "timestamp": 1_700_000_000 + generator.integers(0, 150, count),
        "rating": generator.integers(1, 11, count) / 2,
    }


def transcription(log):
    """(user, item, time, rating) of what stays, user by user; equal times keep the log's order."""
    kept = []
    for user in dict.fromkeys(log["user_id"].tolist()):
        mine = np.flatnonzero(log["user_id"] == user)
        mine = mine[np.argsort(log["timestamp"][mine], kind="stable")]
        moments = [(log["item_id"][row], log["timestamp"][row]) for row in mine]
        mine = [row for n, row in enumerate(mine) if moments[n] not in moments[:n]]  # duplicates
        items = log["item_id"][mine]
        first = np.append(True, items[1:] != items[:-1])
        kept += [tuple(log[name][row].item() for name in log) for row in np.array(mine)[first]]
    return kept


def rows_of(store):
    """The same of a store."""
    users = np.repeat([int(user) for user in store.user_ids()], store.lengths)
    items = [int(store.catalog.item_id(token)) for token in store.tokens.tolist()]
    times, ratings = np.asarray(store.timestamps), np.asarray(store.ratings)
    return list(zip(users.tolist(), items, times.tolist(), ratings.tolist()))


@pytest.mark.parametrize("seed", range(4))
def test_random_logs_for_any_rows_in_memory(tmp_path, monkeypatch, seed):
    monkeypatch.setattr(parquet, "_BATCH_ROWS", 30)
    log = random_log(seed)
    pq.write_table(pa.table(log), tmp_path / "log.parquet", row_group_size=45)
    expected = transcription(log)
    fingerprints = set()
    for rows in (1, 7, 100, 1 << 22):
        options = {"collapse_repeats": True, "rows_in_memory": rows, **ALL}
        made = prepare(tmp_path / "log.parquet", tmp_path / "store", **options)
        assert rows_of(made.store) == expected
        fingerprints.add(made.store.fingerprint)
        report = made.report
        assert report.collapsed == report.read - report.duplicates - len(expected) > 50
        assert report.duplicates > 0
    assert len(fingerprints) == 1


def test_counts_are_filtered_after_repeats_are_collapsed(tmp_path):
    """Of u's five rows three stay, too few for a minimum of four."""
    log = pa.table({"user_id": list("uuuuuvvvvv"), "item_id": list("aabbaababa")})
    minima = {"min_user_interactions": 4, "min_item_interactions": 1}
    made = prepare(log, tmp_path / "store", collapse_repeats=True, **minima)
    assert made.store.user_ids() == ["v"]
    assert (made.report.collapsed, made.report.users_left_out) == (2, 1)
    assert prepare(log, tmp_path / "all", **minima).store.num_users == 2


def test_what_follows_itself_once_items_are_filtered_stays(tmp_path):
    log = pa.table({"user_id": list("uuu"), "item_id": list("aba")})
    minima = {"min_user_interactions": 1, "min_item_interactions": 2}
    made = prepare(log, tmp_path / "store", collapse_repeats=True, **minima)
    assert (made.store.num_interactions, made.report.collapsed) == (2, 0)


def test_the_log_may_be_lists_and_need_no_time(tmp_path):
    log = pa.table({"user_id": ["u", "v", "u"], "item_id": [["a", "a"], ["a"], ["a", "b", "b"]]})
    made = prepare(log, tmp_path / "store", collapse_repeats=True, **ALL)
    assert made.store.lengths.tolist() == [2, 1]
    assert made.report.collapsed == 3


def test_the_choice_is_kept_and_told_apart(tmp_path):
    """Also where it changed nothing."""
    for items in ("aab", "abc"):
        pq.write_table(
            pa.table({"user_id": list("uuu"), "item_id": list(items)}), tmp_path / "log.parquet"
        )
        for collapse in (False, True):
            made = prepare(
                tmp_path / "log.parquet", tmp_path / "out", collapse_repeats=collapse, **ALL
            )
            count = int(items == "aab") if collapse else None
            assert made.report.collapsed == count
            assert made.store.manifest["source"].get("collapsed") == count
            assert is_prepared_from(tmp_path / "out", tmp_path / "log.parquet", **ALL) != collapse


def test_a_store_of_some_events_is_not_that_of_the_log(tmp_path):
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp,event\nu,i,1,buy\nu,j,2,view\n")
    columns = {"event": "event", "events": ["buy"]}
    prepare(tmp_path / "log.csv", tmp_path / "out", columns=columns, **ALL)
    assert not is_prepared_from(tmp_path / "out", tmp_path / "log.csv", **ALL)


def test_the_option_is_yes_or_no(tmp_path):
    with pytest.raises(UserError, match="collapse_repeats is of type int; expected True or False"):
        prepare("movietweetings", tmp_path / "store", collapse_repeats=1)
