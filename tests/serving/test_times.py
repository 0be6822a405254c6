"""Times of histories and requests: read from columns, and as the model was trained to."""

import datetime

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pytest
from conftest import L

from bert4rec_jax.data.batch import inference_rows
from bert4rec_jax.errors import UserError
from bert4rec_jax.models.history import moments
from bert4rec_jax.serving.times import UNKNOWN, column_of_times, is_time, moment_of, whole_seconds
from bert4rec_jax.serving.traced import model_inputs, timed


def test_times_are_read_as_in_training():
    generator = np.random.default_rng(0)
    lengths, width = generator.integers(0, L, 40), L
    seconds = np.sort(generator.integers(0, 2**32 - 1, (40, width)), axis=1)
    seconds[:, 3] = seconds[:, 2]
    asked = seconds[:, -1]
    columns = np.arange(width)
    tokens = np.where(columns < lengths[:, None], 7, 0).astype(np.int32)
    source = np.arange(40 * width).reshape(40, width)
    batch, _ = inference_rows(
        source, lengths, np.full(40 * width, 7, np.int32), lambda rows: np.zeros(rows.shape, int),
        max_length=L + 1, timestamps=seconds.reshape(-1), moments=asked,
    )  # fmt: skip
    history, _ = model_inputs(
        jnp.asarray(tokens), jnp.zeros(tokens.shape, jnp.int8), max_length=L + 1, causal=False
    )
    times = np.where(columns < lengths[:, None], seconds, 0).astype(np.uint32)
    found = timed(history, jnp.asarray(times), jnp.asarray(asked[:, None], jnp.uint32))
    np.testing.assert_array_equal(found.since[:, :width], batch.since)
    np.testing.assert_allclose(found.days[:, :width], batch.days, rtol=1.2e-7)


def test_a_request_before_the_last_event_has_no_gap():
    history, _ = model_inputs(
        jnp.array([[7, 8]]), jnp.zeros((1, 2), jnp.int8), max_length=4, causal=False
    )
    found = timed(history, jnp.array([[5, 9]], jnp.uint32), jnp.array([[3]], jnp.uint32))
    assert found.since.tolist() == [[0, 4, 0]]
    assert moments(found)[1].tolist() == [[0, 1, 0]]


def test_times_in_python_are_seconds_or_dates():
    """A date is its midnight in UTC, and parts of a second are left out, as in training."""
    given = [
        None,
        9,
        np.uint32(10),
        "1970-01-02",
        "1970-01-02T01:00:00.9+01:00",
        "1970-01-02 01:00:00.9 +0100",
        "1970-01-02 00:00:00 UTC",
        datetime.date(1970, 1, 2),
        datetime.datetime(1970, 1, 2, 0, 0, 0, 999_999),
        np.datetime64("1970-01-02"),
        np.datetime64("1970-01-02T00:00:00.999999999"),
        np.datetime64("NaT"),
    ]
    expected = [None, 9, 10, *[86_400] * 8, None]
    assert whole_seconds(given, "times") == expected
    assert [moment_of(time) for time in given[1:-1]] == expected[1:-1]


def test_a_time_of_pandas_may_be_missing():
    class Missing(datetime.datetime):
        """As `pandas.NaT`, which is a datetime that equals nothing."""

        def __ne__(self, other):
            return True

        __eq__ = None
        __hash__ = None

        def timestamp(self):
            raise ValueError("NaTType does not support timestamp")

    given = [datetime.datetime(1970, 1, 2), Missing(1, 1, 1)]
    assert whole_seconds(given, "times") == [86_400, None]


@pytest.mark.parametrize(
    "wrong",
    ["yesterday", 1.5, True, -1, 2**32, "2106-02-08", "1969-12-31", np.datetime64("1969-12-31")],
)
def test_wrong_times_in_python_are_named(wrong):
    with pytest.raises(UserError, match=r"^timestamps\[0\] holds .*; expected seconds since 1970 "):
        whole_seconds([wrong], "timestamps[0]")
    with pytest.raises(UserError, match=r"^the time of the request is "):
        moment_of(wrong)


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1.0, float("nan"), None, 5.9], pa.float32(), [1, UNKNOWN, UNKNOWN, 5]),
        ([0, None, 2**32 - 1], pa.int64(), [0, UNKNOWN, 2**32 - 1]),
        ([datetime.date(1970, 1, 2), None], pa.date32(), [86_400, UNKNOWN]),
        ([datetime.datetime(1970, 1, 1, 9), None], pa.timestamp("us"), [32_400, UNKNOWN]),
        ([0, 1_999], pa.timestamp("ms", "Asia/Tokyo"), [0, 1]),
        ([None, None], pa.null(), [UNKNOWN, UNKNOWN]),
    ],
)
def test_columns_of_times(values, kind, expected):
    column = pa.chunked_array([pa.array(values, kind)])
    found = column_of_times(column, np.arange(len(values)), "when", str)
    assert found.tolist() == expected
    assert is_time(kind) or pa.types.is_null(kind)
