"""A trial that is the best in both ways is tested once, as the ledger is to show."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.skipif(not FOLDER.is_dir(), reason="benchmarks/ lies in the repository only")
def test_the_best_trial_is_tested_once(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(FOLDER))
    import same_grid

    tested = []

    def run(config):
        number = int(config.workdir[-1])
        found = {"BERT4Rec": {"ndcg@10": number / 10}}
        if config.evaluation.test:
            tested.append(number)
        return {"validation": found, "test": found, "seconds": 1}

    monkeypatch.setattr(same_grid.protocol, "run", run)
    same_grid.main(tmp_path, trials=(0, 1, 2), test=True)
    assert tested == [2]
    assert capsys.readouterr().out.count('"test": {"test": 0.2}') == 2
