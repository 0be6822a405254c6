"""Comparison of runs: figures by hand, groups of seeds, and files that are about other cases."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bert4rec_jax import cli
from bert4rec_jax.config import Config, to_json
from bert4rec_jax.data.split import Cases
from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation.bootstrap import SEED, differences, intervals
from bert4rec_jax.evaluation.rank_file import RankFile
from bert4rec_jax.evaluation.run_comparison import compare_runs
from bert4rec_jax.evaluation.seeds import RecordedRun, groups, label

RESULTS = Path(__file__).parents[2] / "results"
published = pytest.mark.skipif(not RESULTS.is_dir(), reason="results/ lies in the repository only")


@pytest.fixture
def make(five, tmp_path):
    """`make(name, seed=, dim=, BERT4Rec=[...])`: the folder of a run that was tested on 3 cases."""

    def recorded(
        name, *, seed=0, dim=8, times=False, sets=("test",), users=(0, 1, 2), back=1,
        drawn="users", **ranks,
    ):  # fmt: skip
        folder = tmp_path / name
        folder.mkdir()
        cases = Cases(np.array(users), five.store.offsets[np.array(users) + 1] - back, {})
        found = {model: np.array(answer) for model, answer in ranks.items()}
        file = RankFile.of(
            dict.fromkeys(sets, found),
            dict.fromkeys(sets, cases),
            five.store,
            drawn=dict.fromkeys(sets, drawn),
        )
        file.write(folder / "ranks.npz")
        config = to_json(Config(workdir=str(folder)))
        config["training"]["seed"], config["model"]["dim"] = seed, dim
        config["model"]["times"] = times
        metrics = {"config": config, "data": {"fingerprint": "f"}}
        (folder / "metrics.json").write_text(json.dumps(metrics))
        return folder

    return recorded


def test_figures_by_hand(make):
    first = make("first", BERT4Rec=[1, 2, 11], popular=[2, 4, 1])
    other = make("other", dim=16, BERT4Rec=[1, 1, 3])
    found = compare_runs([first, other], metrics=["hr@2", "ndcg@3", "mrr"], resamples=200)["test"]
    assert [row.model for row in found.rows] == ["BERT4Rec", "popular", "BERT4Rec"]
    assert [row.runs[0].path for row in found.rows] == [first, first, other]
    assert (found.cases, found.users, found.notes) == (3, 3, [])
    own = [{name: figure.own.mean for name, figure in row.figures.items()} for row in found.rows]
    assert own[0]["hr@2"] == own[1]["hr@2"] == own[2]["hr@2"] == pytest.approx(2 / 3)
    assert own[0]["ndcg@3"] == pytest.approx((1 + 1 / np.log2(3)) / 3)
    assert own[2]["mrr"] == pytest.approx((1 + 1 + 1 / 3) / 3)
    leads = [row.figures["mrr"].lead for row in found.rows]
    mine, theirs = {"mrr": 1 / np.array([1, 2, 11])}, {"mrr": 1 / np.array([1, 1, 3])}
    rng = np.random.default_rng(SEED)
    assert leads[0] is None and leads[2] == differences(mine, theirs, rng=rng, resamples=200)["mrr"]
    assert found.rows[0].figures["mrr"].deviation is None
    assert "array" not in repr(found.rows[0])


def test_seeds_are_one_group_by_their_mean_over_each_user(make):
    """Two seeds that are right about other users: their mean has no spread over users."""
    seeds = [make(f"seed_{n}", seed=n, BERT4Rec=r) for n, r in enumerate([[1, 99, 1], [99, 1, 1]])]
    other = make("other", dim=16, BERT4Rec=[99, 99, 99])
    found = compare_runs([*seeds, other], metrics=["hr@1"])["test"]
    model, rival = found.rows
    assert [run.seed for run in model.runs] == [0, 1]
    figure = model.figures["hr@1"]
    assert figure.of_seeds == pytest.approx((2 / 3, 2 / 3)) and figure.deviation == 0
    each = {"hr@1": np.array([0.5, 0.5, 1.0])}
    rng = np.random.default_rng(SEED)
    assert figure.own == intervals(each, rng=rng)["hr@1"]
    lead = rival.figures["hr@1"].lead
    assert (lead.mean, lead.low, lead.high) == (figure.own.mean, figure.own.low, figure.own.high)


def test_the_deviation_is_that_of_a_sample(make):
    seeds = [make(f"seed_{n}", seed=n, BERT4Rec=[1, 1, rank]) for n, rank in enumerate([1, 1, 99])]
    (row,) = compare_runs(seeds, metrics=["hr@1"])["test"].rows
    assert row.figures["hr@1"].deviation == pytest.approx(np.sqrt(3) / 9)  # of 1, 1 and 2/3


def test_groups(make):
    ranks = {"BERT4Rec": [1, 1, 1]}
    paths = [
        make(name, seed=seed, dim=dim, **ranks)
        for name, seed, dim in [
            ("a0", 0, 8), ("wide0", 0, 16), ("a1", 1, 8), ("again0", 0, 8), ("again1", 1, 8)
        ]
    ]  # fmt: skip
    file = paths[2] / "metrics.json"
    values = json.loads(file.read_text())
    values["config"].setdefault("training", {})["save_every"] = 7  # of no effect
    file.write_text(json.dumps(values))
    bare = make("bare", **ranks)
    (bare / "metrics.json").unlink()
    found = groups([RecordedRun.open(path) for path in [*paths, bare]])
    names = [[run.path.name for run in group] for group in found]
    assert names == [["a0", "a1"], ["wide0"], ["again0", "again1"], ["bare"]]
    assert label(found[0]).endswith("/a* (seeds 0, 1)") and label(found[3]) == str(bare)


@pytest.mark.parametrize(
    ("field", "value", "together"),
    [
        ("save_every", 7, True),
        ("keep", 5, True),
        ("log_every", 3, True),
        ("steps_at_once", 4, True),
        ("patience", 2, False),  # decides when training stops, and so what is tested
        ("evaluate_every", 2, False),
    ],
)
def test_seeds_share_all_settings_that_change_results(make, field, value, together):
    paths = [make(f"seed_{seed}", seed=seed, BERT4Rec=[1, 1, 1]) for seed in (0, 1)]
    file = paths[1] / "metrics.json"
    values = json.loads(file.read_text())
    values["config"]["training"][field] = value
    file.write_text(json.dumps(values))
    found = groups([RecordedRun.open(path) for path in paths])
    assert len(found) == (1 if together else 2)


def test_a_model_that_only_some_seeds_have(make):
    first = make("seed_0", seed=0, BERT4Rec=[1, 1, 1], popular=[1, 2, 3])
    second = make("seed_1", seed=1, BERT4Rec=[1, 1, 2])
    rows = compare_runs([first, second], metrics=["mrr"])["test"].rows
    assert [(row.model, len(row.runs)) for row in rows] == [("BERT4Rec", 2), ("popular", 1)]


def test_a_copy_leads_by_exactly_nothing(make):
    found = compare_runs([make("one", BERT4Rec=[1, 5, 9]), make("two", BERT4Rec=[1, 5, 9])])
    lead = found["test"].rows[1].figures["ndcg@10"].lead
    assert (lead.mean, lead.low, lead.high) == (0, 0, 0)


def test_baselines_that_answer_the_same_are_shown_once(make):
    first = make("first", BERT4Rec=[1, 2, 9], popular=[2, 4, 1], knn=[1, 1, 1])
    other = make("other", dim=16, BERT4Rec=[1, 2, 9], popular=[2, 4, 1], knn=[1, 1, 2])
    rows = compare_runs([first, other])["test"].rows
    assert [(row.model, row.runs[0].path.name) for row in rows] == [
        ("BERT4Rec", "first"), ("popular", "first"), ("knn", "first"),
        ("BERT4Rec", "other"), ("knn", "other"),
    ]  # fmt: skip


def test_a_baseline_that_answers_otherwise_for_one_seed_is_shown(make):
    make_run = {"BERT4Rec": [1, 2, 9]}
    a0 = make("a0", seed=0, knn=[1, 1, 1], **make_run)
    a1 = make("a1", seed=1, knn=[9, 9, 9], **make_run)
    b0 = make("b0", dim=16, knn=[1, 1, 1], **make_run)
    c0 = make("c0", dim=32, knn=[1, 1, 1], **make_run)
    rows = compare_runs([a0, a1, b0, c0], metrics="mrr")["test"].rows
    assert [row.figures["mrr"].own.mean for row in rows if row.model == "knn"] == [
        pytest.approx((1 + 1 / 9) / 2), 1,
    ]  # fmt: skip


def test_a_user_with_two_questions_is_drawn_with_both(make):
    run = make("run", users=(0, 0, 1), BERT4Rec=[1, 99, 1])
    found = compare_runs([run], metrics=["hr@1"])["test"]
    assert (found.cases, found.users) == (3, 2)
    each = {"hr@1": np.array([1.0, 0.0, 1.0])}
    expected = intervals(each, rng=np.random.default_rng(SEED), users=[0, 0, 1])
    assert found.rows[0].figures["hr@1"].own == expected["hr@1"]


def test_where_the_runs_drew_target_items_the_comparison_does(make, monkeypatch, capsys):
    """Cases of two users with one target are one unit, wherever the other file draws."""
    run = make("run", drawn="items", sets=("test_cold",), BERT4Rec=[1, 99, 1])
    other = make("other", dim=16, sets=("test_cold",), BERT4Rec=[1, 1, 99])
    with np.load(run / "ranks.npz") as file:
        arrays = dict(file)
    assert sorted(arrays["test_cold/drawn_items"]) == [0, 1, 2]
    arrays["test_cold/drawn_items"] = np.array([0, 0, 1])
    np.savez(run / "ranks.npz", **arrays)
    found = compare_runs([run, other], metrics=["hr@1"])["test_cold"]
    assert found.drawn == "items" and found.to_json()["interval_over"] == "items"
    each, theirs = {"hr@1": np.array([1.0, 0.0, 1.0])}, {"hr@1": np.array([1.0, 1.0, 0.0])}
    units = {"rng": np.random.default_rng(SEED), "users": ["a", "a", "b"]}
    assert found.rows[0].figures["hr@1"].own == intervals(each, **units)["hr@1"]
    units["rng"] = np.random.default_rng(SEED)
    assert found.rows[1].figures["hr@1"].lead == differences(each, theirs, **units)["hr@1"]
    monkeypatch.setattr("bert4rec_jax.entry.tune_memory", lambda: None)
    monkeypatch.setattr(sys, "argv", ["bert4rec", "compare", str(run), str(other)])
    cli.main()
    assert "bootstrap interval over target items" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        ({"users": (0, 1), "BERT4Rec": [1, 1]}, "2 cases instead of 3"),
        ({"users": (1, 0, 2)}, "other users, or the same in another order"),
        ({"back": 2}, "other targets"),
    ],
)
def test_other_cases_are_refused(make, other, difference):
    first = make("first", BERT4Rec=[1, 1, 1])
    second = make("second", **{"BERT4Rec": [1, 1, 1], **other})
    with pytest.raises(UserError, match=f"second has other cases .*'test': {difference}"):
        compare_runs([first, second])


def test_the_same_cases_in_another_order_are_put_in_order(make):
    first = make("first", BERT4Rec=[1, 2, 11], popular=[2, 4, 1])
    second = make("second", users=(2, 0, 1), counted=[1, 2, 4], dim=16)
    change(second, cases_sha256=None)  # as another program writes it
    found = compare_runs([first, second], metrics=["mrr"])["test"]
    popular, same = (row.figures["mrr"] for row in found.rows[1:])
    assert same == popular
    assert "only its users and targets were compared" in found.notes[0]


def test_models_that_know_the_time_of_the_request_are_told_from_others(make):
    without, knowing = (make(str(x), times=x, BERT4Rec=[1, 1, 1]) for x in (False, True))
    (note,) = compare_runs([without, knowing])["test"].notes
    assert note.startswith(f"{knowing}: the model knows the time of the request (model.times)")
    again = make("again", times=True, dim=16, BERT4Rec=[1, 1, 1])
    assert compare_runs([knowing, again])["test"].notes == []
    (without / "metrics.json").unlink()  # as another program writes ranks
    assert compare_runs([without, knowing])["test"].notes == []


def change(folder, **arrays):
    """Write the ranks anew, with other arrays; None leaves one out."""
    with np.load(folder / "ranks.npz") as file:
        kept = {name: values for name, values in file.items()}
    kept |= {f"test/{name}": values for name, values in arrays.items()}
    np.savez(folder / "ranks.npz", **{n: v for n, v in kept.items() if v is not None})


def test_other_histories_are_refused(make):
    first, second = (make(name, BERT4Rec=[1, 1, 1]) for name in ("first", "second"))
    change(second, cases_sha256=np.array("other"))
    with pytest.raises(UserError, match="'test': other histories, or another catalog"):
        compare_runs([first, second])


def test_settings_that_make_other_cases_are_named(make):
    first, second = (make(name, BERT4Rec=[1, 1, 1]) for name in ("first", "second"))
    change(second, cases_sha256=np.array("other"))
    file = second / "metrics.json"
    metrics = json.loads(file.read_text())
    metrics["config"]["data"]["repeats"] = True
    file.write_text(json.dumps(metrics))
    with pytest.raises(UserError, match=r"catalog \(data\.repeats False there, True here\)\. Comp"):
        compare_runs([first, second])


def test_files_that_say_less_are_compared_by_what_they_say(make):
    first, second = (make(name, BERT4Rec=[1, 1, 1]) for name in ("first", "second"))
    gone = dict.fromkeys(("cases_sha256", "user_ids", "item_ids"))
    change(second, **gone, users=np.arange(3))
    (note,) = compare_runs([first, second])["test"].notes
    assert "second: only its users and targets were compared with those of" in note
    change(second, rows=np.arange(3))
    with pytest.raises(UserError, match="'test': other targets"):
        compare_runs([first, second])
    change(second, rows=None, targets=None)
    (note,) = compare_runs([first, second])["test"].notes
    assert "second: only its order of cases and numbers of users, which say nothing" in note
    change(second, users=np.arange(3)[::-1])
    with pytest.raises(UserError, match="'test': other users"):
        compare_runs([first, second])


def test_a_file_of_another_program_has_ids(make):
    first, second = make("first", BERT4Rec=[1, 1, 1]), make("second", theirs=[2, 2, 2])
    with np.load(second / "ranks.npz") as file:
        kept = {name: file[f"test/{name}"] for name in ("user_ids", "item_ids", "theirs")}
    named = {f"test/{name}": values for name, values in kept.items()}
    named["test/user_ids"] = named["test/user_ids"].astype(int)
    np.savez(second / "ranks.npz", **named)
    (second / "metrics.json").write_text('{"data": "mine", "config": {"data": "mine"}}')
    found = compare_runs([first, second])["test"]
    assert [row.model for row in found.rows] == ["BERT4Rec", "theirs"]
    change(first, **dict.fromkeys(("user_ids", "item_ids", "cases_sha256")))
    with pytest.raises(UserError, match="nothing to compare them by; write user_ids and item_ids"):
        compare_runs([first, second])


def test_only_shared_sets_are_compared(make):
    first = make("first", sets=("test", "test_first"), BERT4Rec=[1, 1, 1])
    second = make("second", sets=("test_first",), BERT4Rec=[1, 1, 1])
    assert list(compare_runs([first, second])) == ["test_first"]
    change(first, mine=np.ones(3, int))  # in test alone
    with pytest.raises(UserError, match="no run has a model 'mine' in test_first; there are BERT"):
        compare_runs([first, second], models="mine")
    third = make("third", BERT4Rec=[1, 1, 1])
    with pytest.raises(UserError, match=r"no test set is in all files \(.*second: test_first; "):
        compare_runs([second, third])


def test_runs_are_compared_on_validation_without_a_test(make, monkeypatch, capsys):
    first, other = make("first", BERT4Rec=[1, 2, 3]), make("other", dim=16, BERT4Rec=[1, 3, 3])
    for folder, ranks in ((first, [2, 2, 2]), (other, [1, 1, 1])):
        asked = RankFile.read(folder / "ranks.npz").sets["test"]
        found = RankFile({"validation": replace(asked, ranks={"BERT4Rec": np.array(ranks)})})
        found.write(folder / "validation_ranks.npz")
        (folder / "ranks.npz").unlink()
    compared = compare_runs([first, other], metrics="mrr", validation=True)
    assert list(compared) == ["validation"]
    figures = [row.figures["mrr"] for row in compared["validation"].rows]
    assert (figures[0].own.mean, figures[1].own.mean, figures[1].lead.mean) == (0.5, 1, -0.5)
    command = ["bert4rec", "compare", str(first), str(other), "--validation"]
    monkeypatch.setattr(sys, "argv", command)
    cli.main()
    assert "validation" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"first holds no ranks\.npz; .* --validation compares"):
        compare_runs([first, other])
    make("tested", BERT4Rec=[1, 2, 3])
    with pytest.raises(UserError, match=r"ranks\.npz holds ranks of test and none of validation"):
        compare_runs([first, first.parent / "tested" / "ranks.npz"], validation=True)
    (other / "validation_ranks.npz").write_text("junk")
    with pytest.raises(UserError, match=r"is no \.npz file; the training command .*no-test"):
        compare_runs([first, other], validation=True)
    (other / "validation_ranks.npz").unlink()
    with pytest.raises(UserError, match=r"other holds no validation_ranks\.npz; .*evaluation\.no-"):
        compare_runs([first, other], validation=True)


def test_what_is_asked_for_has_to_be_there(make, tmp_path):
    run = make("run", BERT4Rec=[1, 1, 1])
    for metric in ("recall@10", "ndcg", "hr@0", "hr@1.5"):
        with pytest.raises(UserError, match=f"'{metric}' is no metric; expected hr@K or ndcg@K"):
            compare_runs([run], metrics=[metric])
    with pytest.raises(UserError, match="no run has a model 'popular' in test; there are BERT4Rec"):
        compare_runs([run], models="popular")
    with pytest.raises(UserError, match="no metric is named; give one or more"):
        compare_runs([run], metrics=[])
    for name, wrong in (("metrics", None), ("metrics", [10]), ("models", None)):
        with pytest.raises(UserError, match=f"^{name} is .*; expected text, or a list of texts"):
            compare_runs([run], **{name: wrong})
    with pytest.raises(UserError, match="paths is of type NoneType; expected folders of runs, or"):
        compare_runs(None)
    with pytest.raises(UserError, match="one of paths is of type int; expected the path of a file"):
        compare_runs([run, 5])
    for resamples, expected in ((0, "at least 1"), (99.5, "a whole number")):
        with pytest.raises(UserError, match=f"resamples is {resamples}; expected {expected}"):
            compare_runs([run], resamples=resamples)
    assert compare_runs(run, metrics="mrr").keys() == {"test"}
    with pytest.raises(UserError, match=r"ranks\.npz is given twice; leave one out"):
        compare_runs([run, run / "ranks.npz"])
    with pytest.raises(UserError, match="no run to compare"):
        compare_runs([])
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="log is prepared data or a bundle, and no run; give"):
        compare_runs([tmp_path / "log"])
    (run / "manifest.json").write_text("{}")  # of some other program
    assert compare_runs(run).keys() == {"test"}
    (run / "manifest.json").unlink()
    with pytest.raises(UserError, match="none is not there"):
        compare_runs([tmp_path / "none"])
    for name, content, message in (
        ("log.csv", b"user,item", r"log\.csv is no \.npz file; save its arrays with numpy\.savez"),
        ("ranks.npz", b"", r"ranks\.npz is no \.npz file; `bert4rec evaluate"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=message):
            compare_runs(tmp_path / name)
    for arrays, message in (
        ({"test/m": np.int32(3)}, r"test/user_ids has shape \(0,\); expected a value for each of"),
        ({"test/m": np.int32(3), "test/user_ids": np.array(["u"])}, r"test/m has shape \(\); expe"),
    ):
        np.savez(tmp_path / "own.npz", **{"test/user_ids": np.zeros(0, "U1"), **arrays})
        with pytest.raises(UserError, match=message):
            compare_runs(tmp_path / "own.npz")
    (run / "ranks.npz").unlink()
    with pytest.raises(
        UserError, match=r"run holds no ranks\.npz; .*bert4rec evaluate .*run` tests"
    ):
        compare_runs([run])


def test_the_command_shows_tables_and_writes_json(make, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("bert4rec_jax.entry.tune_memory", lambda: None)
    seeds = [make(f"seed_{n}", seed=n, BERT4Rec=[1, 1, 1 + n], popular=[9, 9, 9]) for n in (0, 1)]
    other = make("other", dim=16, BERT4Rec=[2, 2, 2])
    arguments = [*seeds, other, "--model", "BERT4Rec", "--metric", "mrr", "ndcg@3"]
    output = tmp_path / "compared.json"
    monkeypatch.setattr(
        sys, "argv", ["bert4rec", "compare", *map(str, arguments), "--output", str(output)]
    )
    cli.main()
    shown = capsys.readouterr().out
    for part in ("test: 3 users", "MRR", "NDCG@3 by", "0.9167 ±.1179", "(seeds 0, 1)", "+0.4167"):
        assert part in shown
    assert "popular" not in shown
    model, rival = json.loads(output.read_text())["test"]["models"]
    assert model["seeds"] == [0, 1] and model["mrr"]["of_seeds"] == [1.0, 0.833333]
    assert rival["runs"] == [str(other)] and rival["mrr"]["lead"] == 0.416667


def test_groups_that_begin_alike_are_told_apart(make, monkeypatch, capsys):
    monkeypatch.setattr("bert4rec_jax.entry.tune_memory", lambda: None)
    runs = [
        make(f"run_{n}", seed=n % 2, dim=8 * (1 + n // 2), BERT4Rec=[1, 1, n + 1]) for n in range(4)
    ]
    monkeypatch.setattr(sys, "argv", ["bert4rec", "compare", *map(str, runs), "--metric", "mrr"])
    cli.main()
    shown = "".join(capsys.readouterr().out.split())
    for number, (one, two) in enumerate((runs[:2], runs[2:]), start=1):
        assert f"run{number}:{one},{two}" in shown and f"run{number}." in shown


def test_the_command_fits_into_80_columns(make, monkeypatch, capsys):
    """Three metrics are two tables, each with the names of its models."""
    monkeypatch.setattr("bert4rec_jax.entry.tune_memory", lambda: None)
    monkeypatch.setenv("COLUMNS", "80")
    runs = [make(f"seed_{n}", seed=n, BERT4Rec=[1, 1, 1 + n]) for n in (0, 1)]
    arguments = [*map(str, runs), "--metric", "ndcg@10", "hr@7", "mrr"]
    monkeypatch.setattr(sys, "argv", ["bert4rec", "compare", *arguments])
    cli.main()
    shown = capsys.readouterr().out
    assert shown.count("BERT4Rec") == 2 and "…" not in shown
    missing = runs[0] / "none" / "c.json"
    monkeypatch.setattr(sys, "argv", ["bert4rec", "compare", *arguments, "--output", str(missing)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert "none is no folder to write c.json to" in capsys.readouterr().err


@pytest.mark.parametrize("columns", ["79", "60", "30"])
def test_narrow_terminals_have_the_names_of_the_models_and_whole_figures(
    make, monkeypatch, capsys, columns
):
    monkeypatch.setattr("bert4rec_jax.entry.tune_memory", lambda: None)
    monkeypatch.setenv("COLUMNS", columns)
    runs = [make(f"seed_{n}", seed=n, BERT4Rec=[1, 1, 1 + n]) for n in (0, 1)]
    monkeypatch.setattr(sys, "argv", ["bert4rec", "compare", *map(str, runs)])
    cli.main()
    shown = capsys.readouterr().out
    assert shown.count("BERT4Rec") == 2 and "…" not in shown


@published
def test_the_published_comparison_with_another_library():
    files = ["movietweetings/seed_0.npz", "rectools/leave_one_out.npz"]
    found = compare_runs([RESULTS / name for name in files])["test"]
    shown = {row.model: row.figures["ndcg@10"] for row in found.rows}
    theirs, alone = shown["RecTools SASRec"], shown["BERT4Rec alone"]
    assert theirs.own.mean == pytest.approx(0.139, abs=5e-4)
    assert (theirs.own.low, theirs.own.high) == pytest.approx((0.132, 0.146), abs=5e-4)
    assert (theirs.lead.low, theirs.lead.high) == pytest.approx((0.009, 0.018), abs=5e-4)
    assert (alone.lead.low, alone.lead.high) == pytest.approx((0.006, 0.013), abs=5e-4)


@published
def test_the_published_seeds_are_one_group():
    seeds = [RESULTS / f"movietweetings/seed_{seed}.npz" for seed in range(3)]
    (row,) = compare_runs(seeds, models=["BERT4Rec"])["test"].rows
    figure = row.figures["hr@10"]
    assert (figure.own.mean, figure.deviation) == pytest.approx((0.265, 0.002), abs=5e-4)
