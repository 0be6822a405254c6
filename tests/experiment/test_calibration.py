"""Calibration tells how a long search goes."""

import io
from types import SimpleNamespace

from rich.console import Console

from bert4rec_jax.experiment import calibration


def test_a_long_search_tells_how_it_goes(monkeypatch):
    """Ten seconds a setting, and a line every fifteen at most."""
    now = SimpleNamespace(seconds=0.0)
    clock = SimpleNamespace(monotonic=lambda: now.seconds)
    monkeypatch.setattr(calibration, "time", clock)
    console = Console(file=io.StringIO())

    def evaluate(tried):
        now.seconds += 10
        return tried / 100

    evaluate_and_tell = calibration._telling(evaluate, console)
    assert [evaluate_and_tell(value) for value in (1, 3, 2, 0, 5)] == [0.01, 0.03, 0.02, 0, 0.05]
    assert console.file.getvalue().splitlines() == [
        "  2 settings tried; the best so far has 0.0300",
        "  4 settings tried; the best so far has 0.0300",
    ]
