"""The metrics file: what of an earlier command stays, and what does not."""

import pytest

from bert4rec_jax.evaluation.metrics_file import joined, read_metrics

DATA = {"fingerprint": "f", "validation": {"cases_sha256": "v"}, "test": {"cases_sha256": "t"}}
ABOUT = {"data": DATA, "parameters_sha256": {"tested": "p"}, "corrections_sha256": "c"}
EARLIER = {
    **ABOUT,
    "seconds": {"training": 9},
    "validation": {"model": {"mrr": 1}, "popular": {"mrr": 2}},
    "test": {"model": {"mrr": 3}, "popular": {"mrr": 4}},
    "sampled": {"drawn": {"model": {"mrr": 5}, "popular": {"mrr": 6}}},
}


def test_what_was_not_asked_again_stays():
    untested = {**ABOUT, "seconds": {"training": 0}, "validation": {"model": {"mrr": 7}}}
    found = joined(untested, EARLIER)
    assert found["test"] == EARLIER["test"] and found["sampled"] == EARLIER["sampled"]
    assert found["validation"] == {"model": {"mrr": 7}, "popular": {"mrr": 2}}
    assert found["seconds"] == {"training": 0}


def test_what_was_asked_again_is_replaced():
    again = {**ABOUT, "test": {"model": {"mrr": 7}}, "sampled": {"drawn": {"model": {"mrr": 8}}}}
    found = joined(again, EARLIER)
    assert found["test"] == {"model": {"mrr": 7}, "popular": {"mrr": 4}}
    assert found["sampled"] == {"drawn": {"model": {"mrr": 8}, "popular": {"mrr": 6}}}


@pytest.mark.parametrize(
    "other",
    [
        {"parameters_sha256": {"tested": "q"}},
        {"corrections_sha256": "d"},
        {"data": {**DATA, "fingerprint": "g"}},
        {"data": {**DATA, "test": {"cases_sha256": "u"}}},
    ],
)
def test_of_another_model_or_other_cases_nothing_stays(other):
    results = {**ABOUT, **other, "validation": {"model": {"mrr": 7}}}
    assert joined(results, EARLIER) == results


def test_nothing_to_join():
    results = {**ABOUT, "validation": {"model": {"mrr": 7}}}
    assert joined(results, {}) == results


def test_a_file_that_cannot_be_read_holds_nothing(tmp_path):
    path = tmp_path / "metrics.json"
    assert read_metrics(path) == {}
    for text in ("{", "[1]"):
        path.write_text(text)
        assert read_metrics(path) == {}
    path.write_text('{"a": 1}')
    assert read_metrics(path) == {"a": 1}
