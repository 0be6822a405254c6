"""Events that a run holds out and the run it begins from was trained on, by hand."""

import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from sample import interactions

from bert4rec_jax.config import Config
from bert4rec_jax.data.split import global_time, in_training, leave_one_out
from bert4rec_jax.data.store import SequenceStore, write_store
from bert4rec_jax.errors import UserError
from bert4rec_jax.experiment.earlier import EarlierRun
from bert4rec_jax.experiment.seen_before import WHY, SeenBefore, _occurrences, seen_before

EARLY = [("u", "a", 1), ("u", "b", 2), ("u", "c", 3), ("u", "d", 4)]
EARLY += [("v", "c", 1), ("v", "a", 2), ("v", "d", 5)]
LATE = [("u", "e", 6), ("u", "f", 7), ("w", "a", 5), ("w", "b", 6), ("w", "c", 7)]


@pytest.fixture
def make(tmp_path):
    """`make(rows)`: a store of the rows."""

    def made(rows, *, timed=True):
        folder = tmp_path / f"store_{len(list(tmp_path.iterdir()))}"
        log = replace(interactions(rows), timed=timed).in_time_order()
        write_store(log, folder, titles={}, source={})
        return SequenceStore.open(folder)

    return made


def events(store, rows):
    """Rows of a store as users and items."""
    users = np.searchsorted(store.offsets, rows, side="right") - 1
    ids = store.user_ids()
    return {(ids[u], store.catalog.item_id(store.tokens[r])) for u, r in zip(users, rows)}


def last_times(store, split):
    """The times of the last events of training, before selection and of the refit."""
    stops = split.train_stop, split.refit_stop
    return tuple(int(store.timestamps[in_training(store, stop)].max()) for stop in stops)


def test_a_longer_log_holds_out_nothing_that_the_same_split_trained_on(make):
    """v has no new event, and its last two were held out before as well."""
    earlier, store = make(EARLY), make(EARLY + LATE)
    found = seen_before(store, leave_one_out(store), earlier, leave_one_out(earlier), None)
    assert len(found.selected) == len(found.tested) == 0


def test_a_split_by_time_has_seen_last_events(make):
    """Trained up to time 4 (and 3 before selection): v's event a at 2, which leave-one-out asks."""
    earlier, store = make(EARLY), make(EARLY + LATE)
    by_time = global_time(earlier, quantile=0.9)
    assert last_times(earlier, by_time) == (3, 4)
    split = leave_one_out(store)
    found = seen_before(store, split, earlier, by_time, None)
    assert events(store, found.selected) == events(store, found.tested) == {("v", "a")}
    left = found.left_out(split)
    assert len(left.validation) == len(split.validation) - 1
    assert left.validation.dropped == {WHY: 1}
    assert left.test["test"] is split.test["test"]


def test_refitted_models_begin_from_refitted_ones(make):
    """Both split by time: at 4 (3 before selection) and, after more events, at 3 (1)."""
    earlier, store = make(EARLY), make(EARLY + LATE)
    then, now = global_time(earlier, quantile=0.9), global_time(store, quantile=0.37)
    assert last_times(store, now) == (1, 3)
    found = seen_before(store, now, earlier, then, None)
    up_to_3 = {("u", "b"), ("u", "c"), ("v", "a")}
    assert events(store, found.selected) == up_to_3
    assert events(store, found.tested) == {("u", "d")}  # up to 3, its own refit trains on them too
    assert WHY in found.left_out(now).test["test_first"].dropped


def test_what_the_earlier_run_had_seen_before_counts_too(make):
    earlier, store = make(EARLY), make(EARLY + LATE)
    split = leave_one_out(earlier)
    before = SeenBefore(*(np.flatnonzero(earlier.timestamps == 5) for _ in range(2)))
    assert events(earlier, before.tested) == {("v", "d")}
    found = seen_before(store, leave_one_out(store), earlier, split, before)
    assert events(store, found.tested) == {("v", "d")}
    assert SeenBefore.from_json(found.to_json()).tested.tolist() == found.tested.tolist()


def test_the_same_item_at_another_time_has_been_seen(make):
    """A log may keep the last rating of a movie only, or have its times in another zone."""
    earlier = make([("u", x, t) for t, x in enumerate("abcde")])
    again = make([("u", x, t) for t, x in enumerate("acdefb")])
    shifted = make([("u", x, t + 3600) for t, x in enumerate("abcdefg")][:4])
    trained = leave_one_out(earlier)  # on a, b and c
    for store, seen in ((again, {("u", "b")}), (shifted, {("u", "c")})):
        found = seen_before(store, leave_one_out(store), earlier, trained, None)
        assert events(store, found.tested) == seen


def test_the_same_item_once_more_is_another_event(make):
    """Told by times, or without them by how often the user had the item before."""
    rows = [("u", "a", 1), ("u", "b", 2), ("u", "c", 3), ("u", "b", 8), ("u", "d", 9)]
    rows += [("u", "e", 10), ("u", "f", 11)]
    for timed in (True, False):
        for then, now, seen in (
            (rows[:4], rows[:5], set()),  # trained on a and b at 2
            (rows[:5], rows[:4], {("u", "c")}),  # on c as well, but not on b at 8
            (rows[:6], rows[:4], {("u", "c"), ("u", "b")}),  # on all four
        ):
            earlier, store = make(then), make(now, timed=timed)
            trained = leave_one_out(earlier, repeats=True)
            split = leave_one_out(store, repeats=True)
            found = seen_before(store, split, earlier, trained, None, repeats=True)
            assert events(store, found.tested) == seen


def test_occurrences_are_counted_in_each_history(make):
    store = make([("u", x, t) for t, x in enumerate("abaca")] + [("v", "a", 1)])
    assert _occurrences(store).tolist() == [0, 0, 1, 0, 2, 0]


def test_a_run_that_lost_what_it_had_found_says_so(make, tmp_path):
    record = tmp_path / "run" / "checkpoints" / "1" / "record"
    record.mkdir(parents=True)
    (record / "metadata").write_text('{"config": {}}')  # training has begun
    config = Config(init_from="[a]", workdir=str(tmp_path / "run"))
    store, output = make(EARLY), io.StringIO()
    earlier = EarlierRun(config, pytest.fail, Console(file=output, width=1000))
    assert earlier.seen_before(store, leave_one_out(store)) is None
    assert "run/seen_before.json is missing: no case is left out, also where [a]" in (
        output.getvalue()
    )
    (tmp_path / "run" / "seen_before.json").write_text('{"selected": [')
    with pytest.raises(UserError, match=r"cannot read .*seen_before\.json .*restore the file from"):
        earlier.seen_before(store, leave_one_out(store))
