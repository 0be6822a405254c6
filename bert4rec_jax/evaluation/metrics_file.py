"""Metrics file: `metrics.json`, which keeps what earlier commands found out about a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

METRICS = "metrics.json"


def read_metrics(path: Path) -> dict[str, Any]:
    """What a metrics file holds; empty where there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def joined(results: Mapping[str, Any], earlier: Mapping[str, Any]) -> dict[str, Any]:
    """New results, with what earlier ones hold besides of the same data, parameters and
    corrections: models of `validation`, of each set of cases that `data` names, and of `sampled`.

    A model that is in both has its new figures.
    """
    if _tested(results) != _tested(earlier):
        return dict(results)
    found = dict(results)
    for name in [name for name in earlier if name in results["data"]]:
        found[name] = _with_others(results.get(name, {}), earlier[name])
    if "sampled" in earlier:
        new = results.get("sampled", {})
        found["sampled"] = {
            variant: _with_others(new.get(variant, {}), models)
            for variant, models in earlier["sampled"].items()
        }
    return found


def _tested(results: Mapping[str, Any]) -> tuple[Any, ...]:
    """What figures are about; the hashes of all cases are among what is known of the data."""
    parameters = results.get("parameters_sha256", {}).get("tested")
    return results.get("data"), parameters, results.get("corrections_sha256")


def _with_others(models: Mapping[str, Any], earlier: Mapping[str, Any]) -> dict[str, Any]:
    return {**models, **{name: of for name, of in earlier.items() if name not in models}}
