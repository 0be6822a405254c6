"""Masking: counts, law of large numbers, and that packing and topology change nothing."""

import chex
import jax
import numpy as np
import pytest

from bert4rec_jax.data.batch import Batch, Spans, gather
from bert4rec_jax.data.catalog import MASK
from bert4rec_jax.training.masking import mask_items, num_slots

L = 10


def batch_of(rows, *, thumbs=None, max_length=L, examples=None):
    """A batch from rows, each a list of histories (lists of tokens)."""
    flat = np.array([t for row in rows for history in row for t in history], np.int32)
    thumb_values = np.zeros(len(flat), np.int8) if thumbs is None else np.asarray(thumbs, np.int8)
    spans, start, number = [], 0, 0
    for r, row in enumerate(rows):
        column = 0
        for s, history in enumerate(row):
            example = number if examples is None else examples[number]
            spans.append((start, len(history), r, column, s + 1, example))
            start += len(history)
            column += len(history)
            number += 1
    return gather(
        Spans(*np.array(spans, np.int64).T),
        flat,
        lambda source: thumb_values[source],
        np.zeros(len(flat), np.int64),
        num_rows=len(rows),
        max_length=max_length,
    )


_STATIC = ("rate", "last_only", "thumb_weights", "loss_weights", "next_item", "slots")
_mask = jax.jit(mask_items, static_argnames=_STATIC)


def mask(
    batch, key=0, *, rate=0.3, last_only=0.0, weights=(1,) * 4, loss=(1,) * 4, next_item=0.0,
    segments=1,
):  # fmt: skip
    width = batch.tokens.shape[1]
    slots = num_slots(rate=rate, next_item=next_item, max_length=width, max_segments=segments)
    settings = {
        "rate": rate,
        "last_only": last_only,
        "thumb_weights": weights,
        "loss_weights": loss,
    }
    settings |= {"next_item": next_item, "slots": slots}
    return _mask(jax.random.key(key), batch, **settings)


def masked_items(masked):
    """The masked (row, label) pairs."""
    live = np.asarray(masked.weights) > 0
    return {(int(r), int(masked.labels[r, s])) for r, s in zip(*np.nonzero(live))}


def test_shapes():
    batch = batch_of([[[5, 6, 7]], [[8, 9]]])
    masked = mask(batch)
    chex.assert_shape(masked.tokens, (2, L))
    chex.assert_shape([masked.slots, masked.labels, masked.weights], (2, 3))


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.9])
def test_the_number_of_masked_items_is_the_rate_within_bounds(rate):
    lengths = range(2, L + 1)
    masked = mask(batch_of([[list(range(10, 10 + n))] for n in lengths]), rate=rate)
    expected = [int(np.clip(np.round(np.float32(rate) * n), 1, n - 1)) for n in lengths]
    assert masked.weights.sum(1).tolist() == expected
    assert (np.asarray(masked.tokens) == MASK).sum(1).tolist() == expected


def test_labels_are_what_stood_at_the_masked_positions_and_nothing_else_changes():
    batch = batch_of([[[5, 6, 7, 8, 9]], [[3, 4]]])
    masked = mask(batch, rate=0.5)
    tokens, slots = np.asarray(masked.tokens), np.asarray(masked.slots)
    for r in range(2):
        live = np.asarray(masked.weights)[r] > 0
        assert (tokens[r, slots[r, live]] == MASK).all()
        assert (batch.tokens[r, slots[r, live]] == np.asarray(masked.labels)[r, live]).all()
        others = np.setdiff1d(np.arange(L), slots[r, live])
        assert (tokens[r, others] == batch.tokens[r, others]).all()


def test_padding_is_never_masked_and_empty_rows_have_no_slots():
    batch = batch_of([[[5, 6]], []])
    masked = mask(batch, rate=0.9)
    assert (np.asarray(masked.tokens)[0, 2:] == 0).all()
    assert np.asarray(masked.weights)[1].sum() == 0
    assert (np.asarray(masked.tokens)[1] == 0).all()


def test_last_only_masks_the_newest_item_of_every_history():
    batch = batch_of([[[5, 6, 7], [8, 9]], [[3, 4]]])
    masked = mask(batch, last_only=1.0, segments=2)
    assert masked_items(masked) == {(0, 7), (0, 9), (1, 4)}


def test_last_only_hits_its_share_of_histories():
    batch = batch_of([[[5, 6, 7, 8, 9, 10, 11, 12, 13, 14]]] * 2000)
    counts = np.asarray(mask(batch, rate=0.5, last_only=0.25).weights).sum(1)
    assert set(counts.tolist()) == {1, 5}
    assert abs((counts == 1).mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 2000)


@pytest.mark.parametrize("key", range(5))
@pytest.mark.parametrize("next_item", [0.0, 0.5, 1.0])
def test_packed_and_unpacked_ask_for_the_same_items(key, next_item):
    histories = [[10, 11, 12, 13], [20, 21], [30, 31, 32], [40, 41, 42, 43, 44]]
    alone = batch_of([[h] for h in histories])
    packed = batch_of([histories[:3], histories[3:]])
    settings = {"rate": 0.4, "last_only": 0.3, "next_item": next_item}
    expected = {label for _, label in masked_items(mask(alone, key, **settings))}
    found = {label for _, label in masked_items(mask(packed, key, segments=3, **settings))}
    assert found == expected


def test_the_order_of_rows_changes_nothing_but_the_example_number_does():
    histories = [[10, 11, 12, 13, 14, 15], [20, 21, 22, 23, 24, 25]]
    forward = masked_items(mask(batch_of([[h] for h in histories])))
    backward = masked_items(mask(batch_of([[h] for h in histories[::-1]], examples=[1, 0])))
    assert {label for _, label in forward} == {label for _, label in backward}
    many = masked_items(mask(batch_of([[histories[0]]] * 20)))
    assert len({frozenset(label for r, label in many if r == row) for row in range(20)}) > 5


def test_uniform_weights_mask_every_position_equally_often():
    n, rows = 8, 4000
    batch = batch_of([[list(range(10, 10 + n))]] * rows)
    masked = mask(batch, rate=0.25)
    share = (np.asarray(masked.tokens)[:, :n] == MASK).mean(0)
    assert np.abs(share - 2 / n).max() < 4.5 * np.sqrt(2 / n * (1 - 2 / n) / rows)


def test_the_first_draw_is_proportional_to_the_weights():
    # One masked item of four; weights none 1, down 2, up 3, two up 4.
    rows = 8000
    batch = batch_of([[[10, 11, 12, 13]]] * rows, thumbs=[0, 1, 2, 3] * rows)
    masked = mask(batch, rate=0.25, weights=(1, 2, 3, 4))
    share = (np.asarray(masked.tokens)[:, :4] == MASK).mean(0)
    expected = np.array([1, 2, 3, 4]) / 10
    assert np.abs(share - expected).max() < 4.5 * np.sqrt(0.25 / rows)


def test_weights_leave_the_number_of_masked_items_as_it_is():
    batch = batch_of([[list(range(10, 20))]] * 50, thumbs=[0, 1, 2, 3, 3, 2, 1, 0, 1, 2] * 50)
    weighted = mask(batch, rate=0.4, weights=(1, 1, 4, 16))
    assert (np.asarray(weighted.weights).sum(1) == 4).all()


@pytest.mark.parametrize(("rate", "segments"), [(0.1, 1), (0.2, 4), (0.5, 3), (0.9, 5), (0.45, 2)])
def test_slots_hold_every_masked_item_of_any_packing(rate, segments):
    generator = np.random.default_rng(0)
    rows = []
    for _ in range(200):
        cuts = generator.multinomial(L - 2 * segments, np.ones(segments) / segments) + 2
        rows.append([list(range(10, 10 + n)) for n in cuts])
    masked = mask(batch_of(rows), rate=rate, segments=segments)
    expected = [
        sum(int(np.clip(np.round(np.float32(rate) * len(h)), 1, len(h) - 1)) for h in row)
        for row in rows
    ]
    assert np.asarray(masked.weights).sum(1).tolist() == expected
    assert (np.asarray(masked.tokens) == MASK).sum(1).tolist() == expected


@pytest.mark.parametrize(
    ("rate", "length"), [(0.3, 95), (0.15, 190), (0.35, 90), (0.7, 45), (0.2, 12)]
)
def test_a_row_of_one_history_has_a_slot_for_every_masked_item(rate, length):
    """Where rate * length ends in a half, devices may round up and Python down."""
    slots = num_slots(rate=rate, next_item=0, max_length=length, max_segments=1)
    batch = Batch(
        tokens=np.full((3, length), 7, np.int32),
        thumbs=np.zeros((3, length), np.int8),
        positions=np.tile(np.arange(length, dtype=np.int32), (3, 1)),
        segments=np.ones((3, length), np.int32),
        examples=np.repeat(np.arange(3, dtype=np.uint32)[:, None], length, axis=1),
        days=np.zeros((3, length), np.float32),
        since=np.zeros((3, length), np.int32),
    )
    masked = mask_items(
        jax.random.key(0), batch, rate=rate, last_only=0.0, thumb_weights=(1, 1, 1, 1),
        loss_weights=(1, 1, 1, 1), next_item=0.0, slots=slots,
    )  # fmt: skip
    hidden = (np.asarray(masked.tokens) == MASK).sum(1)
    assert (np.asarray(masked.weights) > 0).sum(1).tolist() == hidden.tolist()
    assert slots - 1 <= hidden.min() <= hidden.max() <= slots


def test_no_thumb_is_seen_where_an_item_is_asked_for():
    batch = batch_of([[[5, 6, 7, 8]]], thumbs=[1, 2, 3, 2])
    masked = mask(batch, rate=0.5)
    hidden = np.asarray(masked.tokens)[0] == MASK
    assert hidden.sum() == 2
    np.testing.assert_array_equal(masked.thumbs[0], np.where(hidden, 0, batch.thumbs[0]))


def test_loss_weights_follow_the_thumb_of_the_answer():
    batch = batch_of([[[5, 6, 7, 8]]], thumbs=[0, 1, 2, 3])
    of_item = {5: 1.0, 6: 0.0, 7: 2.0, 8: 4.0}
    for next_item in (0.0, 1.0):
        masked = mask(batch, rate=0.9, loss=(1, 0, 2, 4), next_item=next_item)
        labels, weights = np.asarray(masked.labels)[0], np.asarray(masked.weights)[0]
        assert [of_item[label] for label in labels[:3]] == weights[:3].tolist()


def test_next_items_by_hand():
    batch = batch_of([[[5, 6, 7], [8, 9]], [[3, 4]]])
    asked = mask(batch, next_item=1.0, segments=2)
    np.testing.assert_array_equal(asked.tokens, batch.tokens)
    np.testing.assert_array_equal(asked.causal, batch.segments > 0)
    live = np.asarray(asked.weights) > 0
    assert np.asarray(asked.slots)[live].tolist() == [0, 1, 3, 0]
    assert np.asarray(asked.labels)[live].tolist() == [6, 7, 9, 4]


def test_mixed_histories_are_wholly_of_one_kind_and_half_of_each():
    histories = [[10, 11, 12, 13], [20, 21, 22, 23]]
    batch = batch_of([histories] * 1000)
    asked = mask(batch, rate=0.25, next_item=0.5, segments=2)
    causal, tokens = np.asarray(asked.causal), np.asarray(asked.tokens)
    for columns in (slice(0, 4), slice(4, 8)):
        kind = causal[:, columns]
        assert (kind == kind[:, :1]).all()
        masked = (tokens[:, columns] == MASK).sum(1)
        assert masked.tolist() == np.where(kind[:, 0], 0, 1).tolist()
    assert abs(causal[:, [0, 4]].mean() - 0.5) < 4 * np.sqrt(0.25 / 2000)
    expected = np.where(causal[:, [0, 4]], 3, 1).sum(1)
    np.testing.assert_array_equal(asked.weights.sum(1), expected)


def test_of_mixed_histories_the_same_share_of_masked_ones_asks_for_the_last_alone():
    """Which histories are masked says nothing about which of them ask for the last item alone."""
    batch = batch_of([[[10, 11, 12, 13, 14]]] * 4000)
    asked = mask(batch, rate=0.4, last_only=0.3, next_item=0.5)
    masked = ~np.asarray(asked.causal)[:, 0]
    alone = (np.asarray(asked.tokens) == MASK)[masked].sum(1) == 1
    assert abs(alone.mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / masked.sum())


def test_the_batch_is_a_tree_of_its_arrays():
    batch = batch_of([[[5, 6]]])
    assert batch.users is None, "nobody asked for it"
    assert len(jax.tree.leaves(batch)) == len(Batch._fields) - 1
