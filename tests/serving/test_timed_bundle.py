"""Bundles of models that read times: the evaluator's scores, whichever way times are given."""

import datetime
import json
import shutil
from dataclasses import replace

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import L
from oracle import evaluated
from rich.console import Console
from sample import interactions

from bert4rec_jax.cli.explain import explain as explain_command
from bert4rec_jax.cli.rank import rank as rank_command
from bert4rec_jax.cli.recommend import recommend as recommend_command
from bert4rec_jax.config import (
    Config,
    DataConfig,
    EvaluationConfig,
    MaskingConfig,
    ModelConfig,
    TrainingConfig,
    from_json,
)
from bert4rec_jax.data.batch import SECONDS_PER_DAY
from bert4rec_jax.data.split import leave_one_out
from bert4rec_jax.data.store import SequenceStore, write_store
from bert4rec_jax.errors import UserError
from bert4rec_jax.experiment import protocol
from bert4rec_jax.features.build import build, training_items
from bert4rec_jax.features.options import Options
from bert4rec_jax.features.sources import Sources
from bert4rec_jax.report.evidence import gather
from bert4rec_jax.serving.add_items import add_items
from bert4rec_jax.serving.evaluation import rank_cases
from bert4rec_jax.serving.explanation import both_sides, explain
from bert4rec_jax.serving.export import read_run, write_bundle
from bert4rec_jax.serving.job import rank_file
from bert4rec_jax.serving.pipeline import write_pipeline
from bert4rec_jax.serving.scorer import load
from bert4rec_jax.serving.times import moment_of
from bert4rec_jax.serving.worker import Options as RankOptions
from bert4rec_jax.training.run_record import read_config

QUIET = Console(quiet=True)
BEGIN = 15_000  # days since 1970
TABLE = [
    {"item_id": str(item), "genres": ["War", "Drama"][item % 2],
     "release_date": str(datetime.date(1970, 1, 1) + datetime.timedelta(days=BEGIN + 3 * item - 9))}
    for item in range(0, 40, 2)
]  # fmt: skip


@pytest.fixture(scope="module")
def log(store, once):
    """The walk of the other tests, with steps of some seconds to some days."""

    def make(folder):
        generator = np.random.default_rng(0)
        rows = []
        for user, (start, stop) in enumerate(zip(store.offsets, store.offsets[1:])):
            steps = generator.choice([0, 20, 4_000, 90_000, 400_000], int(stop - start))
            times = BEGIN * SECONDS_PER_DAY + 7_777 * user + np.cumsum(steps)
            for row, time in zip(range(start, stop), times):
                item = store.catalog.item_id(int(store.tokens[row]))
                rows.append((str(user), item, int(time), float(store.ratings[row])))
        write_store(interactions(rows).in_time_order(), folder / "store", titles={}, source={})

    return SequenceStore.open(once("timed_log", make) / "store")


@pytest.fixture(scope="module")
def run(log, once):
    """A run whose model reads times and knows when half of its items were released."""

    def make(folder):
        (folder / "films.jsonl").write_text("\n".join(map(json.dumps, TABLE)))
        sources = Sources(metadata=folder / "films.jsonl", id_column="item_id")
        build(log, folder / "content", fitted=training_items(log), sources=sources,
              options=Options(min_count=1))  # fmt: skip

    content = once("timed_content", make) / "content"
    config = Config(
        data=DataConfig(path=str(log.path), max_length=L, content=str(content)),
        model=ModelConfig(
            dim=8, heads=2, layers=2, ffn_dim=16, init_scale=0.5, dropout=0.0, thumbs=True,
            times=True,
        ),
        masking=MaskingConfig(last_only=0.5),
        training=TrainingConfig(epochs=2, batch_size=16, evaluate_every=1),
        evaluation=EvaluationConfig(batch_size=64, bootstrap=100, baselines=False),
    )  # fmt: skip

    def train(folder):
        protocol.run(replace(config, workdir=str(folder / "run")), recipe="times", console=QUIET)

    return once("timed_run", train) / "run"


@pytest.fixture(scope="module")
def trained(run):
    return read_run(run, console=QUIET)


@pytest.fixture(scope="module")
def bundle(trained, once):
    made = once("timed_bundle", lambda folder: write_bundle(trained, folder / "bundle"))
    return made / "bundle"


@pytest.fixture(scope="module")
def scorer(bundle):
    return load(bundle, batch_size=16, devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def cases(log):
    return leave_one_out(log).test["test"]


def asked(log, case, cases):
    """The ids, ratings and times of a case's history, and the time of its target."""
    rows = range(int(log.offsets[cases.users[case]]), int(cases.rows[case]))
    return (
        [log.catalog.item_id(int(log.tokens[row])) for row in rows],
        [float(log.ratings[row]) for row in rows],
        [int(log.timestamps[row]) for row in rows],
        int(log.timestamps[cases.rows[case]]),
    )


def recommended(scorer, log, case, cases, **changes):
    ids, ratings, times, at = asked(log, case, cases)
    options = {"ratings": ratings, "timestamps": times, "request_time": at, **changes}
    return scorer.recommend(ids, 5, **options)


def test_ranks_and_lists_are_those_of_the_evaluator(trained, scorer, log, cases):
    expected = evaluated(trained, log, cases)
    np.testing.assert_array_equal(rank_cases(scorer, log, cases), expected.ranks)
    for case in range(0, len(cases), 5):
        best = [log.catalog.item_id(int(token)) for token in expected.top[case][:5]]
        assert list(recommended(scorer, log, case, cases).item_ids) == best
    kept = scorer.bundle.manifest
    until = leave_one_out(log).train_stop - 1
    assert kept["trained_until"] == log.timestamps[until].max()
    assert kept["functions"]["top_k"]["arguments"]["times"] == "uint32[b,l]"
    assert kept["functions"]["attend"]["arguments"].keys() == {"tokens", "thumbs", "slots", "times"}


def test_times_matter(scorer, log, cases):
    first = recommended(scorer, log, 0, cases)
    later = recommended(scorer, log, 0, cases, request_time=asked(log, 0, cases)[3] + 10**6)
    slower = recommended(scorer, log, 0, cases, timestamps=None)
    assert first.scores != later.scores != slower.scores != first.scores


def test_unknown_times_are_those_of_the_request_and_of_the_end_of_training(scorer, log, cases):
    ids, _, _, at = asked(log, 3, cases)
    until = scorer.bundle.trained_until
    end = recommended(scorer, log, 3, cases, timestamps=None, request_time=None)
    same = [until] * len(ids)
    assert end == recommended(scorer, log, 3, cases, timestamps=same, request_time=until)
    nothing = recommended(scorer, log, 3, cases, timestamps=[None] * len(ids))
    assert nothing == recommended(scorer, log, 3, cases, timestamps=[at] * len(ids))
    date = datetime.datetime.fromtimestamp(at, datetime.UTC)
    of_numpy = np.datetime64(date.replace(tzinfo=None), "ns")
    for time in (date, date.replace(tzinfo=None), str(date), date.isoformat(), of_numpy):
        assert recommended(scorer, log, 3, cases, request_time=time) == recommended(
            scorer, log, 3, cases
        )


def test_times_of_a_history_have_to_ascend(bundle, scorer, log, cases, tmp_path):
    """Unknown ones and equal ones do no harm; the message says what goes back."""
    ids, _, times, _ = asked(log, 0, cases)
    later = times[-1] + 60
    for given in ([times[0], None, *[times[0]] * (len(ids) - 2)], times):
        assert recommended(scorer, log, 0, cases, timestamps=given).item_ids
    wrong = [None, later, None, *times[3:]]
    message = rf"timestamps go back from {later} \(2011-\S+ \S+\) to {times[3]} \(2011-"
    with pytest.raises(UserError, match=rf"^history: {message}.*sort both by time"):
        recommended(scorer, log, 0, cases, timestamps=wrong)
    with pytest.raises(UserError, match=message):
        explain(scorer, ids, timestamps=wrong)
    table = requests_of(log, cases, 3)
    rows = table["timestamps"].to_pylist()
    table = table.set_column(3, "timestamps", pa.array([*rows[1:], wrong]))
    histories = table["history"].to_pylist()
    table = table.set_column(1, "history", pa.array([*histories[1:], ids]))
    table = table.drop_columns("ratings")
    pq.write_table(table, tmp_path / "in.parquet")
    with pytest.raises(UserError, match=rf"in.parquet, row 2: {message}"):
        rank_file(bundle, tmp_path / "in.parquet", tmp_path / "out")


def test_what_was_seen_after_the_request_counts_as_seen_then(
    bundle, scorer, log, cases, tmp_path, capsys
):
    times = asked(log, 0, cases)[2]
    at = times[-3]
    found = recommended(scorer, log, 0, cases, request_time=at)
    then = [min(time, at) for time in times]
    assert found == recommended(scorer, log, 0, cases, timestamps=then, request_time=at)
    table = requests_of(log, cases, 1, request_time=[at])
    pq.write_table(table, tmp_path / "in.parquet")
    rank_command(bundle, requests=tmp_path / "in.parquet", output=tmp_path / "out", top=5)
    assert (
        "of them seen after the time of the request, read as seen then" in capsys.readouterr().out
    )
    manifest = json.loads((tmp_path / "out" / "_manifest.json").read_text())
    assert manifest["counts"]["later_history_items"] == sum(time > at for time in times)
    row = pq.read_table(tmp_path / "out").to_pylist()[0]
    assert row["item_ids"] == list(found.item_ids)


def test_a_request_without_a_time_is_made_after_its_history(scorer, log, cases, bundle, tmp_path):
    ids, _, _, _ = asked(log, 3, cases)
    end = scorer.bundle.trained_until + 10**6
    times = [None, *range(end - len(ids) + 2, end), end]
    found = recommended(scorer, log, 3, cases, timestamps=times, request_time=None)
    assert found == recommended(scorer, log, 3, cases, timestamps=times, request_time=end)
    until = scorer.bundle.trained_until
    assert found != recommended(scorer, log, 3, cases, timestamps=times, request_time=until)


def test_an_item_that_the_model_does_not_know_is_left_out_with_its_time(scorer, log, cases):
    ids, ratings, _, at = asked(log, 2, cases)
    place = len(ids) - 3
    ago = [*range(200 + len(ids), 203, -1), 200, 2, 1]  # days
    times = [at - days * SECONDS_PER_DAY for days in ago]
    bundle = replace(scorer.bundle)
    vars(bundle)["known"] = scorer.bundle.known.copy()
    bundle.known[scorer.catalog.token(ids[place])] = False

    def vector(ranker, kept):
        history, stars, moments = ([[row[i] for i in kept]] for row in (ids, ratings, times))
        return ranker.user_vectors(
            scorer.requests(history, ratings=stars, timestamps=moments, request_time=at)
        )

    every = range(len(ids))
    found = vector(replace(scorer.ranker, bundle=bundle), every)
    expected = vector(scorer.ranker, [i for i in every if i != place])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_late_requests_of_a_file_are_counted(bundle, scorer, log, cases, tmp_path):
    late = scorer.bundle.trained_until + 60 * SECONDS_PER_DAY
    table = requests_of(log, cases, 3, request_time=[late, late + 1, None])
    pq.write_table(table, tmp_path / "in.parquet")
    counts = rank_file(bundle, tmp_path / "in.parquet", tmp_path / "out")["counts"]
    assert counts["late_requests"] == 1


def test_the_job_is_refused_before_any_work_if_its_time_is_too_early(bundle, log, cases, tmp_path):
    pq.write_table(requests_of(log, cases, 1), tmp_path / "in.parquet")
    with pytest.raises(UserError, match=r"the time of the request is .* before the log that the"):
        rank_file(bundle, tmp_path / "in.parquet", tmp_path / "out",
                  RankOptions(request_time="2010-12-31"))  # fmt: skip


def test_a_bundle_of_before_may_be_asked_for_any_time(bundle, log, cases, tmp_path):
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest.pop("trained_from") == log.timestamps.min()
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    (copy / "manifest.json").write_text(json.dumps(manifest))
    old = load(copy, batch_size=16, devices=jax.devices()[:1])
    assert recommended(old, log, 0, cases, request_time="2010-12-31").item_ids


def requests_of(log, cases, count, **columns):
    rows = [asked(log, case, cases) for case in range(count)]
    ids, ratings, times, at = (list(part) for part in zip(*rows))
    kind = columns.pop("kind", None)
    table = {
        "user_id": [str(case) for case in range(count)],
        "history": ids,
        "ratings": ratings,
        "timestamps": pa.array(times, pa.list_(kind)) if kind else times,
        "request_time": pa.array(at, kind) if kind else at,
    }
    return pa.table({**table, **columns})


@pytest.mark.parametrize("kind", [None, pa.timestamp("s"), pa.timestamp("ms", "Asia/Tokyo")])
def test_a_file_gets_the_lists_of_single_requests(bundle, scorer, log, cases, tmp_path, kind):
    table = requests_of(log, cases, 12)
    if kind is not None:  # the same moments
        times = table["timestamps"].combine_chunks()
        values = times.values.cast(pa.timestamp("s", kind.tz)).cast(kind)
        table = table.set_column(3, "timestamps", pa.ListArray.from_arrays(times.offsets, values))
        at = table["request_time"].cast(pa.timestamp("s", kind.tz)).cast(kind)
        table = table.set_column(4, "request_time", at)
    pq.write_table(table, tmp_path / "in.parquet")
    options = RankOptions(top=5, batch_size=16, shard_rows=5)
    rank_file(bundle, tmp_path / "in.parquet", tmp_path / "out", options)
    rows = pq.read_table(tmp_path / "out").to_pylist()
    for case, row in enumerate(rows):
        expected = recommended(scorer, log, case, cases)
        assert row["item_ids"] == list(expected.item_ids)
        np.testing.assert_allclose(row["scores"], expected.scores, rtol=1e-5)


def test_requests_without_times_are_of_the_time_of_the_job(bundle, scorer, log, cases, tmp_path):
    table = requests_of(log, cases, 4).drop_columns(["timestamps"])
    nulls = pa.array([None, int(log.timestamps.max()), None, None], pa.int64())
    pq.write_table(table.set_column(3, "request_time", nulls), tmp_path / "in.parquet")
    told = []
    options = RankOptions(top=5, request_time="2011-02-03 04:05")
    rank_file(bundle, tmp_path / "in.parquet", tmp_path / "out", options, notify=told.append)
    assert told == [
        "the requests have no column timestamps: the model reads when each item was seen, and "
        "takes all as seen at the time of the request"
    ]
    rows = pq.read_table(tmp_path / "out").to_pylist()
    for case, at in enumerate([options.asked_at, int(log.timestamps.max()), options.asked_at]):
        expected = recommended(scorer, log, case, cases, timestamps=None, request_time=at)
        assert rows[case]["item_ids"] == list(expected.item_ids)
    again = RankOptions(top=5, request_time="2011-02-04")
    with pytest.raises(UserError, match="request_time"):
        rank_file(bundle, tmp_path / "in.parquet", tmp_path / "out", again)


@pytest.mark.parametrize(("after", "told"), [(60, 0), (61, 1)])
def test_late_lists_are_told(bundle, scorer, log, cases, tmp_path, after, told):
    pq.write_table(requests_of(log, cases, 1), tmp_path / "in.parquet")
    moment = scorer.bundle.trained_until + after * SECONDS_PER_DAY
    time = datetime.datetime.fromtimestamp(moment, datetime.UTC).isoformat()
    sentences = []
    options = RankOptions(top=5, request_time=time)
    rank_file(bundle, tmp_path / "in.parquet", tmp_path / "out", options, notify=sentences.append)
    late = f"the lists are for {after} days after the training data of the model ends"
    assert sum(sentence.startswith(late) for sentence in sentences) == told == len(sentences)


def test_a_prepared_log_gives_its_times(bundle, scorer, log, tmp_path, capsys):
    rank_command(bundle, requests=log.path, output=tmp_path / "out", top=3,
                 request_time="2011-03-01")  # fmt: skip
    assert "no column timestamps" not in capsys.readouterr().err
    options = RankOptions(3, request_time="2011-03-01")
    rank_file(bundle, log.path, tmp_path / "python", options)
    assert pq.read_table(tmp_path / "python").equals(pq.read_table(tmp_path / "out"))
    row = pq.read_table(tmp_path / "out").to_pylist()[7]
    start, stop = log.offsets[7:9]
    expected = scorer.recommend(
        [log.catalog.item_id(int(token)) for token in log.tokens[start:stop]], 3,
        ratings=log.ratings[start:stop].tolist(), timestamps=log.timestamps[start:stop].tolist(),
        request_time="2011-03-01",
    )  # fmt: skip
    assert row["item_ids"] == list(expected.item_ids)


def test_explanations_are_of_the_request(scorer, log, cases):
    ids, ratings, times, at = asked(log, 2, cases)
    first = recommended(scorer, log, 2, cases)
    found = explain(scorer, ids, ratings=ratings, timestamps=times, request_time=at)
    assert (found.item_id, found.rank) == (first.item_ids[0], 1)
    assert found.score == pytest.approx(first.scores[0], rel=1e-5)
    later = explain(scorer, ids, ratings=ratings, timestamps=times, request_time=at + 10**6)
    assert found.score != later.score
    np.testing.assert_allclose(found.attention.sum(-1), 1, rtol=1e-5)
    guesses = both_sides(
        scorer, ids, len(ids) - 1, ratings=ratings, timestamps=times, request_time=at + 10**6
    )
    # Nothing comes after the last movie, and it is asked for when it was seen.
    assert guesses.both == guesses.before


def test_the_report_shows_the_attention_of_explanations(run, scorer, log):
    evidence = gather(run, QUIET)
    assert evidence.vectors.shape[1] == 8
    for case in (0, 31):
        ids, ratings, times, at = asked(log, case, evidence.cases)
        expected = explain(scorer, ids, ratings=ratings, timestamps=times, request_time=at)
        found = evidence.gaze.weights[case, :, :, : expected.attention.shape[-1]]
        np.testing.assert_allclose(found, expected.attention[..., ::-1], atol=1e-5)


def test_similar_movies_are_not_those_of_the_same_age(scorer):
    functions = scorer.ranker.functions
    vectors = np.asarray(functions.vectors)
    assert vectors.shape[1] == 8 + 43
    own = vectors[:, :8] / np.linalg.norm(vectors[:, :8], axis=1, keepdims=True).clip(1e-9)
    answer = scorer.similar("0", 3)
    token = scorer.catalog.token("0")
    cosines = own @ own[token]
    for item, cosine in zip(answer.item_ids, answer.scores):
        assert cosine == pytest.approx(cosines[scorer.catalog.token(item)], abs=1e-5)


def test_a_new_release_has_an_age(bundle, scorer, log, cases, tmp_path):
    releases = [
        {"item_id": "900", "genres": "War", "release_date": "2011-06-01"},
        {"item_id": "901", "genres": "War", "release_date": "1950-01-01"},
        {"item_id": "902", "genres": "War", "year": 2011},
    ]
    unknown = {"item_id": "899"}  # is left out, and moves no date
    (tmp_path / "more.jsonl").write_text("\n".join(map(json.dumps, [unknown, *releases])))
    sources = Sources(metadata=tmp_path / "more.jsonl")
    add_items(bundle, tmp_path / "more", sources=sources, skip_unknown=True)
    more = load(tmp_path / "more", batch_size=16, devices=jax.devices()[:1])
    days = more.bundle.parameters()["catalog/request_time/first_day"]
    tokens = [more.catalog.token(item["item_id"]) for item in releases]
    expected = [moment_of("2011-06-01") / SECONDS_PER_DAY, log.timestamps.min() / SECONDS_PER_DAY]
    np.testing.assert_allclose(days[tokens], [*expected, 0])
    ids, _, times, at = asked(log, 0, cases)
    question = {"timestamps": [times], "request_time": at, "keep_seen": True}
    everything = [list(log.catalog.item_ids)]
    assert more.rank([ids], everything, **question) == scorer.rank([ids], everything, **question)
    new = [["900", "901", "902"]]
    soon, late = (
        dict(zip(answer.item_ids, answer.scores))
        for when in ("2011-06-02", "2012-06-02")
        for answer in more.rank([ids], new, timestamps=[times], request_time=when)
    )
    assert len({round(score, 4) for score in soon.values()}) == 3
    assert soon["900"] - soon["902"] != pytest.approx(late["900"] - late["902"], abs=1e-4)


def test_a_pipeline_takes_the_times_of_its_ranker(bundle, scorer, log, cases, tmp_path):
    write_pipeline(bundle, bundle, tmp_path / "both", candidates=40)
    both = load(tmp_path / "both", batch_size=16, devices=jax.devices()[:1])
    assert both.bundle.asks_times
    found, expected = (recommended(one, log, 1, cases) for one in (both, scorer))
    assert found.item_ids == expected.item_ids
    times_matter = False
    for case in range(12):  # what is explained is the first of the list at that time
        ids, ratings, times, at = asked(log, case, cases)
        explained = explain(both, ids, ratings=ratings, timestamps=times, request_time=at)
        assert explained.item_id == recommended(both, log, case, cases).item_ids[0]
        times_matter |= explained.item_id != both.recommend(ids, 1, ratings=ratings).item_ids[0]
    assert times_matter


def test_a_pipeline_asks_for_the_times_that_its_retriever_alone_reads(scorer):
    timed = scorer.bundle
    manifest = {x: y for x, y in timed.manifest.items() if not x.startswith("trained_")}
    plain = replace(timed, manifest={**manifest, "model": {**manifest["model"], "times": False}})
    both = plain.behind(timed, 5)
    assert both.asks_times and not both.reads_times and not plain.asks_times
    assert both.trained_until == timed.trained_until
    assert both.trained_from == timed.trained_from > 0


def test_late_requests_change_movies_that_are_older_than_the_log_alike(scorer, log, cases):
    ids, _, times, _ = asked(log, 0, cases)
    constants = scorer.bundle.parameters()
    days = constants["catalog/request_time/first_day"]
    is_old = days == constants["catalog/request_time/begin_day"]
    old = [[log.catalog.item_id(int(token)) for token in np.flatnonzero(is_old)]]
    assert len(old[0]) > 2
    # The gap to the last event is in the last bucket for both requests, so nothing else changes.
    one, other = (
        scorer.rank(
            [ids], old, timestamps=[times], keep_seen=True,
            request_time=scorer.bundle.trained_until + after * SECONDS_PER_DAY,
        )[0]
        for after in (2_000, 4_321)
    )  # fmt: skip
    assert one.item_ids == other.item_ids
    np.testing.assert_allclose(one.scores, other.scores, rtol=1e-5)


def test_commands(bundle, log, capsys):
    recommend_command((str(bundle), "3", "4"), request_time="2011-03-01")
    recommend_command((str(bundle), "3", "4"))
    explain_command(bundle, history=("3", "4", "5"), request_time="2011-03-01 12:00")
    assert capsys.readouterr().out.count("after 3, 4") == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"timestamps": [1, 2]}, "2 timestamps for .* items in history; give one per item"),
        ({"timestamps": [1.5]}, r"^timestamps holds 1.5; expected seconds since 1970 as whole"),
        (
            {"timestamps": [1_400_000_000_000]},
            "holds 1400000000000; expected seconds since 1970.*milliseconds, divide them by 1,000$",
        ),
        ({"timestamps": [-1]}, r"^timestamps holds -1; expected seconds since 1970"),
        ({"timestamps": "12"}, r"^timestamps is '12'; expected a list of times"),
        ({"request_time": "soon"}, "the time of the request is 'soon'; expected a date such as"),
        ({"request_time": -1}, "the time of the request is -1; expected seconds since 1970, or a"),
        ({"request_time": True}, "the time of the request is True; expected"),
        ({"request_time": 1_400_000_000_000}, "the time of the request is 14.* before 2106; if"),
        ({"request_time": 2024}, "the time of the request is 2024 .1970-.*; expected a later time"),
        ({"request_time": "2010-12-31"}, "before the log that the model was trained on begins"),
    ],
)
def test_wrong_times_are_refused(scorer, log, cases, changes, message):
    with pytest.raises(UserError, match=message):
        recommended(scorer, log, 0, cases, **changes)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("timestamps", [[1]], "in.parquet, row 0: 1 timestamps for .* items in history"),
        ("request_time", [10**12], "in.parquet, row 0: request_time holds 1000000000000; expected"),
        (
            "request_time",
            [1.4e15],
            "holds 1400000000000000; .* microseconds, divide them by 1,000,0",
        ),
        (
            "request_time",
            [2024],
            r"in.parquet, row 0: request_time is 2024 .1970-01-01 00:33:44., "
            r"before the log that the model was trained on begins .2011-01-26",
        ),
        ("request_time", [-1], "in.parquet, row 0: request_time holds -1; expected seconds since"),
        ("request_time", [-0.5], "in.parquet, row 0: request_time holds -0.5; expected seconds"),
        ("request_time", ["now"], "column 'request_time' is of type string; expected times"),
        ("timestamps", [["now"]], "column 'timestamps' is of type list.*; expected lists of times"),
    ],
)
def test_wrong_columns_are_refused(bundle, log, cases, tmp_path, column, values, message):
    pq.write_table(requests_of(log, cases, 1, **{column: values}), tmp_path / "in.parquet")
    with pytest.raises(UserError, match=message):
        rank_file(bundle, tmp_path / "in.parquet", tmp_path / "out")


def test_a_file_may_have_columns_of_times_without_any(bundle, log, cases, tmp_path):
    table = requests_of(log, cases, 2)
    nothing = pa.nulls(2)
    pq.write_table(
        table.set_column(3, "timestamps", nothing).set_column(4, "request_time", nothing),
        tmp_path / "in.parquet",
    )
    rank_file(bundle, tmp_path / "in.parquet", tmp_path / "out", RankOptions(top=5))
    pq.write_table(table.drop_columns(["timestamps", "request_time"]), tmp_path / "other.parquet")
    rank_file(bundle, tmp_path / "other.parquet", tmp_path / "other", RankOptions(top=5))
    assert pq.read_table(tmp_path / "out").equals(pq.read_table(tmp_path / "other"))


def test_a_prepared_log_without_times_has_none_to_give(bundle, log, tmp_path, capsys):
    manifest = json.loads((log.path / "manifest.json").read_text())
    untimed = shutil.copytree(log.path, tmp_path / "log")
    (untimed / "manifest.json").write_text(json.dumps({**manifest, "timed": False}))
    rank_command(bundle, requests=untimed, output=tmp_path / "out", top=3)
    assert "no column timestamps" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(UserError, match=r"reads times, and the log of .* has none"):
        rank_cases(load(bundle), SequenceStore.open(untimed), leave_one_out(log).test["test"])


def test_a_model_without_times_takes_none(towers, tmp_path):
    scorer = towers[1]
    with pytest.raises(UserError, match=r"reads no times .*; leave out the times"):
        scorer.recommend(["1"], request_time=5)
    with pytest.raises(UserError, match="reads no times"):
        scorer.recommend(["1"], timestamps=[5])
    pq.write_table(pa.table({"user_id": ["u"], "history": [["1"]]}), tmp_path / "in.parquet")
    with pytest.raises(UserError, match="reads no times"):
        rank_file(scorer.bundle.path, tmp_path / "in.parquet", tmp_path / "out",
                  RankOptions(request_time="2011-01-01"))  # fmt: skip
    assert not (tmp_path / "out").exists()
    assert "trained_until" not in scorer.bundle.manifest


@pytest.mark.slow
def test_the_model_of_all_events_is_served(run, log, tmp_path):
    config = from_json(read_config(run))
    workdir = shutil.copytree(run, tmp_path / "run")
    protocol.run(replace(config, workdir=str(workdir), final_fit=True), recipe="t", console=QUIET)
    served = read_run(workdir, console=QUIET)
    assert served.origin["trained_until"] == log.timestamps.max()
    days = served.variables["catalog"]["request_time"]["first_day"]
    first = np.full(len(days), np.inf)
    np.minimum.at(first, log.tokens, log.timestamps / SECONDS_PER_DAY)
    undated = [log.catalog.token(str(item)) for item in range(1, 40, 2)]
    np.testing.assert_allclose(days[undated], first[undated], rtol=1e-6)
