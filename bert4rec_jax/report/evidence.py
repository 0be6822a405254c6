"""Evidence: the data that a report shows, read from a run's folder and its best checkpoint.

Dimensions: M cases, V rows of the item table, S sampled cases, N layers, H heads, L positions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.markup import escape

from bert4rec_jax.data.catalog import MASK, PAD, Catalog
from bert4rec_jax.data.split import Cases, train_counts
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.data.thumbs import NONE, to_thumbs
from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation.ledger import LEDGER
from bert4rec_jax.evaluation.metrics_file import METRICS, about, read_metrics
from bert4rec_jax.evaluation.rank_file import RANKS, RankedSet, RankFile
from bert4rec_jax.experiment.finished import FinishedRun, as_selected, open_finished
from bert4rec_jax.serving.traced import Serving, by_path
from bert4rec_jax.sharding import to_host
from bert4rec_jax.training.digests import digest

Ints = npt.NDArray[np.integer[Any]]
_SAMPLE = 256  # cases whose attention is computed


@dataclass(frozen=True, eq=False)
class Gaze:
    """Attention weights of the position whose output is read, in S cases.

    Attributes:
      weights: `[S, N, H, L]`; column l is the l-th item before the next one. Column 0 is the place
        of the next item itself (MASK); it is 0 for a causal model, read at the newest item.
      tokens: `[S, L]` tokens of the columns, PAD where there is no item, MASK in column 0.
      recommended: `[S]` the item that the model recommends first.
    """

    weights: npt.NDArray[np.float32]
    tokens: npt.NDArray[np.int32]
    recommended: npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Evidence:
    """Everything that the report shows of a run.

    Attributes:
      run: the run's folder.
      model: name of the model in the figures.
      set_name: which cases: those of the first test set, or `validation` where the test split was
        not read with these parameters.
      source: the data as it was prepared.
      store: the histories that the run uses, without any items held out.
      catalog: ids, titles and genres.
      cases: the M evaluation cases.
      ranks: model -> `[M]`, the model first, then other forms of it, and the baselines.
      baselines: the names of those that are baselines, which were tuned on validation.
      top: `[M, 10]` tokens that the model recommends.
      counts: `[V]` training interactions per token.
      vectors: `[V, D]` item vectors, without columns for the age of items.
      known: `[V]` items that the model can score.
      gaze: attention weights.
      log: the lines of `log.jsonl`.
      results: the content of `metrics.json`; empty if it is missing or about other parameters.
      step: step of the checkpoint.
      resamples: number of bootstrap resamples.
    """

    run: Path
    model: str
    set_name: str
    source: SequenceStore
    store: SequenceStore
    catalog: Catalog
    cases: Cases
    ranks: Mapping[str, Ints]
    baselines: tuple[str, ...]
    top: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float32]
    known: npt.NDArray[np.bool_]
    gaze: Gaze
    log: list[dict[str, Any]]
    results: Mapping[str, Any]
    step: int
    resamples: int

    @property
    def targets(self) -> npt.NDArray[np.int32]:
        """`[M]`: the target token of each case."""
        return self.store.tokens[self.cases.rows]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """`[M]`: the number of items in each history."""
        return self.cases.rows - self.store.offsets[self.cases.users]


def gather(run: Path, console: Console) -> Evidence:
    """Read a run; the test split is used only if a test of these parameters is on record.

    Raises:
      UserError: the run has no checkpoint that can be read, or its files contradict each other.
    """
    finished = open_finished(run, console)
    setting, store = finished.setting, finished.setting.store
    parameters = digest(finished.best.state.params)
    recorded = _recorded(run, parameters, finished.corrections.digest)
    ranks: dict[str, Ints] = {}
    if recorded is None:
        console.print(
            "The test split was not read with these parameters and corrections: the report is "
            f"about validation. `bert4rec evaluate {escape(str(run))}` reads it.",
            soft_wrap=True,
        )
        set_name, cases = "validation", setting.split.validation
        stop = setting.split.train_stop
        finished = as_selected(finished, console)
    else:
        set_name, found = recorded
        cases, stop = setting.tested()[set_name], setting.split.refit_stop
        ranks = dict(found.ranks)
        if not np.array_equal(found.cases["users"], cases.users):
            raise UserError(
                f"{run / RANKS} is about other users than the data of the run; run "
                f"`bert4rec evaluate {run}` again"
            )
    ranking = setting.rank(
        finished.best.state.params, finished.trained, cases, corrections=finished.corrections
    )
    if not ranks:
        ranks = {"the model": ranking.ranks}
    results = about(read_metrics(run / METRICS), parameters)
    tuned = {name for name, x in results.get("validation", {}).items() if "trials" in x}
    vectors, _ = jax.jit(lambda v: setting.model().apply(v, method="item_vectors"))(
        finished.variables()
    )
    return Evidence(
        run=run,
        model=next(iter(ranks)),
        set_name=set_name,
        source=setting.source,
        store=store,
        catalog=setting.catalog,
        cases=cases,
        ranks=ranks,
        baselines=tuple(name for name in ranks if name in tuned),
        top=ranking.top,
        counts=train_counts(store, stop),
        vectors=to_host(vectors)[:, : setting.config.model.dim],  # without those of ages
        known=setting.scored(finished.trained),
        gaze=look(finished, cases, ranking.top[:, 0]),
        log=_lines(run / "log.jsonl"),
        results=results,
        step=finished.best.step,
        resamples=setting.config.evaluation.bootstrap,
    )


def look(finished: FinishedRun, cases: Cases, recommended: npt.NDArray[np.int32]) -> Gaze:
    """Attention in a sample of cases, spread evenly over all cases, whatever their ranks."""
    setting = finished.setting
    store, length, causal = setting.store, setting.length, setting.causal
    which = np.unique(np.linspace(0, len(cases) - 1, min(_SAMPLE, len(cases))).astype(np.int64))
    window = setting.evaluator.window(cases[which], setting.scored(finished.trained), length)
    rows = window.tokens(store)
    thumbs = np.where(rows != PAD, to_thumbs(store.ratings[window.source], setting.thumbs), NONE)
    places = window.lengths[:, None].astype(np.int32)
    read = rows.copy()
    np.put_along_axis(read, places, MASK, axis=1)
    slots = np.maximum(places - causal, 0)
    variables = by_path(jax.tree.map(to_host, finished.variables()))
    more: tuple[npt.NDArray[Any], ...] = ()
    if setting.config.model.times:
        times = np.where(rows != PAD, store.timestamps[window.source], 0)
        np.put_along_axis(times, places, store.timestamps[cases.rows[which]][:, None], axis=1)
        more = (times.astype(np.uint32),)
    _, weights = jax.jit(Serving(setting.model(), length, causal).attend)(
        variables, read, thumbs.astype(np.int8), slots, *more
    )
    turned, tokens = backwards(np.asarray(weights), rows if causal else read, places)
    return Gaze(turned, tokens, recommended[which])


def backwards(
    weights: npt.NDArray[np.float32], rows: npt.NDArray[np.int32], places: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """`[S, N, H, L]` attention and `[S, L]` tokens, with columns counted back from `places [S, 1]`.

    Example: the row `7 8 M 0` with the place 2 becomes `M 8 7 0`.
    """
    back = places - np.arange(rows.shape[1])
    inside = back >= 0
    columns = np.maximum(back, 0)
    tokens = np.where(inside, np.take_along_axis(rows, columns, axis=1), PAD).astype(np.int32)
    turned = np.take_along_axis(weights, columns[:, None, None], axis=3)
    return np.where(inside[:, None, None], turned, 0), tokens


def _recorded(run: Path, parameters: str, corrections: str) -> tuple[str, RankedSet] | None:
    """The first test set and its name; None if the model was last tested with other parameters or
    corrections."""
    # Tests of pipelines (benchmarks/candidates.py) are in the ledger without parameters.
    lines = [line for line in _lines(run / LEDGER) if "parameters_sha256" in line]
    if not lines or lines[-1].get("parameters_sha256") != parameters:
        return None
    found = RankFile.read(run / RANKS)
    tested = (found.parameters, parameters), (found.corrections, corrections)
    if any(there not in ("", here) for there, here in tested):
        return None
    return next(iter(found.sets.items()))


def _lines(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines, but for invalid ones, such as one cut off; none without the file."""
    found: list[dict[str, Any]] = []
    with suppress(OSError, ValueError):
        for text in path.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):
                found.append(json.loads(text))
    return found
