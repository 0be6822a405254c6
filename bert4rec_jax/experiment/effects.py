"""Effects: which settings do nothing beside the others, so that none is changed in vain."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from bert4rec_jax.checks import ConfigError
from bert4rec_jax.config import Config, to_json
from bert4rec_jax.training.masking import num_slots


class _Need(NamedTuple):
    """Settings that have an effect under a condition only."""

    fields: tuple[str, ...]
    met: Callable[[Config], bool]
    needs: str  # the condition, in words


def _fuses(config: Config) -> bool:
    """Whether any layer has an even number of queries and of positions, which `fused` needs."""
    data, masking, model = config.data, config.masking, config.model
    queries = [data.max_length] * model.layers
    if model.kind == "bert4rec":  # the last layer is computed for the slots only
        queries[-1] = num_slots(
            rate=masking.rate,
            next_item=masking.next_item,
            max_length=data.max_length,
            max_segments=data.segments_per_row,
        )
    return data.max_length % 2 == 0 and any(number % 2 == 0 for number in queries)


_NEEDS = (
    _Need(
        ("data.time_quantile",),
        lambda c: c.data.split == "global-time",
        "data.split global-time",
    ),
    _Need(("data.max_segments",), lambda c: c.data.pack, "data.pack"),
    _Need(("model.norm",), lambda c: c.model.layers > 0, "model.layers above 0"),
    _Need(
        ("model.attention",),
        _fuses,
        "an even data.max-length, and a layer with an even number of queries: any but the last one "
        "of BERT4Rec, which has an odd number with masking.objective next or mixed, and with some "
        "masking.rate",
    ),
    _Need(
        ("model.unknown_rate",),
        lambda c: bool(c.data.content),
        "data.content, beside which items can do without an id",
    ),
    _Need(
        ("masking.rate", "masking.last_only", "masking.weight_none", "masking.weight_down",
         "masking.weight_up", "masking.weight_two_up"),
        lambda c: c.masking.objective != "next",
        "masking.objective masked or mixed; with next, nothing is masked",
    ),
    _Need(
        ("masking.own_negatives",),
        lambda c: not (c.training.in_batch_negatives or c.data.repeats),
        "the softmax over the whole catalog (training.in-batch-negatives 0), without data.repeats, "
        "with which items of a history always compete",
    ),
    _Need(
        ("calibration.warm_kept",),
        lambda c: c.data.split == "cold-items" and bool(c.data.content),
        "data.split cold-items and data.content, where an offset of untrained items is chosen",
    ),
    _Need(
        ("optimizer.peak_lr",),
        lambda c: c.optimizer.schedule != "noam",
        "optimizer.schedule linear, cosine or constant; Noam's rate follows from model.dim, "
        "optimizer.warmup-steps and optimizer.noam-scale",
    ),
    _Need(
        ("optimizer.noam_scale",),
        lambda c: c.optimizer.schedule == "noam",
        "optimizer.schedule noam",
    ),
    _Need(
        ("training.loss_chunk",),
        lambda c: not c.training.in_batch_negatives,
        "the softmax over the whole catalog (training.in-batch-negatives 0)",
    ),
)  # fmt: skip


def without_effect(config: Config) -> dict[str, str]:
    """The settings of a config, by `section.field`, that change nothing, and what each one needs.

    Those of evaluation are not among them: they may be meant for a later test.
    """
    return {field: need.needs for need in _NEEDS if not need.met(config) for field in need.fields}


def check_changes(before: Config, after: Config, config: Config) -> None:
    """Check that every setting that was changed has an effect.

    Args:
      before: the config of a recipe.
      after: the same with the user's changes.
      config: the same with what follows from them and the data.

    Raises:
      ConfigError: one has none; names it, its value and what it needs.
    """
    old, new = to_json(before), to_json(after)
    for name, needs in without_effect(config).items():
        section, field = name.split(".")
        value = new[section][field]
        if value != old[section][field]:
            raise ConfigError(
                f"{section}.{field.replace('_', '-')} {value} has no effect here: it needs {needs}"
            )
