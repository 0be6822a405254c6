"""Outputs appear whole or not at all."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from bert4rec_jax.config import Config
from bert4rec_jax.data.prepare import prepare
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.errors import TemporaryError, UserError
from bert4rec_jax.experiment.opening import open_setting
from bert4rec_jax.outputs import (
    require_folder_of,
    whole_file,
    whole_folder,
    write_arrays,
    write_json,
)
from bert4rec_jax.serving.bundle import Bundle
from bert4rec_jax.serving.request_file import RequestFile
from bert4rec_jax.serving.shards import Shards


def test_json_and_arrays_come_back(tmp_path):
    write_json(tmp_path / "a.json", {"x": [1, 2]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": [1, 2]}
    write_arrays(tmp_path / "a.npz", {"x": np.arange(3)})
    assert np.load(tmp_path / "a.npz")["x"].tolist() == [0, 1, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.npz"]


def test_a_pipe_or_a_device_is_not_replaced(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    for write in (require_folder_of, lambda path: write_json(path, {})):
        with pytest.raises(UserError, match="pipe is no regular file, and a file would take its"):
            write(path)
    assert path.is_fifo()


def test_a_link_to_a_file_stays(tmp_path):
    (tmp_path / "folder").mkdir()
    for target in ("old.json", "folder/new.json"):
        (tmp_path / "old.json").write_text("{}")
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to(target)
        write_json(tmp_path / "link", {"x": 1})
        assert (tmp_path / "link").is_symlink()
        assert json.loads((tmp_path / target).read_text()) == {"x": 1}
    assert sorted(path.name for path in tmp_path.rglob("*")) == (
        ["folder", "link", "new.json", "old.json"]
    )


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})
    with pytest.raises(UserError, match=r"cannot write .*a\.json: No space left"), whole_file(path):
        raise OSError(28, "No space left on device")
    assert json.loads(path.read_text()) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_folder_takes_its_place_when_it_is_whole(tmp_path):
    path = tmp_path / "a"
    for text in ("first", "second"):
        with whole_folder(path) as partial:
            (partial / "x").write_text(text)
            assert not path.exists() or (path / "x").read_text() == "first"
        assert (path / "x").read_text() == text
    full = pytest.raises(UserError, match=r"cannot write .*a: No space left.*nothing was changed")
    with full, whole_folder(path) as partial:
        (partial / "x").write_text("third")
        raise OSError(28, "No space left on device")
    assert (path / "x").read_text() == "second"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_path_in_latin_1_is_refused_before_anything_is_written(tmp_path):
    """Arrow and Orbax take paths in UTF-8 alone."""
    path = tmp_path / os.fsdecode(b"caf\xe9")
    message = r"the path b'.*/caf\\xe9.*' is not UTF-8 text, which Arrow and Orbax need; rename"
    log = tmp_path / "log.csv"
    log.write_text("user_id,item_id\nu,i\n")
    for use in (
        lambda: prepare(log, path / "store", min_user_interactions=1, min_item_interactions=1),
        lambda: prepare(log.rename(path.with_suffix(".parquet")), tmp_path / "store"),
        lambda: SequenceStore.open(path),
        lambda: Bundle.open(path),
        lambda: Shards(path, {}),
        lambda: RequestFile.open(path.with_suffix(".parquet")),
        lambda: open_setting(Config(workdir=str(path)), Console(quiet=True)),
    ):
        with pytest.raises(UserError, match=message):
            use()
        assert len(list(tmp_path.iterdir())) == 1


def test_two_at_once_do_not_touch_each_other(tmp_path):
    """As on two machines, whose processes may have the same number."""
    with whole_folder(tmp_path / "a") as first:
        (first / "x").write_text("first")
        with whole_folder(tmp_path / "a") as second:
            (second / "x").write_text("second")
        assert (tmp_path / "a" / "x").read_text() == "second"
    assert (tmp_path / "a" / "x").read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


KILLED = """
import os, signal, sys
from pathlib import Path
from bert4rec_jax import outputs
def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)
def kill_at_the_second(path, target, rename=Path.rename, renamed=[]):
    renamed.append(path)
    kill() if len(renamed) == 2 else rename(path, target)
if sys.argv[1] == "between":
    outputs._exchange = lambda one, other: False
    Path.rename = kill_at_the_second
else:
    outputs._replace = kill
with outputs.whole_folder(Path(sys.argv[2])) as partial:
    (partial / "x").write_text("new")
"""


def killed(path, moment):
    """A process that is killed before it replaces `path`, or between two renames."""
    command = [sys.executable, "-c", KILLED, moment, str(path)]
    assert subprocess.run(command, timeout=60).returncode == -signal.SIGKILL


@pytest.mark.parametrize("moment", ["before", "between"])
def test_what_killed_processes_left_is_cleared_and_the_earlier_folder_is_back(tmp_path, moment):
    path = tmp_path / "a[1]"
    with whole_folder(path) as partial:
        (partial / "x").write_text("first")
    killed(path, moment)
    assert len(list(tmp_path.iterdir())) == 2 and path.exists() == (moment == "before")
    with pytest.raises(KeyError), whole_folder(path):
        assert (path / "x").read_text() == "first"
        raise KeyError
    assert (path / "x").read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["a[1]"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a call of Linux")
def test_there_is_no_moment_without_the_folder(tmp_path, monkeypatch):
    path = tmp_path / "a"
    with whole_folder(path) as partial:
        (partial / "x").write_text("first")
    with whole_folder(path) as partial:
        (partial / "x").write_text("second")
        monkeypatch.delattr("pathlib.Path.rename")
    assert (path / "x").read_text() == "second"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_missing_folder_is_one_clear_error(tmp_path):
    with pytest.raises(UserError, match="cannot write") as error:
        write_json(tmp_path / "none" / "a.json", {})
    assert error.value.status == 2  # trying again does not help
    with pytest.raises(UserError, match=r"none is no folder to write a\.json to; make it first"):
        require_folder_of(tmp_path / "none" / "a.json")
    require_folder_of(tmp_path / "a.json")
    with pytest.raises(UserError, match="is a folder; give the name of a file to write"):
        require_folder_of(tmp_path)


def test_a_path_through_a_file_is_a_mistake_and_a_full_disk_is_not(tmp_path):
    (tmp_path / "file").write_text("")
    wrong = pytest.raises(UserError, match="Not a directory; choose another folder")
    with wrong as error, whole_folder(tmp_path / "file" / "a"):
        pass
    assert error.value.status == 2
    for full in (
        OSError(errno.ENOSPC, "No space left on device"),
        shutil.Error([("a", "b", "No space left on device"), ("c", "d", "the same")]),
        OSError("364544 requested and 120800 written"),  # what NumPy says of it
    ):
        refused = pytest.raises(TemporaryError, match="a: No space left on device; make room or")
        with refused, whole_folder(tmp_path / "a"):
            raise full
