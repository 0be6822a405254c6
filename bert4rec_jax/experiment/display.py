"""Display: what a run prints on the terminal."""

from __future__ import annotations

import jax
from rich.console import Console
from rich.markup import escape

from bert4rec_jax.data.split import REPEATED
from bert4rec_jax.evaluation.tables import recommendations_table, results_table, sampled_table
from bert4rec_jax.experiment.setting import Setting
from bert4rec_jax.experiment.testing import Tested

_FEW_CASES = 100  # a set with fewer gets a warning


def introduce(setting: Setting, recipe: str, console: Console) -> None:
    """Print the recipe, data, split, devices and left-out users before training begins."""
    config, source, split = setting.config, setting.source, setting.split
    device = jax.devices()[0]
    console.print(
        f"[bold]{escape(recipe)}[/] on {escape(config.data.path)}: {source.num_interactions:,} "
        f"interactions of {source.num_users:,} users with {len(source.catalog):,} items, "
        f"{split.name.replace('_', ' ')}, on {jax.device_count()} x {device.device_kind} "
        f"({' x '.join(f'{n} {axis}' for axis, n in setting.mesh.shape.items())})",
        highlight=False,
    )
    for name, cases in {"validation": split.validation, **split.test}.items():
        for reason, count in cases.dropped.items():
            remedy = " (--data.repeats keeps them)" if reason == REPEATED else ""
            console.print(
                f"  {name}: {count:,} users left out: {reason}{remedy}",
                highlight=False,
                soft_wrap=True,
            )
        if len(cases) < _FEW_CASES:
            console.print(
                f"[yellow]  {name} has only {len(cases):,} case{'s' * (len(cases) != 1)}: figures, "
                "early stopping and calibration that rest on so few are mostly chance",
                highlight=False,
            )


def show(setting: Setting, tested: Tested, console: Console) -> None:
    """Print the results as tables, and examples of recommendation lists with titles."""
    if not tested.comparison.assessments:
        scores = sorted(
            (
                (v["ndcg@10"], f"{name} on {v['cases']} items" if "cases" in v else name)
                for name, v in tested.validation.items()
            ),
            reverse=True,
        )
        console.print(
            "validation NDCG@10: " + ", ".join(f"{name} {value:.4f}" for value, name in scores),
            markup=False,
            highlight=False,
        )
    sets = setting.tested()
    items = f"{len(setting.store.catalog):,}"
    what = "users" if setting.split.cold_validation is None else "cases"
    for name, models in tested.comparison.assessments.items():
        within = setting.split.within.get(name)
        among = f"all {items}" if within is None else f"{len(within):,} cold"
        title = (
            f"{name.replace('_', ' ')}: {len(sets[name]):,} {what}, ranked among {among} items "
            f"({setting.split.name.replace('_', ' ')})"
        )
        console.print()
        console.print(results_table(title, models))
        if setting.split.cold_validation is not None and within is None:
            shares = ", ".join(f"{m.name} {m.metrics['cold_exposure@10']:.1%}" for m in models)
            console.print(
                f"Share of untrained items in the lists: {shares}", markup=False, highlight=False
            )
    for variant, of_models in tested.comparison.against_sampled.items():
        console.print()
        console.print(sampled_table(next(iter(sets)), variant, of_models))
    if setting.config.model.times and tested.comparison.assessments:
        also = "recent-popular-at-request" in tested.validation
        console.print(
            f"{setting.name} knows the time of the request (model.times)"
            + "; of the baselines, only recent-popular-at-request does" * also,
            highlight=False,
        )
    for name, answers in list(tested.comparison.rankings.items())[:1]:
        chosen = answers[setting.name]
        console.print(recommendations_table(sets[name], chosen, setting.store, setting.catalog))
