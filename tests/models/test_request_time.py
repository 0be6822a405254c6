"""What the moment of a request adds to a score, against the formula written out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert4rec_jax.config import ModelConfig
from bert4rec_jax.models.history import GAPS, History, moments
from bert4rec_jax.models.request_time import PERIODS, RequestTime
from bert4rec_jax.training.parts import build_model

V, D = 6, 4
BEGIN, LAST = 15_000.0, 16_020.0
FIRST = np.array([0, 0, 16_000, 16_010.5, 15_000, 0], np.float32)


@pytest.mark.parametrize("dated", [True, False])
def test_a_score_is_the_plain_one_of_the_trend_plus_a_function_of_age(dated):
    module = RequestTime(V, D, jax.nn.initializers.normal(0.5))
    generator = np.random.default_rng(0)
    hidden = generator.normal(size=(2, 1, D)).astype(np.float32)
    vectors = generator.normal(size=(V, D)).astype(np.float32)
    days = np.array([[16_031.0], [15_900.0]], np.float32)
    constants = {
        "first_day": FIRST, "begin_day": np.float32(BEGIN), "last_day": np.float32(LAST),
        "dated": np.bool_(dated),
    }  # fmt: skip
    params = module.init(jax.random.key(0), hidden, days, method="histories")["params"]
    variables = {"params": params, "catalog": constants}
    found = (
        module.apply(variables, hidden, days, method="histories")[:, 0]
        @ module.apply(variables, vectors, method="items").T
    )

    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    dense = lambda x, name: x @ p[name]["kernel"] + p[name]["bias"]  # noqa: E731
    for case, (h, day) in enumerate(zip(hidden[:, 0], days[:, 0].astype(np.float64))):
        known = min(day, LAST)  # the trend of later days is not known
        waves = np.concatenate([f(2 * np.pi * known / PERIODS) for f in (np.cos, np.sin)])
        bent = np.asarray(jax.nn.gelu(dense(waves, "trend_hidden")))
        h = h + dense(bent, "trend")
        a, b = np.split(dense(h, "age"), 2)
        for item in range(V):
            # What is older than the log is of its age; so may be all that has no day of release.
            now = day if dated and FIRST[item] != BEGIN else known
            angle = 2 * np.pi * (now - FIRST[item].astype(np.float64)) / PERIODS
            age = (a * np.cos(angle) + b * np.sin(angle)).sum() if FIRST[item] else 0.0
            assert found[case, item] == pytest.approx(h @ vectors[item] + age, abs=0.02)


def test_moments_by_hand():
    """Two histories in a row, also read from the left; half an hour, 4 hours and 100 days apart."""
    half = 1 / 48
    days = np.array([[10, 10 + half, 10 + 9 * half, 30, 130, 0]], np.float32)
    since = np.array([[0, 1800, 14_400, 0, 8_640_000, 0]], np.int32)
    segments = np.array([[1, 1, 1, 2, 2, 0]])
    row = np.zeros_like(segments)
    both = History(row, row, row, segments, np.zeros((1, 6), bool), days, since)
    asked, gaps = moments(both)
    np.testing.assert_array_equal(asked, days)
    assert gaps[0].tolist() == [0, 1, 3, 0, 12, 0]  # 2^12 - 1 hours are 170 days
    left, gaps = moments(both._replace(causal=segments > 0))
    assert left[0].tolist() == pytest.approx([days[0, 1], days[0, 2], days[0, 2], 130, 130, 0])
    assert gaps[0].tolist() == [1, 3, 0, 12, 0, 0]
    far = moments(both._replace(since=since * 240))[1]
    assert far.max() == GAPS - 1


def test_gaps_are_exact_to_the_second():
    """An hour is the bound of a kind; days since 1970 in float32 are minutes apart."""
    since = np.array([[0, 1, 3599, 3600, 3601, 10_800, 10_801]], np.int32)
    row = np.zeros_like(since)
    history = History(row, row, row, row + 1, row > 0, row + np.float32(16_000), since)
    assert moments(history)[1][0].tolist() == [0, 1, 1, 1, 2, 2, 3]


@functools.cache
def model_of(times):
    config = ModelConfig(dim=8, heads=2, layers=1, ffn_dim=16, init_scale=0.3, times=times)
    model = build_model(config, num_rows=256, max_length=6)
    row = jnp.zeros((1, 6), jnp.int32)
    history = History(row, row, row, row, row != 0, row.astype(jnp.float32), row)
    init = jax.jit(functools.partial(model.init, deterministic=True))
    variables = init(jax.random.key(0), history, row[:, :1])
    if times:
        first = np.zeros(256, np.float32)
        first[2:10] = 16_000 + np.arange(8)
        known = {"begin_day": np.float32(0), "last_day": np.float32(20_000), "dated": np.bool_(1)}
        variables = {
            **variables,
            "catalog": {"request_time": {**known, "first_day": first}},
        }
    apply = jax.jit(functools.partial(model.apply, deterministic=True))
    return lambda history: apply(variables, history, np.array([[3]]))


@pytest.mark.parametrize("times", [False, True])
def test_times_matter_only_to_a_model_that_reads_them(times):
    tokens = np.array([[3, 4, 5, 1, 0, 0]])
    segments = (tokens > 0).astype(np.int32)
    positions = np.array([[2, 3, 4, 5, 0, 0]])
    days = np.array([[16_000, 16_001, 16_002, 16_009, 0, 0]], np.float32)
    history = History(tokens, tokens * 0, positions, segments, tokens < 0, days)

    def scores(days):
        since = np.diff(days, prepend=days[:, :1]) * (segments > 0) * 86_400
        timed = history._replace(days=days, since=since.astype(np.int32))
        hidden, vectors, bias = model_of(times)(timed)
        return hidden[0, 0] @ vectors.T + bias

    later = days + np.array([[0, 0, 0, 5, 0, 0]], np.float32)
    earlier = days - np.array([[9, 0, 0, 0, 0, 0]], np.float32)
    for changed in (later, earlier):
        assert bool((np.abs(scores(days) - scores(changed)) > 1e-4).any()) == times
