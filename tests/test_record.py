"""What a benchmark records is about this repository, wherever it is called."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="the repository is not there")
def test_the_commit_is_that_of_the_benchmarks(tmp_path, monkeypatch):
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    head = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    import pipeline
    import record

    assert record._git("rev-parse", "--short", "HEAD") == pipeline._commit() == head
