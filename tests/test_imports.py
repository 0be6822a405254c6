"""Import directions: down only, as the architecture says."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import bert4rec_jax

ROOT = Path(bert4rec_jax.__file__).parent
BASE = {"bert4rec_jax", "checks", "errors"}
# What each part may import of ours, besides itself and BASE.
ALLOWED = {
    "errors": set(),
    "checks": {"errors"},
    "entry": set(),
    "config": set(),
    "config_roles": {"config"},
    "sharding": set(),
    "figures": set(),
    "outputs": {"locks"},
    "locks": set(),
    "processes": set(),
    "data": {"config", "outputs"},
    "features": {"config", "data", "outputs"},
    "models": {"sharding"},
    "training": {"config", "config_roles", "data", "models", "outputs", "processes", "sharding"},
    "evaluation": {"config", "config_roles", "data", "models", "outputs", "sharding"},
    # What train.py runs: it composes the parts above.
    "experiment": {
        "config", "config_roles", "data", "evaluation", "features", "locks", "models", "outputs",
        "processes", "sharding", "training",
    },
    # Its export half; tests/serving/test_import_wall.py narrows the half that answers.
    "serving": {
        "config", "data", "evaluation", "experiment", "features", "figures", "locks", "models",
        "outputs", "sharding", "training",
    },
    "report": {
        "data", "evaluation", "experiment", "figures", "outputs", "serving", "sharding", "training",
    },
    "explore": {"data", "serving"},
    "cli": {
        "config", "data", "entry", "evaluation", "experiment", "explore", "features", "outputs",
        "processes", "report", "serving",
    },
    "configs": {"config", "data"},  # where the package was built
    "__init__": {"config", "data", "evaluation", "experiment", "features", "serving"},
}  # fmt: skip


def part_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path):
    """Names of our parts that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "bert4rec_jax":
                known = len(parts) > 1 and parts[1] in ALLOWED
                yield parts[1] if known else "bert4rec_jax"


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path):
    part = part_of(path)
    upward = set(imported(path)) - ALLOWED[part] - BASE - {part}
    assert not upward, f"{part} must not import {upward}"


@pytest.mark.parametrize("path", sorted((ROOT / "data").rglob("*.py")), ids=lambda p: p.name)
def test_data_code_does_not_import_jax(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {"jax", "flax", "optax"} & {name.split(".")[0] for name in names}


def test_only_one_file_knows_where_arrays_lie():
    """Axes, partition specs and collectives are of `sharding` alone."""
    collectives = {
        "psum", "pmax", "pmin", "pmean", "all_gather", "all_to_all", "ppermute", "psum_scatter",
        "axis_index", "axis_size", "PartitionSpec", "NamedSharding", "shard_map",
    }  # fmt: skip
    found = set()
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            named = isinstance(node, ast.Attribute) and node.attr in collectives
            imported = isinstance(node, ast.ImportFrom) and any(
                alias.name in collectives for alias in node.names
            )
            if named or imported:
                found.add(path.name)
    assert found == {"sharding.py"}


def test_only_the_pipeline_imports_grain():
    found = set()
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if "grain" in {name.split(".")[0] for name in names}:
                found.add(path.name)
    assert found == {"pipeline.py"}


def test_importing_the_package_is_light():
    code = "import bert4rec_jax, sys; print([m for m in ('jax', 'numpy') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]"


def test_what_the_package_offers_is_there():
    for name in bert4rec_jax.__all__:
        assert getattr(bert4rec_jax, name), name
    assert bert4rec_jax.train is bert4rec_jax.experiment.protocol.run
    with pytest.raises(AttributeError, match="no attribute 'fit'"):
        bert4rec_jax.fit  # noqa: B018
