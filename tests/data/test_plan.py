"""The plan: every history once an epoch, rows that fit, and the step as the only position."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from bert4rec_jax.data.batch import gather, inference_rows
from bert4rec_jax.data.catalog import MASK
from bert4rec_jax.data.pipeline import StepToBatch, batches
from bert4rec_jax.data.plan import Plan, fill_rows
from bert4rec_jax.errors import UserError


def plan_of(lengths, **changes):
    stops = np.cumsum(lengths)
    settings = {
        "max_length": 6, "batch_size": 4, "window": "recent", "pack": False, "max_segments": 3,
        "seed": 0,
    }  # fmt: skip
    return Plan(starts=stops - lengths, stops=stops, **{**settings, **changes})


LENGTHS = np.array([2, 3, 9, 1, 5, 6, 4, 14, 2, 0])


def rows_of(lengths, **limits):
    order, first = fill_rows(np.array(lengths), **limits)
    return sorted(order[a:b].tolist() for a, b in pairwise(first))


def test_rows_are_filled_by_hand():
    assert rows_of([3, 2, 4, 1], capacity=5, most=9) == [[0, 1], [2, 3]]
    assert rows_of([1, 1, 1, 1, 1], capacity=5, most=2) == [[0, 1], [2, 3], [4]]
    assert rows_of([5, 5], capacity=5, most=2) == [[0], [1]]
    assert rows_of([2, 3, 3, 2, 5], capacity=6, most=9) == [[0, 3], [1, 2], [4]]
    assert rows_of([7, 5, 3], capacity=10, most=9) == [[0, 2], [1]]  # where it fits best


@pytest.mark.parametrize(("most", "full"), [(2, 0.6), (8, 0.95), (100, 0.99)])
def test_rows_hold_every_piece_once_and_are_nearly_full(most, full):
    lengths = np.minimum(np.random.default_rng(0).geometric(0.03, 3000), 100)
    rows = rows_of(lengths, capacity=100, most=most)
    assert sorted(piece for row in rows for piece in row) == list(range(3000))
    assert max(lengths[row].sum() for row in rows) <= 100 and max(map(len, rows)) <= most
    assert lengths.sum() > full * 100 * len(rows)


@pytest.mark.parametrize("pack", [False, True])
def test_an_epoch_visits_every_history_once(pack):
    plan = plan_of(LENGTHS, pack=pack)
    spans = plan.epoch(3).spans
    stops = np.cumsum(LENGTHS)
    expected = sorted(
        (max(stop - n, stop - 6), min(n, 6)) for n, stop in zip(LENGTHS, stops) if n >= 2
    )
    assert sorted(zip(spans.starts.tolist(), spans.lengths.tolist())) == expected


def test_tiles_cover_long_histories_and_leave_single_items_out():
    spans = plan_of(LENGTHS, window="tiles").epoch(0).spans
    of_14 = sorted(x for x in zip(spans.starts.tolist(), spans.lengths.tolist()) if x[0] >= 30)
    assert of_14[:3] == [(30, 2), (32, 6), (38, 6)]
    of_9 = sorted(x for x in zip(spans.starts.tolist(), spans.lengths.tolist()) if 5 <= x[0] < 14)
    assert of_9 == [(5, 3), (8, 6)]


def test_random_prefixes_end_anywhere_and_differ_by_epoch():
    plan = plan_of(np.array([9]), window="random-prefix")
    seen = set()
    for epoch in range(200):
        spans = plan.epoch(epoch).spans
        stop = int(spans.starts[0] + spans.lengths[0])
        assert 2 <= stop <= 9 and spans.lengths[0] == min(stop, 6)
        seen.add(stop)
    assert seen == set(range(2, 10))


@pytest.mark.parametrize("window", ["recent", "tiles", "random-prefix"])
def test_packed_rows_fit_and_do_not_overlap(window):
    generator = np.random.default_rng(1)
    plan = plan_of(generator.integers(0, 12, 200), window=window, pack=True)
    spans = plan.epoch(0).spans
    used = np.zeros((spans.rows.max() + 1, 6), int)
    for row, column, length in zip(spans.rows, spans.columns, spans.lengths):
        used[row, column : column + length] += 1
    assert used.max() == 1
    assert np.bincount(spans.rows).max() <= 3
    assert (np.diff(spans.rows) >= 0).all()


def test_epochs_differ_and_repeat():
    plan = plan_of(np.full(50, 4))
    first, again, other = (plan.epoch(e).spans.examples for e in (0, 0, 1))
    assert (first == again).all() and not (first == other).all()
    for epoch in (0, 1):  # nor is an epoch of one seed a later one of another
        assert not (plan_of(np.full(50, 4), seed=1).epoch(epoch).spans.examples == first).all()
        later = plan_of(np.full(50, 4)).epoch(1 - epoch).spans.examples
        assert not (plan_of(np.full(50, 4), seed=1).epoch(epoch).spans.examples == later).all()


def test_packed_rows_are_trained_on_in_random_order():
    """Not full rows first: how many items the rows hold differs by epoch."""
    plan = plan_of(np.repeat([2, 3, 5, 6], 20), pack=True)
    first, other = (
        np.bincount(s.rows, s.lengths) for s in (plan.epoch(0).spans, plan.epoch(1).spans)
    )
    assert sorted(first) == sorted(other) and first.tolist() != other.tolist()


def test_steps_of_later_epochs_begin_at_their_first_row():
    plan = plan_of(np.full(8, 4))
    later = plan.epoch(1)
    for step in (2, 3):
        found = plan.step(later, step).examples
        assert found.tolist() == later.spans.examples[4 * (step - 2) :][:4].tolist()


def test_the_last_step_of_an_epoch_may_have_empty_rows():
    assert [plan_of(np.full(users, 4)).steps_per_epoch for users in (3, 8, 9)] == [1, 2, 3]


def test_hosts_share_the_rows_of_one_batch(store):
    plan = Plan(store.offsets[:-1], store.offsets[1:], 6, 8, "random-prefix", True, 3, seed=0)
    for step in (0, plan.steps_per_epoch, 2 * plan.steps_per_epoch - 1):
        whole = StepToBatch(plan, store, (6, 9), with_users=True)(step)
        parts = [
            StepToBatch(plan, store, (6, 9), host=h, hosts=4, with_users=True)(step)
            for h in range(4)
        ]
        for name, values in whole._asdict().items():
            joined = np.concatenate([getattr(part, name) for part in parts])
            np.testing.assert_array_equal(joined, values)


class Watched:
    """An array that remembers which of its rows were read."""

    def __init__(self, values):
        self.values, self.rows = values, []

    def __getitem__(self, rows):
        self.rows.extend(rows.tolist())
        return self.values[rows]


def test_each_host_reads_its_part_only(store):
    plan = Plan(store.offsets[:-1], store.offsets[1:], 6, 8, "recent", True, 3, seed=0)
    names = ("tokens", "ratings", "timestamps")

    def read(**part):
        watched = SimpleNamespace(**{name: Watched(getattr(store, name)) for name in names})
        for step in range(plan.steps_per_epoch):
            StepToBatch(plan, watched, (6, 9), **part)(step)
        rows = [getattr(watched, name).rows for name in names]
        assert rows[0] == rows[1] == rows[2]
        return rows[0]

    whole, parts = read(), [read(host=host, hosts=4) for host in range(4)]
    assert len(set(whole)) == len(whole)
    assert sorted(row for part in parts for row in part) == sorted(whole)
    assert all(0 < len(part) < len(whole) / 2 for part in parts)


def test_batches_start_anywhere(store):
    plan = Plan(store.offsets[:-1], store.offsets[1:], 6, 8, "recent", False, 1, seed=0)
    to_batch = StepToBatch(plan, store, (6, 9))
    singly = np.stack([np.arange(20), np.ones(20, np.int64)], axis=1)
    from_start = list(batches(to_batch, singly))
    resumed = list(batches(to_batch, singly[13:]))
    assert len(from_start) == 20 and len(resumed) == 7
    for batch, same in zip(from_start[13:], resumed):
        for values, other in zip(batch, same):
            np.testing.assert_array_equal(values, other)


def test_the_batches_of_a_stride_are_stacked(store):
    plan = Plan(store.offsets[:-1], store.offsets[1:], 6, 8, "recent", False, 1, seed=0)
    to_batch = StepToBatch(plan, store, (6, 9))
    one, three = batches(to_batch, np.array([[4, 1], [5, 3]]))
    np.testing.assert_array_equal(one.tokens, to_batch(4).tokens)
    assert three.users is None and three.days.shape == (3, 8, 6)
    for number, tokens in enumerate(three.tokens):
        np.testing.assert_array_equal(tokens, to_batch(5 + number).tokens)


def test_a_batch_by_hand():
    plan = plan_of(np.array([2, 3]), pack=True, batch_size=2)
    tokens = np.array([7, 8, 4, 5, 6], np.int32)
    epoch = plan.epoch(0)
    batch = gather(
        epoch.rows(0, 2), tokens, lambda r: tokens[r] % 4,
        tokens.astype(np.int64) * 86_400, num_rows=2, max_length=6,
    )  # fmt: skip
    first = [7, 8, 4, 5, 6] if epoch.spans.examples[0] == 0 else [4, 5, 6, 7, 8]
    cut = 2 if first[0] == 7 else 3
    assert batch.tokens.tolist() == [[*first, 0], [0] * 6]
    assert batch.segments[0].tolist() == [1] * cut + [2] * (5 - cut) + [0]
    assert batch.positions[0].tolist() == [*range(6 - cut, 6), *range(1 + cut, 6), 0]
    assert batch.thumbs[0].tolist() == [*(t % 4 for t in first), 0]
    assert batch.thumbs.dtype == np.int8
    assert batch.days[0].tolist() == [*first, 0]
    assert batch.since[0].tolist() == [
        0 if place in (0, cut) else 86_400 for place in range(5)
    ] + [0]  # fmt: skip


def test_serving_reads_the_history_then_mask():
    tokens = np.array([7, 8, 9, 4, 5], np.int32)
    source, lengths = np.array([[0, 1, 2, 0], [3, 4, 0, 0], [0, 0, 0, 0]]), np.array([3, 2, 0])
    thumbs = np.array([1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3], np.int8)
    batch, slots = inference_rows(source, lengths, tokens, lambda rows: thumbs[rows], max_length=5)
    assert batch.tokens.tolist() == [[7, 8, 9, MASK], [4, 5, MASK, 0], [MASK, 0, 0, 0]]
    assert batch.positions.tolist() == [[1, 2, 3, 4], [2, 3, 4, 0], [4, 0, 0, 0]]
    assert batch.segments.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0], [1, 0, 0, 0]]
    assert batch.thumbs.tolist() == [[1, 2, 3, 0], [1, 2, 0, 0], [0, 0, 0, 0]]
    assert slots.tolist() == [[3], [2], [0]]
    timed, _ = inference_rows(
        source, lengths, tokens, lambda rows: thumbs[rows], max_length=5,
        timestamps=np.arange(5) * 86_400, moments=np.array([7, 8, 9]) * 86_400,
    )  # fmt: skip
    assert timed.days.tolist() == [[0, 1, 2, 7], [3, 4, 8, 0], [9, 0, 0, 0]]
    in_days = timed.since / 86_400
    assert in_days.tolist() == [[0, 1, 1, 5], [0, 1, 4, 0], [0, 0, 0, 0]]
    assert timed.since.dtype == np.int32


def test_a_gap_of_a_lifetime_does_not_turn_negative():
    far = np.array([0, 2**32])
    batch, _ = inference_rows(
        np.array([[0, 1, 0]]), np.array([2]), np.array([7, 8], np.int32), lambda rows: rows,
        max_length=3, timestamps=far, moments=far[1:],
    )  # fmt: skip
    assert batch.since.tolist() == [[0, 2**31 - 1, 0]]


def test_nothing_to_learn_from_is_an_error():
    with pytest.raises(UserError, match="no training history has 2 interactions"):
        plan_of(np.array([1, 1, 0]))
