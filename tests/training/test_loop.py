"""The loop's order, early stopping, and what stops it."""

import signal
import threading
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from bert4rec_jax.config import Config, to_json
from bert4rec_jax.errors import UserError
from bert4rec_jax.training import loop
from bert4rec_jax.training.interruption import Interrupted, Interruption
from bert4rec_jax.training.loop import Stopping, train
from bert4rec_jax.training.run_record import RunRecord


class Recorder:
    """Stands for checkpoints and the reporter, and writes down what happens."""

    def __init__(self):
        self.events = []
        self.saved = {}

    def save(self, state, record):
        if state not in self.saved:
            self.events.append(f"save {state}")
        self.saved[state] = record

    def check(self):
        pass

    def wait(self):
        pass

    def steps(self):
        return sorted(self.saved)

    def stepped(self, step, metrics):
        self.events.append(f"log {step}")

    def validated(self, step, metrics, *, better):
        self.events.append(f"validate {step}{' better' if better else ''}")

    def checkpointed(self, step):
        pass


class State(int):
    """A state that is its own step."""

    params = None


def run(
    recorder, *, start=0, record=None, values=None, bad_step=None, raise_at=None,
    signal_in_validation=False, **stopping,
):  # fmt: skip
    values = iter(values or [0.1] * 99)
    settings = {
        "total_steps": 6, "evaluate_every": 3, "save_every": 2, "metric": "ndcg@10", "patience": 9,
    }  # fmt: skip

    def step(state, steps):
        numbers = [number + 1 for number in steps]
        recorder.events.append(f"step {'-'.join(map(str, numbers))} on {steps[0]}")
        if raise_at in numbers:
            signal.raise_signal(signal.SIGTERM)
        losses = np.array([np.nan if bad_step == number else 1 for number in numbers], np.float32)
        metrics = {"loss": losses, "grad_norm": np.ones_like(losses)}
        if len(numbers) == 1:
            metrics = {name: values[0] for name, values in metrics.items()}
        return State(numbers[-1]), metrics

    def validate(params, poll):
        if signal_in_validation:
            signal.raise_signal(signal.SIGTERM)
        poll()
        return {"ndcg@10": next(values)}

    return train(
        state=State(start),
        step=start,
        train_step=step,
        batches=lambda strides: iter(range(first, first + count) for first, count in strides),
        validate=validate,
        checkpoints=recorder,
        record=record or RunRecord(to_json(Config()), "c", "d"),
        stopping=Stopping(**{**settings, **stopping}),
        reporter=recorder,
    )


def test_the_order_is_evaluate_save_take_a_batch_step_log_the_last():
    recorder = Recorder()
    run(recorder)
    assert recorder.events == [
        "step 1 on 0", "step 2 on 1", "log 1", "log 2", "save 2",
        "step 3 on 2", "log 3", "validate 3 better", "save 3",
        "step 4 on 3", "log 4", "save 4",
        "step 5 on 4", "step 6 on 5", "log 5", "log 6", "validate 6", "save 6",
    ]  # fmt: skip


@pytest.mark.parametrize("start", [2, 3, 4])
def test_a_run_from_a_checkpoint_does_what_the_whole_run_did_next(start):
    whole = Recorder()
    run(whole, values=[0.1, 0.2])
    resumed = Recorder()
    left = [0.2] if start >= 3 else [0.1, 0.2]
    run(resumed, start=start, record=whole.saved[start], values=left)
    steps = [event for event in whole.events if event.startswith("step")]
    assert [event for event in resumed.events if event.startswith("step")] == steps[start:]
    assert resumed.saved[6].validations == whole.saved[6].validations


def test_steps_are_done_together_where_nothing_is_due_between_them():
    recorder = Recorder()
    run(recorder, total_steps=11, evaluate_every=6, save_every=4, at_once=4)
    assert recorder.events == [
        "step 1-2-3-4 on 0", "log 1", "log 2", "log 3", "log 4", "save 4",
        "step 5 on 4", "step 6 on 5", "log 5", "log 6", "validate 6 better", "save 6",
        "step 7 on 6", "step 8 on 7", "log 7", "log 8", "save 8",
        "step 9 on 8", "step 10 on 9", "log 9", "step 11 on 10", "log 10", "log 11", "validate 11",
        "save 11",
    ]  # fmt: skip


@pytest.mark.parametrize("start", [4, 6, 12, 16])
def test_a_run_from_a_checkpoint_takes_the_strides_that_the_whole_run_took_next(start):
    stopping = Stopping(
        total_steps=37, evaluate_every=6, save_every=16, metric="m", patience=9, at_once=4
    )
    whole, left = stopping.strides(0), stopping.strides(start)
    assert whole.sum(0)[1] == 37 and whole[:, 1].tolist().count(4) == 6
    np.testing.assert_array_equal(left, whole[whole[:, 0] >= start])


def test_a_loss_that_is_not_finite_is_found_inside_a_stride():
    recorder = Recorder()
    with pytest.raises(UserError, match="loss is nan at step 3; nothing was saved"):
        run(recorder, total_steps=8, evaluate_every=0, save_every=8, at_once=4, bad_step=3)
    assert recorder.events[-2:] == ["log 1", "log 2"]


def test_training_stops_after_patience_validations_without_a_gain():
    recorder = Recorder()
    state, record = run(
        recorder, values=[0.1, 0.3, 0.2, 0.3, 0.9], total_steps=99, evaluate_every=1, patience=2
    )
    assert state == 4
    assert [v["ndcg@10"] for v in record.validations] == [0.1, 0.3, 0.2, 0.3]


def test_an_end_that_patience_would_have_brought_before_the_best():
    def missed(*values, patience):
        stopping = Stopping(99, 2, 9, "m", patience)
        return stopping.missed([{"step": 2.0 * (i + 1), "m": v} for i, v in enumerate(values)])

    assert missed(0.5, 0.3, 0.6, patience=1) == (4, 6)
    assert missed(0.5, 0.3, 0.6, patience=2) is None
    assert missed(0.5, 0.3, 0.2, 0.4, patience=1) is None  # the best came before the end
    assert missed(0.1, 0.2, patience=1) is None and missed(patience=1) is None


def test_a_finished_run_does_nothing():
    recorder = Recorder()
    state, _ = run(recorder, start=6, record=RunRecord({}, "c", "d", [{"step": 6.0, "ndcg@10": 1}]))
    assert state == 6
    assert not [event for event in recorder.events if event.startswith(("step", "validate"))]


def test_a_loss_that_is_not_finite_stops_with_the_step_and_the_last_good_checkpoint():
    recorder = Recorder()
    with pytest.raises(
        UserError, match=r"loss is nan at step 5; the last good checkpoint is step 4"
    ) as stopped:
        run(recorder, bad_step=5)
    assert "optimizer.noam-scale" in str(stopped.value)
    assert str(stopped.value).endswith("in another workdir")  # here, other settings are refused
    assert max(recorder.saved) == 4


def test_a_broken_state_is_never_saved():
    recorder = Recorder()
    with pytest.raises(UserError, match=r"at step 2; nothing was saved.*warmup-steps$"):
        run(recorder, bad_step=2)
    assert not recorder.saved


def test_a_signal_ends_a_validation_which_is_done_again():
    recorder = Recorder()
    with pytest.raises(Interrupted, match="SIGTERM; step 3 is saved"):
        run(recorder, signal_in_validation=True)
    assert recorder.events[-2:] == ["log 3", "save 3"]
    assert recorder.saved[3].validations == []
    again = Recorder()
    run(again, start=3, record=recorder.saved[3])
    assert again.events[:2] == ["validate 3 better", "save 3"]


def test_a_signal_saves_and_stops_between_two_steps(capfd):
    recorder = Recorder()
    with pytest.raises(Interrupted, match="SIGTERM; step 5 is saved") as stopped:
        run(recorder, raise_at=5)
    assert stopped.value.exit_code == 143
    assert recorder.events[-2:] == ["log 5", "save 5"]
    assert capfd.readouterr().err.split("\n")[1].startswith("stopping after the current step")


def test_a_signal_in_the_last_validation_stops_before_what_follows_training():
    recorder = Recorder()

    def validated(step, metrics, *, better):
        if step == 6:
            signal.raise_signal(signal.SIGTERM)

    recorder.validated = validated
    with pytest.raises(Interrupted, match="SIGTERM; step 6 is saved"):
        run(recorder)
    assert 6 in recorder.saved


def test_several_processes_exchange_signals_every_16_steps_and_at_the_last(monkeypatch):
    asked = []

    def gather(received):
        asked.append(received)
        return np.array([received, signal.SIGTERM if len(asked) == 3 else 0])

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "process_allgather", gather)
    interruption = Interruption()
    steps = [0, 5, 13, 21, 29, 31, 36]  # as strides of 8 between validations leave them
    assert [interruption.requested(step) for step in steps] == [0] * 7 and len(asked) == 2
    assert interruption.requested(36, last=True) == signal.SIGTERM


def test_a_process_that_is_not_the_first_stops_without_a_word(monkeypatch, capfd):
    monkeypatch.setattr("bert4rec_jax.training.interruption.is_first", lambda: False)
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGINT)
        assert interruption.requested(1) == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert capfd.readouterr().err == ""


def test_training_works_outside_of_the_main_thread():
    """Where signals cannot be handled: in the worker of a sweep or of a web service."""
    recorder, failed = Recorder(), []

    def work():
        try:
            run(recorder)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failed
    assert recorder.saved


def test_the_time_of_a_run_is_that_of_all_its_starts(monkeypatch):
    """A start that begins from the checkpoint of step 3 has lost the time of later steps."""

    def clock(*readings):
        monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=iter(readings).__next__))

    whole, resumed = Recorder(), Recorder()
    clock(100.0, 102.0, 103.0, 104.0, 106.0)  # the beginning, and saves at steps 2, 3, 4 and 6
    _, record = run(whole)
    assert [whole.saved[step].seconds for step in (2, 3, 4, 6)] == [2, 3, 4, 6]
    assert record.seconds == 6
    clock(500.0, 501.0, 504.0)
    _, record = run(resumed, start=3, record=whole.saved[3], values=[0.2])
    assert resumed.saved[4].seconds == 3 + 1 and record.seconds == 3 + 4
    clock(900.0)
    _, again = run(Recorder(), start=6, record=record)
    assert again.seconds == record.seconds  # nothing was trained
