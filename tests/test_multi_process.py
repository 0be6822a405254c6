"""Two processes of two devices each, through gloo: the same losses as one process of four."""

import json
import os
import shutil
import socket
import subprocess
import sys

import pytest
from test_end_to_end import TRAIN, command

from bert4rec_jax import processes
from bert4rec_jax.errors import UserError

pytestmark = pytest.mark.skipif(not TRAIN.is_file(), reason="train.py lies in the repository only")


def environment(devices, **more):
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    return {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "COLUMNS": "200", **more}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(arguments, env):
    return subprocess.Popen(
        arguments, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(processes):
    for process in processes:
        output, _ = process.communicate(timeout=150)
        assert process.returncode == 0, output


def start_two(arguments, *of_second, devices=(2, 2)):
    port = str(free_port())
    return [
        start(
            [*arguments, *of_second] if number else arguments,
            environment(
                devices[number],
                JAX_COORDINATOR_ADDRESS=f"127.0.0.1:{port}",
                JAX_NUM_PROCESSES="2",
                JAX_PROCESS_ID=str(number),
            ),
        )
        for number in range(2)
    ]


def losses(workdir):
    lines = [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def one_and_two(store, folder):
    """The same training with half of the item table per device, in two folders."""
    changes = {"training__epochs": 2, "training__evaluate_every": 1, "mesh__model": 2}
    plain = ["--evaluation.no-baselines", "--evaluation.no-test"]
    return {name: [*command(store, folder / name, **changes), *plain] for name in ("one", "two")}


@pytest.mark.slow
def test_two_processes_equal_one_and_continue_each_other(store, tmp_path):
    arguments = one_and_two(store, tmp_path)
    finish([start(arguments["one"], environment(4))])
    finish(start_two(arguments["two"]))
    expected, found = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert found.keys() == expected.keys() and len(found) > 3
    assert found == pytest.approx(expected, abs=2e-5)
    metrics = [
        json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two")
    ]
    assert metrics[1]["device"]["processes"] == 2
    ndcg = [m["validation"]["BERT4Rec"]["ndcg@10"] for m in metrics]
    assert ndcg[0] == pytest.approx(ndcg[1], abs=1e-5)

    # What one process saved, two continue; they agree to pass over a damaged checkpoint.
    checkpoints = tmp_path / "one" / "checkpoints"
    older, newest = sorted(int(path.name) for path in checkpoints.iterdir())
    shutil.rmtree(checkpoints / str(newest) / "state")
    finish(start_two(arguments["one"]))
    again = json.loads((tmp_path / "one" / "metrics.json").read_text())
    assert again["device"]["processes"] == 2
    assert again["steps"]["resumed_from"] == older < again["steps"]["done"] == newest
    assert (checkpoints / f"{newest}.corrupt").is_dir()
    found = losses(tmp_path / "one")
    assert found.keys() == expected.keys()
    # The first line after the return is a mean over fewer steps than without it.
    partial = next(step for step in found if step > older)
    compared = [step for step in found if step != partial or older % 5 == 0]
    assert len(compared) > 2
    for step in compared:
        assert found[step] == pytest.approx(expected[step], abs=2e-5)


def test_half_given_coordinates_are_one_clear_error():
    env = environment(1, JAX_NUM_PROCESSES="2")
    done = subprocess.run(
        [sys.executable, str(TRAIN)], env=env, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 2
    assert "JAX_COORDINATOR_ADDRESS, JAX_PROCESS_ID is not set" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_an_item_table_over_processes_gets_whole_batches(store, tmp_path):
    """Each process holds half of the table, and both need all rows of every batch."""
    arguments = one_and_two(store, tmp_path)
    finish([start(arguments["one"], environment(2))])
    finish(start_two(arguments["two"], devices=(1, 1)))
    expected, found = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert found.keys() == expected.keys() and len(found) > 3
    assert found == pytest.approx(expected, abs=2e-5)
    digests = [
        json.loads((tmp_path / name / "metrics.json").read_text())["parameters_sha256"]["tested"]
        for name in ("one", "two")
    ]
    assert digests[0] == digests[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("of_second", "devices", "message"),
    [
        (("--optimizer.peak-lr", "0.5"), (2, 2), "differ in their settings; process {n} has optim"),
        ((), (2, 1), "process 0 has 2, process 1 has 1; on CPUs, XLA_FLAGS=--xla_force_host_plat"),
    ],
)
def test_processes_that_differ_end_with_one_error_each(
    store, tmp_path, of_second, devices, message
):
    arguments = [*command(store, tmp_path / "run"), "--evaluation.no-test"]
    for number, process in enumerate(start_two(arguments, *of_second, devices=devices)):
        output, _ = process.communicate(timeout=100)
        assert process.returncode == 2, output
        assert message.format(n=number) in output and "Traceback" not in output
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(("step", "started"), [(True, True), (False, False)])
def test_slurm_starts_processes_by_srun_only(monkeypatch, step, started):
    monkeypatch.setenv("SLURM_NTASKS", "2")  # also set in a batch script, which runs once
    if step:
        monkeypatch.setenv("SLURM_STEP_NODELIST", "node[1-2]")
    assert processes._launched_together() == started


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (("127.0.0.1:1", "2", "2"), "process 2 of 2 at 127.0.0.1:1: process_id and num_processes "),
        (("127.0.0.1:1", "2", "-1"), "Start JAX_NUM_PROCESSES processes with the same JAX_COORDI"),
    ],
)
def test_a_number_that_no_process_can_have_is_one_error(variables, message):
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    more = dict(zip(names, variables))
    run = start([sys.executable, TRAIN, "--workdir", "none"], environment(1, **more))
    output, _ = run.communicate(timeout=100)
    assert run.returncode == 2 and message in output and "Traceback" not in output


@pytest.mark.parametrize("address", ["host0", ":1234", "host0:", "host0:port", "host0:70000"])
def test_an_address_without_a_host_or_a_port_is_refused(monkeypatch, address):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", address)
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    monkeypatch.setenv("JAX_PROCESS_ID", "0")
    with pytest.raises(
        UserError, match=f"{address}' has to be the host of the first .* host0:1234"
    ):
        processes.start_processes()


NOT_FOUND = [
    "nowhere does not exist",
    "the first process of the run cannot prepare the log nowhere",
]
IN_ONE = ["is a prepared log in this process", "nowhere is no prepared log in this process"]


@pytest.mark.parametrize(("path", "expected"), [("nowhere", NOT_FOUND), (None, IN_ONE)])
def test_a_mistaken_path_of_data_is_one_clear_error(store, tmp_path, path, expected):
    arguments = [sys.executable, str(TRAIN), "--workdir", str(tmp_path / "run"), "--data.path"]
    started = start_two(
        [*arguments, path or str(store.path)], "--data.path", "nowhere", devices=(1, 1)
    )
    for message, process in zip(expected, started):
        output, _ = process.communicate(timeout=150)
        assert process.returncode == 2 and "Traceback" not in output, output
        assert message in output
