"""OffsetChoice: the best offset for untrained targets that trained ones can bear."""

import pytest

from bert4rec_jax.evaluation.cold_offset import OFFSETS, choose_offset


def test_trained_targets_keep_97_hundredths():
    asked = []

    def ask(offset):
        asked.append(offset)
        return 0.2 - 0.00375 * max(offset, 0), 0.01 + offset / 1000  # .194 is left at 1.6

    found = choose_offset(ask, kept=0.97)
    assert asked == [*OFFSETS, 1.25, 1.5, 1.75, 1.5625, 1.625, 1.6875]
    assert found.chosen.offset == 1.5625
    assert found.chosen.warm == pytest.approx(0.2 - 0.00375 * 1.5625)
    assert [trial.offset for trial in found.trials] == sorted(asked)


@pytest.mark.parametrize(("kept", "offset"), [(1.0, 0.0), (0.99, 0.5), (0.9, 5.3125)])
def test_less_kept_is_a_higher_offset(kept, offset):
    found = choose_offset(lambda x: (0.2 - 0.00375 * max(x, 0), 0.01 + x / 1000), kept=kept)
    assert found.chosen.offset == offset


def test_what_trained_targets_keep_is_of_their_best_trial():
    """It is not that of the first trial: .97 of the best, at 0, is left up to 1.73."""
    found = choose_offset(lambda x: (0.2 - 0.002 * x**2, 0.01 + x / 1000), kept=0.97)
    assert found.chosen.offset == 1.6875


def test_an_offset_that_gains_nothing_is_not_taken():
    assert (
        choose_offset(lambda offset: (0.1, 0.05 if offset >= 0 else 0.01), kept=0.97).chosen.offset
        == 0
    )


def test_the_search_goes_on_for_as_long_as_trained_targets_bear_it():
    """Where scores are large, cold items enter the lists at 6 only, and trained ones bear 8.36."""

    def ask(offset):
        return 0.13 - 0.00165 * max(offset - 6, 0), 0.002 * max(offset - 6, 0)

    found = choose_offset(ask, kept=0.97)
    assert found.chosen.offset == 8.3125
    assert [trial.offset for trial in found.trials if trial.offset == int(trial.offset)] == [
        *OFFSETS, 4, 5, 6, 7, 8, 9,
    ]  # fmt: skip


def test_where_no_offset_gains_there_is_none():
    assert (
        choose_offset(lambda offset: (0.1 if offset < 5 else 0.09, 0.0), kept=0.97).chosen.offset
        == 0
    )


def test_what_is_kept():
    values = choose_offset(lambda offset: (0.5, min(offset, 30) / 100), kept=0.97).to_json()
    assert values["offset"] == 30 and values["warm_kept"] == 0.97
    assert values["trials"][-1]["offset"] == 30.75
    assert (values["warm_ndcg@10"], values["cold_ndcg@10"]) == (0.5, 0.3)
