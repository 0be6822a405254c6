"""What TensorBoard is given: read back from the events file itself."""

import io
import json
import struct
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console
from tensorboardX import SummaryWriter
from tensorboardX.proto.event_pb2 import Event

from bert4rec_jax.config import Config, LogConfig, TrainingConfig
from bert4rec_jax.errors import UserError
from bert4rec_jax.training.log import Course, training_log
from bert4rec_jax.training.log_files import LogFiles

COUNTS = {"items_by_thumb": np.array([4, 0, 0, 0]), "masked_by_thumb": np.array([1, 0, 0, 0])}


def make_log(folder, start=0, console=None, over=False, wandb="", seed=0):
    training = TrainingConfig(log_every=2, metric="hr@200", seed=seed)
    course = Course(start, 4, 8.0, lambda done: 0.1 * (done + 1), over)
    config = Config(training=training, log=LogConfig(wandb=wandb))
    return training_log(config, folder, console or Console(quiet=True), "training", course)


def scalars(folder):
    """name -> step -> value, of a file of TFRecords: length, 4 bytes, content, 4 bytes."""
    (file,) = folder.glob("events.out.tfevents.*")
    content, found = file.read_bytes(), {}
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        event = Event.FromString(content[12 : 12 + length])
        for value in event.summary.value:
            found.setdefault(value.tag, {})[event.step] = value.simple_value
        content = content[16 + length :]
    return found


def test_events_and_lines_hold_the_same_scalars(tmp_path):
    with make_log(tmp_path) as log:
        for step, loss in enumerate((4.0, 2.0, 1.0, 0.5), start=1):
            log.stepped(step, {"loss": loss, "grad_norm": 3.0 * step, **COUNTS})
        log.validated(4, {"hr@10": 0.5, "ndcg@10": 0.25, "hr@200": 0.75, "mrr": 0.125}, better=True)
    found = scalars(tmp_path)
    assert found["loss"] == {2: 3.0, 4: 0.75}
    assert found["grad_norm"] == {2: 6.0, 4: 12.0}
    np.testing.assert_allclose([found["learning_rate"][step] for step in (2, 4)], [0.2, 0.4])
    assert found["examples_per_second"].keys() == {2, 4}
    assert found["examples_per_second"][4] > 0 and found["masked_share/none"][2] == 0.25
    assert found["validation/ndcg_10"] == {4: 0.25}  # TensorBoard has no @ in names
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines if "loss" in line] == [3.0, 0.75]


def test_lines_that_hold_no_step_are_dropped(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n5\n[]\n{"step": null}\n{"loss": 2}\n{"step": 2}\n{"step": 9')
    with LogFiles(tmp_path, 1, events=False):
        pass
    assert path.read_text() == '{"step": 1}\n'


def test_the_rate_does_not_count_checkpoints(tmp_path, monkeypatch):
    """Eight histories and a second a step; the checkpoint takes a minute."""
    now = SimpleNamespace(seconds=0.0)
    clock = SimpleNamespace(monotonic=lambda: now.seconds)
    monkeypatch.setattr("bert4rec_jax.training.log.time", clock)
    with make_log(tmp_path) as log:
        for step in (1, 2, 3, 4):
            now.seconds += 1
            log.stepped(step, {"loss": 1.0, "grad_norm": 1.0, **COUNTS})
            if step == 2:
                now.seconds += 60
                log.checkpointed(step)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["examples_per_second"] for line in lines] == [8.0, 8.0]


def test_the_time_left_is_not_that_of_compiling(tmp_path, monkeypatch):
    """The first step compiles for an hour, the others take 10 seconds each."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(
        "bert4rec_jax.training.progress.time", SimpleNamespace(monotonic=lambda: now.seconds)
    )
    console = Console(file=io.StringIO())
    with make_log(tmp_path, console=console) as log:
        for step, seconds in ((1, 3600), (2, 10)):
            now.seconds += seconds
            log.stepped(step, {"loss": 1.0, "grad_norm": 1.0, **COUNTS})
    assert "step 2/4" in console.file.getvalue() and "ETA 20 s" in console.file.getvalue()
    assert console.file.getvalue().endswith(": ended at step 2 of 4, 3,610 s after its start\n")


def test_a_full_disk_is_one_clear_error_and_hides_no_other(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    error = pytest.raises(UserError, match=r"cannot write the training log in .*No space.*room")
    with error, make_log(tmp_path) as log:
        monkeypatch.setattr(SummaryWriter, "add_scalar", full)
        log.stepped(4, {"loss": 1.0, "grad_norm": 1.0, **COUNTS})
    with pytest.raises(UserError, match="the first one"), make_log(tmp_path):
        monkeypatch.setattr(SummaryWriter, "close", full)
        raise UserError("the first one")


class FakeWandb(SimpleNamespace):
    """Stands for the module: remembers what it is told."""

    Error = RuntimeError

    def __init__(self):
        super().__init__(begun=[], logged=[], ended=[])

    def Settings(self, **settings):  # noqa: N802
        return settings

    def init(self, **run):
        self.begun.append(run)
        return SimpleNamespace(
            log=lambda scalars, step: self.logged.append((step, scalars)),
            finish=lambda exit_code: self.ended.append(exit_code),
        )


def test_weights_and_biases_gets_the_same_scalars_in_one_run(tmp_path, monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with pytest.raises(ZeroDivisionError), make_log(tmp_path, wandb="mine", seed=5) as log:
        for step in (1, 2):
            log.stepped(step, {"loss": 4.0 * step, "grad_norm": 3.0, **COUNTS})
        raise ZeroDivisionError
    with make_log(tmp_path, start=2, wandb="mine") as log:
        log.validated(4, {"hr@10": 0.5, "ndcg@10": 0.25, "hr@200": 0.75, "mrr": 0.125}, better=True)
    first, second = fake.begun
    assert first["id"] == second["id"] and first["resume"] == "allow"
    assert (first["project"], first["dir"]) == ("mine", str(tmp_path))
    assert first["config"]["training"]["seed"] == 5
    (step, scalars), (last, validation) = fake.logged
    assert step == 2 and scalars["loss"] == 6.0 and scalars["masked_share/none"] == 0.25
    assert {"learning_rate", "grad_norm", "examples_per_second"} < scalars.keys()
    assert last == 4 and validation["validation/ndcg@10"] == 0.25
    assert fake.ended == [1, 0]
    with make_log(tmp_path, wandb="mine"):
        pass
    assert fake.begun[2]["id"] != first["id"]  # from step 0 again: nothing of the first was saved


def test_weights_and_biases_itself_takes_what_it_is_given(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="the extra is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for start in (0, 2):
        with make_log(tmp_path, start=start, wandb="mine") as log:
            log.stepped(start + 2, {"loss": 4.0, "grad_norm": 3.0, **COUNTS})
    written = list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(written) == 2 and len({file.name for file in written}) == 1


def test_what_is_logged_can_be_watched_at_once(tmp_path):
    with make_log(tmp_path) as log:
        log.stepped(2, {"loss": 4.0, "grad_norm": 3.0, **COUNTS})
        deadline = time.monotonic() + 60  # half of what passes before TensorBoard's own writes
        while "loss" not in scalars(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert scalars(tmp_path)["loss"] == {2: 4.0}


def test_a_run_that_is_over_logs_nothing_new(tmp_path, monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with make_log(tmp_path, start=4, over=True, wandb="mine"):
        pass
    assert not fake.begun and not list(tmp_path.glob("events.*"))


def test_weights_and_biases_not_installed_or_refusing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"pip install 'bert4rec-jax\[wandb\]'"):
        make_log(tmp_path, wandb="mine").__enter__()
    fake = FakeWandb()

    def refuse(**run):
        raise fake.Error("no API key")

    fake.init = refuse
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with pytest.raises(UserError, match=r"no API key.*WANDB_MODE=offline"):
        make_log(tmp_path, wandb="mine").__enter__()
    for error, way_out in (
        (fake.Error("Invalid project name 'a/b'"), "choose another name with --log.wandb"),
        (ValueError("mode: Input should be 'online'"), "correct the WANDB_ variables"),
    ):
        fake.init = lambda error=error, **run: (_ for _ in ()).throw(error)
        with pytest.raises(UserError, match=way_out):
            make_log(tmp_path, wandb="mine").__enter__()
    assert not (tmp_path / "wandb_id.txt").exists()
