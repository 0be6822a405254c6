"""Metrics file: `metrics.json`, which keeps a run's results across commands."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

METRICS = "metrics.json"


def read_metrics(path: Path) -> dict[str, Any]:
    """Read a metrics file; an empty dict if there is no file, or it cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def about(results: dict[str, Any], parameters: str) -> dict[str, Any]:
    """The results if the parameters with this digest were tested, else an empty dict."""
    try:
        return results if results["parameters_sha256"]["tested"] == parameters else {}
    except (KeyError, TypeError):
        return {}


def joined(results: Mapping[str, Any], earlier: Mapping[str, Any]) -> dict[str, Any]:
    """Merge earlier results into new ones, if data, parameters and corrections are the same.

    Models that only the earlier results have are added to `validation`, to each set of cases named
    in `data`, and to `sampled`. Models in both keep their new metrics.
    """
    if not same_test(results, earlier):
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


def same_test(results: Mapping[str, Any], earlier: Mapping[str, Any]) -> bool:
    """Whether both are about the same data, parameters and corrections."""
    return _tested(results) == _tested(earlier)


def _tested(results: Mapping[str, Any]) -> tuple[Any, ...]:
    """Identifies what was tested; `data` includes the hashes of all cases."""
    parameters = results.get("parameters_sha256", {}).get("tested")
    return results.get("data"), parameters, results.get("corrections_sha256")


def _with_others(models: Mapping[str, Any], earlier: Mapping[str, Any]) -> dict[str, Any]:
    return {**models, **{name: of for name, of in earlier.items() if name not in models}}
