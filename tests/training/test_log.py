"""What TensorBoard is given: read back from the events file itself."""

import json
import struct

import numpy as np
from rich.console import Console
from tensorboardX.proto.event_pb2 import Event

from bert4rec_jax.training.log import TrainingLog


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
    log = TrainingLog(
        tmp_path, Console(quiet=True), title="training", start=0, total=4, examples_per_step=8.0,
        every=2, learning_rate=lambda done: 0.1 * (done + 1), active=True,
    )  # fmt: skip
    counts = {"items_by_thumb": np.array([4, 0, 0, 0]), "masked_by_thumb": np.array([1, 0, 0, 0])}
    with log:
        for step, loss in enumerate((4.0, 2.0, 1.0, 0.5), start=1):
            log.stepped(step, {"loss": loss, "grad_norm": 3.0 * step, **counts})
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
