"""The constants of a model: what it knows of its items besides parameters."""

import numpy as np

from bert4rec_jax.sharding import make_mesh
from bert4rec_jax.training.inputs import catalog_constants

NAN = np.nan
V = 8


def first_day(trained, first, released=None):
    days = np.array(first, np.float32)
    on = None if released is None else np.array(released, np.float32)
    catalog = catalog_constants(
        make_mesh(), None, np.array(trained, bool), first_day=days, released=on
    )
    return np.asarray(catalog["request_time"]["first_day"]).tolist()


def test_ages_count_from_the_release_or_else_from_the_first_training_event():
    trained = [0, 0, 1, 1, 0, 0, 0, 0]
    first = [0, 0, 70, 80, 90, 0, 0, 0]  # that of an item which was not trained on is not read
    assert first_day(trained, first) == [0, 0, 70, 80, 0, 0, 0, 0]
    released = [NAN, NAN, 60, NAN, 95, 10, NAN, NAN]
    assert first_day(trained, first, released) == [0, 0, 60, 80, 95, 10, 0, 0]


def test_a_model_that_reads_no_times_has_no_days():
    assert catalog_constants(make_mesh(), None, np.zeros(V, bool)) == {}
