"""What a model is trained on: which items, and for one that reads times, when."""

import numpy as np
from sample import interactions

from bert4rec_jax.data.batch import SECONDS_PER_DAY
from bert4rec_jax.data.plan import Plan
from bert4rec_jax.data.store import write_store
from bert4rec_jax.sharding import make_mesh
from bert4rec_jax.training.inputs import Trained, TrainingData, catalog_constants, trained_on

BEGIN = 15_000


def told(tmp_path, stop, released=None, *, times=True, begin=BEGIN * SECONDS_PER_DAY + 7):
    """What three users who watch a, b, c, d from day 0, 1 and 2 on train, up to a row of each."""
    rows = [(f"u{user}", item, begin + (user + 2 * place) * SECONDS_PER_DAY)
            for user in range(3) for place, item in enumerate("abcd")]  # fmt: skip
    store = write_store(
        interactions(rows).in_time_order(), tmp_path / "store", titles={}, source={}
    )
    stops = store.offsets[:-1] + stop
    plan = Plan(store.offsets[:-1], stops, 4, 3, "recent", True, 1, seed=0)
    days = None
    if released is not None:
        days = np.full(store.catalog.num_rows, np.nan, np.float32)
        days[[store.catalog.token(item) for item in released]] = list(released.values())
    found = trained_on(TrainingData(store, (6, 9), times=times, released=days), plan, stops)
    tokens = [store.catalog.token(item) for item in "abcd"]
    return found, tokens


def test_ages_count_from_the_first_training_event(tmp_path):
    found, tokens = told(tmp_path, np.array([2, 2, 3]))
    assert found.items[tokens].tolist() == [True, True, True, False]
    days = found.dates.first_day[tokens] - BEGIN
    np.testing.assert_allclose(days[:3], [0, 2, 6], atol=1e-3)  # c: of the third user alone
    assert found.dates.first_day[tokens[3]] == 0
    assert found.dates.begin == BEGIN * SECONDS_PER_DAY + 7
    assert found.dates.until == (BEGIN + 6) * SECONDS_PER_DAY + 7
    assert not found.dates.dated


def test_or_from_the_release_which_is_not_before_the_log(tmp_path):
    released = {"a": -3.0, "c": BEGIN + 1, "d": BEGIN + 90}
    found, tokens = told(tmp_path, np.array([3, 3, 3]), released)
    days = found.dates.first_day[tokens] - BEGIN
    np.testing.assert_allclose(days, [0, 2, 1, 90], atol=1e-3)
    assert found.dates.dated
    assert not told(tmp_path / "none", np.array([3, 3, 3]), {})[0].dates.dated


def test_what_is_as_old_as_a_log_that_begins_at_0_has_its_age(tmp_path):
    """Of such a log, times count from its beginning; a day of 0 says that none is known."""
    found, tokens = told(tmp_path, np.array([3, 3, 2]), {"b": -3.0}, begin=0)
    constants = catalog_constants(make_mesh(), None, found)["request_time"]
    oldest = found.dates.first_day[tokens[:2]]
    np.testing.assert_array_equal(oldest, constants["begin_day"])
    assert (oldest > 0).all()
    np.testing.assert_allclose(found.dates.first_day[tokens], [0, 0, 4, 0], atol=1e-5)
    assert found.dates.first_day[tokens[3]] == 0
    assert found.dates.begin == 0


def test_a_model_that_reads_no_times_has_no_dates(tmp_path):
    found, _ = told(tmp_path, np.array([3, 3, 3]), times=False)
    assert found.dates is None
    assert catalog_constants(make_mesh(), None, found) == {}


def test_the_constants_of_a_model(tmp_path):
    found, _ = told(tmp_path, np.array([3, 3, 3]))
    catalog = catalog_constants(make_mesh(), None, found)
    assert catalog.keys() == {"request_time"}
    np.testing.assert_array_equal(catalog["request_time"]["first_day"], found.dates.first_day)
    assert catalog["request_time"]["last_day"] == np.float32(found.dates.until / SECONDS_PER_DAY)
    assert catalog["request_time"]["begin_day"] == np.float32(found.dates.begin / SECONDS_PER_DAY)
    assert not catalog["request_time"]["dated"]
    content = np.ones((len(found.items), 2), np.float32)
    both = catalog_constants(make_mesh(), content, Trained(found.items), 0.5)["item_table"]
    np.testing.assert_array_equal(both["trained"], found.items)
    assert both["offset"] == 0.5
