"""One training at a time in a workdir: what is held, by whom, and until when."""

import json
import subprocess
import sys
import threading

import pytest
from rich.console import Console

from bert4rec_jax.errors import TemporaryError, UserError
from bert4rec_jax.experiment import workdir
from bert4rec_jax.experiment.workdir import recording_in, training_in
from bert4rec_jax.locks import locked

HOLDS = """
import sys, time
from pathlib import Path
from bert4rec_jax.experiment.workdir import training_in
with training_in(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_training_in_the_folder_is_refused_until_the_first_has_ended(tmp_path):
    folder = tmp_path / "runs" / "run"
    with training_in(folder):
        with pytest.raises(TemporaryError, match=r"another process is training in .*runs/run; run"):
            training_in(folder).__enter__()
        with training_in(tmp_path / "runs" / "other"):
            pass
    with training_in(folder):
        pass


def test_folders_that_are_made_for_nothing_are_removed(tmp_path):
    with training_in(tmp_path / "runs" / "run"):
        pass
    assert not list(tmp_path.iterdir())
    with training_in(tmp_path / "runs" / "run"):
        (tmp_path / "runs" / "run" / "file").write_text("")
    assert (tmp_path / "runs" / "run" / "file").exists()
    (tmp_path / "empty").mkdir()
    with training_in(tmp_path / "empty"):
        pass
    assert (tmp_path / "empty").exists()  # it was there before


def test_a_process_that_was_killed_lets_go(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLDS, tmp_path], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(TemporaryError, match="another process"):
        training_in(tmp_path).__enter__()
    process.kill()
    process.wait()
    with training_in(tmp_path):
        pass


def test_every_process_of_a_run_learns_that_the_first_did_not_get_it(tmp_path, monkeypatch):
    """The second process asks for no lock; what `everywhere` finds is the answer for all."""
    monkeypatch.setattr(workdir, "is_first", lambda: False)
    with locked(tmp_path), training_in(tmp_path):
        pass
    monkeypatch.setattr(workdir, "everywhere", lambda here: False)
    with pytest.raises(TemporaryError, match="another process"):
        training_in(tmp_path).__enter__()


def test_a_folder_of_its_own_for_each_process_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(workdir, "alone", lambda: False)
    with training_in(tmp_path):
        assert not list(tmp_path.iterdir())
    monkeypatch.setattr(workdir, "is_first", lambda: False)  # so nobody marks this folder
    monkeypatch.setattr(workdir, "_SECONDS", 0)
    with pytest.raises(UserError, match="is not the same folder for all processes of the run"):
        training_in(tmp_path).__enter__()


def test_where_nothing_can_be_held_training_goes_on(tmp_path, monkeypatch):
    """A file system without locks; a folder that cannot be made is an error of whoever writes."""
    (tmp_path / "file").write_text("")
    with training_in(tmp_path / "file" / "run"):
        pass

    def no_locks(folder):
        raise OSError("locks are not supported")

    monkeypatch.setattr(workdir, "locked", no_locks)
    with training_in(tmp_path), training_in(tmp_path):
        pass


def test_results_are_written_one_after_the_other(tmp_path):
    """Ten threads each join what they found to what is there; beside a training too."""
    file, start = tmp_path / "results.json", threading.Barrier(10)
    file.write_text("{}")

    def write(name):
        start.wait()
        with recording_in(tmp_path, Console(quiet=True)):
            earlier = json.loads(file.read_text())
            file.write_text(json.dumps({**earlier, name: 1}))

    threads = [threading.Thread(target=write, args=(f"model {n}",)) for n in range(10)]
    with training_in(tmp_path):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(json.loads(file.read_text())) == 10


def test_where_nothing_can_be_held_results_are_written(tmp_path, monkeypatch):
    with recording_in(tmp_path / "none", Console(quiet=True)):
        pass

    def no_locks(path):
        raise OSError("locks are not supported")

    monkeypatch.setattr("bert4rec_jax.locks.locked", no_locks)
    with recording_in(tmp_path, Console(quiet=True)), recording_in(tmp_path, Console(quiet=True)):
        pass
