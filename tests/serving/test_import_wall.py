"""Answering needs jax, numpy, pyarrow, safetensors and flatbuffers; training is not installed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from bert4rec_jax import serving

ROOT = Path(serving.__file__).parent
EXPORT = {"add_items.py", "evaluation.py", "export.py", "traced.py"}
ANSWER = sorted(path for path in ROOT.glob("*.py") if path.name not in EXPORT)
PAGE = sorted((ROOT.parent / "explore").glob("*.py"))
# Of ours: what the answering half may import. data.pipeline alone imports Grain.
OURS = {
    "checks", "data", "errors", "evaluation.lift", "evaluation.ranks", "features.known_users",
    "features.user_encoding", "figures", "locks", "outputs", "serving", "sharding",
}  # fmt: skip
THIRD = {"jax", "numpy", "pyarrow", "safetensors", "rich"}

BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("flax", "optax", "orbax", "grain", "tensorboardX"):
            raise ModuleNotFoundError(f"{name} is blocked")
sys.meta_path.insert(0, Block())
"""
ANSWERS = """
import bert4rec_jax
scorer = bert4rec_jax.load(sys.argv[1])
ids = scorer.catalog.item_ids
print(len(scorer.recommend(ids[:3], k=4)), len(scorer.rank([ids[:3]], [ids[5:8]])[0]))
import pyarrow as pa, pyarrow.parquet as pq
asked = pa.table({"user_id": ["a"], "history": [list(ids[:3])]})
pq.write_table(asked, sys.argv[2] + "/in.parquet")
sys.argv = ["bert4rec", "rank", sys.argv[1], "--requests", sys.argv[2] + "/in.parquet",
            "--output", sys.argv[2] + "/out"]
from bert4rec_jax.cli import main
main()
"""


def names(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def imports_only(path, ours, third):
    for name in names(path):
        first, _, rest = name.partition(".")
        if first == "bert4rec_jax":
            assert any(rest == part or rest.startswith(f"{part}.") for part in ours), name
            assert rest.removeprefix("serving.") + ".py" not in EXPORT
            assert rest != "data.pipeline"
        else:
            assert first in third or first in sys.stdlib_module_names, name


@pytest.mark.parametrize("path", ANSWER, ids=lambda path: path.name)
def test_the_answering_half_imports_little(path):
    imports_only(path, OURS, THIRD | ({"ray"} if path.name == "ray_engine.py" else set()))


@pytest.mark.parametrize("path", PAGE, ids=lambda path: path.name)
def test_the_page_imports_little_more(path):
    imports_only(path, OURS | {"explore"}, THIRD | {"jinja2", "markupsafe", "starlette", "uvicorn"})


def test_answers_without_what_training_needs(bundle, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", BLOCK + ANSWERS, str(bundle), str(tmp_path)],
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("4 3\n") and "ranked" in done.stdout


def test_the_block_works():
    done = subprocess.run(
        [sys.executable, "-c", BLOCK + "import bert4rec_jax.serving.export"],
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert "is blocked" in done.stderr
