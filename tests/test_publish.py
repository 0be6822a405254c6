"""Published files have the name that was asked for."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "publish.py"


@pytest.mark.skipif(not SCRIPT.is_file(), reason="benchmarks/ lies in the repository only")
def test_a_name_may_have_dots(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    data = {"path": "data/movies", "content": "", "users": ""}
    config = {"training": {"seed": 1}, "workdir": str(run), "data": data}
    config["init_from"] = str(tmp_path / "earlier")
    (run / "metrics.json").write_text(json.dumps({"config": config}))
    np.savez(run / "ranks.npz", **{"test/model": np.ones(2, int), "test/user_ids": np.zeros(2)})
    for rate in ("0.1", "0.2"):
        said = ["--command", "train", "--commit", "c0ffee"]
        target = str(tmp_path / f"rate_{rate}")
        subprocess.run([sys.executable, str(SCRIPT), str(run), target, *said], check=True)
    made = sorted(file.name for file in tmp_path.glob("rate_*"))
    assert made == ["rate_0.1.json", "rate_0.1.npz", "rate_0.2.json", "rate_0.2.npz"]
    with np.load(tmp_path / "rate_0.1.npz") as ranks:
        assert ranks.files == ["test/model"]
    published = json.loads((tmp_path / "rate_0.1.json").read_text())["config"]
    assert (published["workdir"], published["init_from"]) == ("run", "earlier")
