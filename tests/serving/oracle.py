"""What serving has to agree with, computed without anything of serving."""

from dataclasses import asdict

import jax
import numpy as np

from bert4rec_jax.data.batch import inference_rows
from bert4rec_jax.data.thumbs import to_thumbs
from bert4rec_jax.evaluation.evaluator import Evaluator, ScoringModel
from bert4rec_jax.models.history import History


def scores_in_process(trained, store, cases):
    """`[M, V]` scores by the module itself."""
    config = trained.config
    length = config.data.max_length
    causal = config.masking.objective == "next"
    source = np.zeros((len(cases), length), np.int64)
    lengths = np.zeros(len(cases), np.int64)
    for case, (user, stop) in enumerate(zip(cases.users, cases.rows)):
        rows = [r for r in range(store.offsets[user], stop) if trained.known[store.tokens[r]]]
        rows = rows[-(length - 1) :]
        lengths[case], source[case, : len(rows)] = len(rows), rows
    batch, slots = inference_rows(
        source, lengths, store.tokens,
        lambda rows: to_thumbs(store.ratings[rows], trained.thumbs),
        max_length=length,
    )  # fmt: skip
    history = History(
        batch.tokens, batch.thumbs, batch.positions, batch.segments,
        np.full(batch.tokens.shape, causal),
    )  # fmt: skip
    apply = jax.jit(trained.model.apply, static_argnames="deterministic")
    hidden, vectors, bias = apply(trained.variables, history, slots - causal, deterministic=True)
    return np.asarray(hidden[:, 0] @ vectors.T + bias)


def item_vectors(trained):
    """`[V, D]` vectors and `[V]` biases by the module itself."""
    return trained.model.apply(trained.variables, method="item_vectors")


def evaluated(trained, store, cases):
    """The evaluator's ranks and lists."""
    config = trained.config
    model = ScoringModel(
        trained.model,
        trained.variables,
        known=trained.known,
        max_length=config.data.max_length,
        causal=config.masking.objective == "next",
    )
    evaluator = Evaluator(store, batch_size=32, item_chunk=64, thumbs=trained.thumbs)
    return evaluator.rank_model(model, cases)


def plain(answers):
    """Answers as values that can be compared."""
    return [asdict(answer) for answer in answers]
