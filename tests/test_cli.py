import errno
import os
import signal
import subprocess
import sys

import pytest

from bert4rec_jax import cli
from bert4rec_jax.data.store import SequenceStore

LOG = "who,what,stars,when\nb,x,4,1714500000\na,x,,1714600000\nb,w,2.5,1714550000\n"


def run(monkeypatch, *arguments):
    """Exit status of `bert4rec`."""
    monkeypatch.setattr(sys, "argv", ["bert4rec", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as exit:
        return exit.code
    return 0


@pytest.fixture(autouse=True)
def no_memory_settings(monkeypatch):
    """The settings are those of a whole process: keep them out of the one that runs the tests."""
    monkeypatch.setattr("bert4rec_jax.entry.tune_memory", lambda: None)


@pytest.fixture
def log(tmp_path):
    file = tmp_path / "log.csv"
    file.write_text(LOG)
    return file


def test_prepare_writes_a_store_and_shows_its_counts(log, tmp_path, monkeypatch, capsys):
    status = run(
        monkeypatch, "prepare", log, "--output", tmp_path / "out", "--user-column", "who",
        "--item-column", "what", "--timestamp-column", "when", "--rating-column", "stars",
        "--min-user-interactions", 1, "--min-item-interactions", 1,
    )  # fmt: skip
    assert status == 0
    store = SequenceStore.open(tmp_path / "out")
    assert store.user_ids() == ["b", "a"]
    assert store.timestamps.tolist() == [1714500000, 1714550000, 1714600000]
    shown = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines()]
    assert ["interactions read", "3"] in rows
    assert ["ratings", "2.5 to 4"] in rows
    assert ["time", "2024-04-30 to 2024-05-01"] in rows


def test_rows_that_are_left_out_are_counted(tmp_path, monkeypatch, capsys):
    log = tmp_path / "log.csv"
    log.write_text("user_id,item_id,timestamp\nu,x,5\n,x,6\nu,x,7\nu,y,\nu,y,8\nv,,9\n")
    command = ("prepare", log, "--output", tmp_path / "out", "--min-user-interactions", 1,
               "--min-item-interactions", 1)  # fmt: skip
    assert run(monkeypatch, *command) == 2
    assert "line 3: the user id is empty" in capsys.readouterr().err
    assert run(monkeypatch, *command, "--skip-incomplete", "--collapse-repeats") == 0
    shown = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines()]
    assert ["interactions read", "3"] in rows
    assert ["incomplete rows, left out", "3"] in rows
    assert ["repeats in a row, left out", "1"] in rows
    assert SequenceStore.open(tmp_path / "out").timestamps.tolist() == [5, 8]


def test_no_times_and_no_ratings(log, tmp_path, monkeypatch, capsys):
    status = run(
        monkeypatch, "prepare", log, "--output", tmp_path / "out", "--user-column", "who",
        "--item-column", "what", "--timestamp-column", "None", "--rating-column", "None",
        "--min-user-interactions", 1, "--min-item-interactions", 1,
    )  # fmt: skip
    assert status == 0
    assert not SequenceStore.open(tmp_path / "out").timed
    assert "none: rows as they stand in the log" in capsys.readouterr().out


def test_a_mistake_is_one_paragraph_and_status_2(log, tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, "prepare", log, "--output", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert error.startswith(f"error: {log} has no column 'user_id' for the user")


def test_what_the_machine_refuses_has_status_75(log, tmp_path, monkeypatch, capsys):
    columns = (
        "--user-column", "who", "--item-column", "what", "--timestamp-column", "when",
        "--rating-column", "stars", "--min-user-interactions", "1", "--min-item-interactions", "1",
    )  # fmt: skip

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "file").write_text("")
    wrong = tmp_path / "file" / "out"
    assert run(monkeypatch, "prepare", log, "--output", wrong, *columns) == 2
    assert "out: Not a directory; choose another folder" in capsys.readouterr().err
    monkeypatch.setattr("bert4rec_jax.outputs._replace", full)
    assert run(monkeypatch, "prepare", log, "--output", tmp_path / "out", *columns) == 75
    assert "out: No space left on device; make room" in capsys.readouterr().err


def test_a_download_shows_its_progress(tmp_path, monkeypatch, capsys):
    def fetch(name, *, cache, base_url, progress, notify):
        assert (name, cache, base_url) == ("ml-100k", tmp_path, "https://mirror.example")
        progress(1_000_000, 4_000_000)
        progress(4_000_000, 4_000_000)
        notify("no checksum")
        (tmp_path / "u.data").write_text("1\t7\t4\t5\n")
        return tmp_path

    monkeypatch.setattr("bert4rec_jax.data.download.fetch", fetch)
    status = run(
        monkeypatch, "prepare", "ml-100k", "--output", tmp_path / "out", "--cache", tmp_path,
        "--mirror", "https://mirror.example", "--min-user-interactions", 1,
        "--min-item-interactions", 1,
    )  # fmt: skip
    assert status == 0
    error = capsys.readouterr().err
    assert "4.0/4.0 MB" in error
    assert "no checksum" in error


def test_an_interruption_has_status_130(tmp_path, monkeypatch, capsys):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("bert4rec_jax.data.prepare.prepare", interrupt)
    assert run(monkeypatch, "prepare", "movietweetings", "--output", tmp_path / "out") == 130
    assert "Traceback" not in capsys.readouterr().err


TERMINATED = """
import os, signal, sys, tempfile, time
from pathlib import Path
from bert4rec_jax.entry import run_command
from bert4rec_jax.outputs import whole_file, whole_folder
def command():
    with whole_folder(Path(sys.argv[1]) / "out"), whole_file(Path(sys.argv[1]) / "a.json"):
        with tempfile.TemporaryDirectory(dir=sys.argv[1]):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
run_command(command)
"""


def test_sigterm_leaves_nothing_behind_and_has_status_143(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", TERMINATED, tmp_path], capture_output=True, text=True, timeout=50
    )
    assert (done.returncode, done.stderr) == (143, "stopped by SIGTERM\n")
    assert list(tmp_path.iterdir()) == []


IN_A_CALLBACK = """
import os, signal, sys, time, weakref
from bert4rec_jax.entry import run_command
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in jobs in the background
class Thing: pass
def command():
    thing = Thing()
    callback = weakref.ref(thing, lambda gone: os.kill(os.getpid(), int(sys.argv[1])))
    del thing
    time.sleep(60)
run_command(command)
"""


@pytest.mark.parametrize(
    ("number", "status", "message"),
    [(signal.SIGTERM, 143, "stopped by SIGTERM\n"), (signal.SIGINT, 130, "interrupted\n")],
)
def test_a_signal_in_a_callback_is_not_lost(number, status, message):
    """Python prints and drops exceptions in the callbacks of its garbage collection."""
    arguments = [sys.executable, "-c", IN_A_CALLBACK, str(int(number))]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (status, message)


ENDS = """
import atexit, sys
from bert4rec_jax.entry import run_program
atexit.register(lambda: print("torn down"))
def main():
    print("said before")
    sys.exit({status})
run_program(main)
"""


@pytest.mark.parametrize(
    ("status", "code", "output", "errors"),
    [
        ("0", 0, "said before\ntorn down\n", ""),
        ("75", 75, "said before\n", ""),
        ("'a message'", 1, "said before\n", "a message\n"),
    ],
)
def test_after_an_error_nothing_is_torn_down(status, code, output, errors):
    """Threads of XLA and Arrow that still work would end the process with another status."""
    done = subprocess.run(
        [sys.executable, "-c", ENDS.format(status=status)],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, output, errors)


@pytest.mark.parametrize("arguments", [(), ("prepare",), ("prepare", "x", "--format", "xls")])
def test_a_wrong_command_line_has_status_2(monkeypatch, capsys, arguments):
    assert run(monkeypatch, *arguments) == 2


def test_help(monkeypatch, capsys):
    assert run(monkeypatch, "prepare", "--help") == 0
    assert "SOURCE" in capsys.readouterr().out


def test_train_is_a_command_with_the_settings_of_its_recipe(tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, "train", "ml_1m_two_tower", "--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "usage: bert4rec train [RECIPE]" in shown
    assert "runs/ml_1m_two_tower" in shown
    assert run(monkeypatch, "train", "no_such_recipe") == 2
    assert "there is no recipe 'no_such_recipe'; known are general" in capsys.readouterr().err
    missing = tmp_path / "none.csv"
    assert run(monkeypatch, "train", "--data.path", missing, "--workdir", tmp_path / "run") == 2
    assert f"{missing} does not exist" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_titles_that_the_terminal_cannot_show_are_no_error(tmp_path):
    """A log of a nightly job is often plain ASCII."""
    command = (
        "from bert4rec_jax.entry import run_command; run_command(lambda: print('№ 9, Amélie'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", command],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "? 9, Am?lie\n"), done.stderr


TOO_LARGE = """
import jax.numpy as jnp
from bert4rec_jax.entry import run_command
run_command(lambda: jnp.zeros(1 << 43).block_until_ready())
"""


def test_too_little_memory_on_a_device_is_one_clear_error():
    done = subprocess.run([sys.executable, "-c", TOO_LARGE], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: a device has not enough memory (")
    assert "choose smaller batches" in done.stderr and "Traceback" not in done.stderr
