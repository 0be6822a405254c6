"""Sections: the evidence of a run as tables and figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from bert4rec_jax.data.catalog import FIRST_ITEM, MASK
from bert4rec_jax.evaluation.bootstrap import SEED, Interval, beside_first, intervals
from bert4rec_jax.evaluation.metrics import (
    POPULARITY,
    contributions,
    coverage,
    novelty,
    popularity_groups,
)
from bert4rec_jax.evaluation.ranks import list_order
from bert4rec_jax.figures import Bar, bar_chart, line_chart
from bert4rec_jax.report.evidence import Evidence
from bert4rec_jax.report.page import (
    Html,
    Section,
    Shaded,
    figure,
    lines,
    measured,
    paragraph,
    table,
)

_COLUMNS = ("hr@10", "ndcg@10", "hr@50", "mrr")
_LENGTHS = (1, 6, 11, 21, 51, 101)
_DISTANCES = (1, 2, 3, 4, 6, 11, 21, 51)
_GENRES, _MISSES, _KNOWN, _NEAREST = 15, 8, 10, 5
_SHOWN = 10  # items in a list


def about(evidence: Evidence) -> Section:
    """The run, its data, and how it was trained."""
    results, source = evidence.results, evidence.source
    rows: list[tuple[object, ...]] = [
        ("run", evidence.run.resolve().name),
        ("checkpoint", f"step {evidence.step:,}"),
        ("data", f"{source.num_interactions:,} interactions of {source.num_users:,} users"),
        ("items", f"{len(evidence.catalog):,}"),
        ("cases", f"{len(evidence.cases):,} users, {evidence.set_name}"),
    ]
    if results:
        device = results["device"]
        rows += [
            ("recipe", results["recipe"]),
            ("device", f"{device['devices']} x {device['kind']}"),
            ("training", f"{results['seconds']['training']:,.0f} seconds"),
            ("parameters (SHA-256)", results["parameters_sha256"]["tested"][:16]),
        ]
    return Section("What was trained", (table("The run", ("", "value"), rows),))


def curves(evidence: Evidence) -> Section:
    """Validation metrics, loss and learning rate over training."""
    log = evidence.log
    steps = [line for line in log if "loss" in line]
    validations = [line for line in log if "validation" in line]
    parts = []
    if validations:
        found = {
            name: [(line["step"], line["validation"][name]) for line in validations]
            for name in ("hr@10", "ndcg@10")
        }
        title = "Validation metrics"
        parts.append(figure(title, line_chart(title, found)))
    for name, title in (("loss", "Training loss"), ("learning_rate", "Learning rate")):
        points = [(line["step"], line[name]) for line in steps]
        if points:
            scaled = name == "learning_rate"
            points = [(step, 1000 * value if scaled else value) for step, value in points]
            title = f"{title} (thousandths)" if scaled else title
            parts.append(figure(title, line_chart(title, {"": points}, from_zero=scaled)))
    return Section("Learning curves", tuple(parts) or (paragraph("The run has no log.jsonl."),))


def quality(evidence: Evidence) -> Section:
    """Metrics of the model and of the baselines."""
    compared = beside_first(
        (contributions(ranks) for ranks in evidence.ranks.values()),
        rng=np.random.default_rng(SEED),
        resamples=evidence.resamples,
    )
    rows = [
        (
            name,
            *(_measured(own[column]) for column in _COLUMNS),
            _measured(lead["ndcg@10"], signed=True) if lead else "",
        )
        for name, (own, lead) in zip(evidence.ranks, compared)
    ]
    header = ("model", *(name.upper() for name in _COLUMNS), f"{evidence.model} leads NDCG@10 by")
    caption = (
        f"{evidence.set_name.capitalize()}: {len(evidence.cases):,} users, whole catalog ranked"
    )
    parts = [
        table(caption, header, rows),
        paragraph(
            "Below each value: its 95 % bootstrap interval over users. The spread over "
            "training seeds is not in it."
        ),
    ]
    if not evidence.baselines:
        validation = evidence.results.get("validation", {}).items()
        tuned = [
            (f"{name} on {x['cases']} items" if "cases" in x else name, f"{x['ndcg@10']:.4f}")
            for name, x in validation
            if "trials" in x
        ]
        if tuned:
            caption = "Validation: the tuned baselines"
            parts.append(table(caption, ("model", "NDCG@10"), tuned))
    return Section("Quality beside baselines", tuple(parts))


def groups(evidence: Evidence) -> Section:
    """Quality by history, popularity and genre."""
    lengths = evidence.lengths
    by_length = {}
    for low, high in zip(_LENGTHS, (*_LENGTHS[1:], None)):
        name = f"{low} or more" if high is None else f"{low} to {high - 1}"
        by_length[name] = (lengths >= low) & (lengths < (high or np.inf))
    group = popularity_groups(evidence.counts)[evidence.targets]
    by_popularity = {name: group == number for number, name in enumerate(POPULARITY)}
    genres = [evidence.catalog.genres_of(token) for token in evidence.targets]
    most = Counter(genre for found in genres for genre in found).most_common(_GENRES)
    by_genre = {genre: np.array([genre in found for found in genres]) for genre, _ in most}
    return Section(
        "Quality by history, popularity and genre",
        (
            *_grouped(evidence, "By items in the history", by_length),
            *_grouped(evidence, "By popularity of the target", by_popularity),
            paragraph(
                "A third of all training interactions falls on the head, the next third on the "
                "middle, the rest on the tail; cold items have none."
            ),
            *(
                _grouped(evidence, "By genre of the target", by_genre)
                or [paragraph("The catalog has no genres.")]
            ),
        ),
    )


def breadth(evidence: Evidence) -> Section:
    """Coverage and popularity bias of the lists."""
    items = len(evidence.catalog)
    title = "Coverage and popularity bias"
    listed = evidence.top[evidence.top >= FIRST_ITEM]
    if not len(listed):
        return Section(title, (paragraph("No list has an item: nobody has any left."),))
    group = popularity_groups(evidence.counts)
    times = np.bincount(listed, minlength=len(group))
    targets = np.bincount(evidence.targets, minlength=len(group))
    shares = [
        np.bincount(group, weights=weights, minlength=len(POPULARITY))
        for weights in (times, targets, evidence.counts, evidence.catalog.is_item())
    ]
    rows = [
        (name, *(Shaded(float(part[number] / part.sum())) for part in shares))
        for number, name in enumerate(POPULARITY)
    ]
    most = np.lexsort((np.arange(len(times)), -times))[:_KNOWN]
    users = len(evidence.cases)
    figures: list[tuple[object, ...]] = [
        ("coverage@10: items that are in someone's ten", coverage(evidence.top, items)),
        ("novelty@10: mean bits of surprise", novelty(evidence.top, evidence.counts, items)),
        ("places that the ten most listed items take", float(times[most].sum() / times.sum())),
    ]
    for name, found in evidence.results.get(evidence.set_name, {}).items():
        if name != evidence.model and "coverage@10" in found:
            figures.append((f"coverage@10 of {name}", found["coverage@10"]))
    return Section(
        title,
        (
            table("The lists of ten", ("", "value"), figures),
            table(
                "Where recommendations go, and where viewers do",
                ("group", "recommended", "targets", "training", "items"),
                rows,
            ),
            table(
                "Listed most",
                ("item", "in the ten of", "in training"),
                (
                    (
                        evidence.catalog.title(int(token)),
                        f"{times[token] / users:.1%} of users",
                        int(evidence.counts[token]),
                    )
                    for token in most
                    if times[token]
                ),
            ),
        ),
    )


def heads(evidence: Evidence) -> Section:
    """Each head's attention by distance, and to items that share a genre with the top item."""
    gaze, title = evidence.gaze, "What the heads attend to"
    cases, layers, count, length = gaze.weights.shape
    if not layers:
        return Section(title, (paragraph("The model has no layers of attention."),))
    edges = [low for low in _DISTANCES if low < length]
    names = [
        str(low) if high == low + 1 else f"{low} to {high - 1}" if high else f"{low} on"
        for low, high in zip(edges, [*edges[1:], None])
    ]
    by_distance = np.add.reduceat(gaze.weights.mean(0), [0, *edges], axis=-1)
    labels = [
        f"layer {layer + 1}, head {head + 1}" for layer in range(layers) for head in range(count)
    ]
    shares = by_distance.reshape(layers * count, -1)
    place, columns = "the place of the next item", ("itself", *names)
    if (gaze.tokens[:, 0] != MASK).all():  # a causal model
        shares, place, columns = shares[:, 1:], "the newest item", tuple(names)
    parts = [
        paragraph(
            f"Mean over {cases:,} users of the attention from {place}. "
            "Attention says where a head looks, not what decides; ",
            Html("<code>bert4rec explain</code>"),
            " leaves items out to see that.",
        ),
        table(
            "Attention by distance, in items back from the next one",
            ("head", *columns),
            ((label, *map(Shaded, map(float, row))) for label, row in zip(labels, shares)),
        ),
    ]
    catalog = evidence.catalog
    genres = [set(catalog.genres_of(token)) for token in range(catalog.num_tokens)]
    recommended = [genres[token] for token in gaze.recommended]
    is_item = gaze.tokens >= FIRST_ITEM
    same = np.array(
        [
            [bool(genres[token] & wanted) for token in row]
            for row, wanted in zip(gaze.tokens, recommended)
        ]
    )
    on_items = (gaze.weights * is_item[:, None, None]).sum(-1)
    usable = np.array([bool(wanted) for wanted in recommended]) & is_item.any(1)
    if usable.any():
        looked = (gaze.weights * same[:, None, None]).sum(-1) / np.maximum(on_items, 1e-9)
        evenly = same.sum(1) / np.maximum(is_item.sum(1), 1)
        more = (looked - evenly[:, None, None])[usable].reshape(usable.sum(), -1)
        found = _intervals(evidence, {label: more[:, i] for i, label in enumerate(labels)})
        parts.append(
            table(
                "Attention to items that share a genre with the one recommended first",
                ("head", "share of its gaze", "of an even gaze", "difference"),
                (
                    (
                        label,
                        Shaded(float(found[label].mean + evenly[usable].mean())),
                        Shaded(float(evenly[usable].mean())),
                        _measured(found[label], signed=True),
                    )
                    for label in labels
                ),
            )
        )
    return Section(title, tuple(parts))


def neighbours(evidence: Evidence) -> Section:
    """The nearest neighbours, by item vectors, of the items chosen most."""
    sizes = np.linalg.norm(evidence.vectors, axis=1, keepdims=True)
    directions = evidence.vectors / np.where(sizes > 0, sizes, 1)
    known = np.flatnonzero(evidence.known).astype(np.int32)
    watched = known[np.lexsort((known, -evidence.counts[known]))][:_KNOWN]
    rows = []
    for token in watched:
        others = known[known != token]
        cosines = (directions[others] @ directions[token]).astype(np.float32)
        best = list_order(cosines, others, np.zeros(len(others), np.int64))[:_NEAREST]
        nearest = lines(
            f"{evidence.catalog.title(int(others[i]))} ({cosines[i]:.2f})" for i in best
        )
        rows.append((evidence.catalog.title(int(token)), int(evidence.counts[token]), nearest))
    header = ("item", "in training", "nearest (cosine)")
    return Section(
        "Nearest neighbours", (table("Of the items chosen most, by their vectors", header, rows),)
    )


def misses(evidence: Evidence) -> Section:
    """The cases whose targets the model ranked worst."""
    ranks = evidence.ranks[evidence.model]
    head = popularity_groups(evidence.counts)[evidence.targets] == POPULARITY.index("head")
    everywhere = np.ones(len(ranks), bool)
    return Section(
        "Worst misses",
        (
            _missed(evidence, "Ranked lowest", everywhere),
            _missed(evidence, "Ranked lowest among the items chosen most", head),
        ),
    )


def _missed(evidence: Evidence, caption: str, among: npt.NDArray[np.bool_]) -> Html:
    catalog, ranks = evidence.catalog, evidence.ranks[evidence.model]
    if not among.any():
        return paragraph(f"{caption}: there are none.")
    cases = np.flatnonzero(among & (ranks > _SHOWN))
    if not len(cases):
        return paragraph(f"{caption}: all are among the first {_SHOWN}.")
    worst = cases[np.argsort(-ranks[cases], kind="stable")][:_MISSES]
    rival = _strongest(evidence)
    rows = []
    for case in worst:
        row = int(evidence.cases.rows[case])
        start = max(row - 5, int(evidence.store.offsets[evidence.cases.users[case]]))
        rows.append(
            (
                catalog.title(int(evidence.targets[case])),
                int(ranks[case]),
                *([int(evidence.ranks[rival][case])] if rival else []),
                int(evidence.counts[evidence.targets[case]]),
                lines(catalog.title(int(t)) for t in evidence.store.tokens[start:row]),
                lines(catalog.title(int(t)) for t in evidence.top[case, :3] if t >= FIRST_ITEM),
            )
        )
    header = (
        "chosen next",
        "rank",
        *([f"{rival}'s rank"] if rival else []),
        "in training",
        "last five before, oldest first",
        "recommended instead",
    )
    return table(caption, header, rows)


def _grouped(
    evidence: Evidence, caption: str, members: Mapping[str, npt.NDArray[np.bool_]]
) -> list[Html]:
    """A figure and a table of quality by group; groups without a case are left out."""
    rival = _strongest(evidence)
    bars, rows = [], []
    for name, which in members.items():
        if not which.any():
            continue
        found = _intervals(evidence, contributions(evidence.ranks[evidence.model][which]))
        ndcg = found["ndcg@10"]
        cases = int(which.sum())
        bars.append(Bar(name, ndcg.mean, (ndcg.low, ndcg.high), f"({cases:,} users)"))
        row: list[object] = [name, cases, _measured(found["hr@10"]), _measured(ndcg)]
        if rival:
            row.append(float(contributions(evidence.ranks[rival][which])["ndcg@10"].mean()))
        rows.append(row)
    if not rows:
        return []
    header = ["", "users", "HR@10", "NDCG@10", *([f"NDCG@10 of {rival}"] if rival else [])]
    title = f"{caption}: NDCG@10 of {evidence.model}"
    return [
        figure(title, bar_chart(title, bars)),
        table(caption, header, rows),
    ]


def _strongest(evidence: Evidence) -> str | None:
    """The baseline with the best NDCG@10 on these cases; None if there are no baselines."""
    return max(
        evidence.baselines,
        key=lambda name: float(contributions(evidence.ranks[name])["ndcg@10"].mean()),
        default=None,
    )


def _intervals(
    evidence: Evidence, values: Mapping[str, npt.NDArray[np.float64]]
) -> dict[str, Interval]:
    return intervals(values, rng=np.random.default_rng(SEED), resamples=evidence.resamples)


def _measured(found: Interval, *, signed: bool = False) -> Html:
    return measured(found.mean, found.low, found.high, signed=signed)
