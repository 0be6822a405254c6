"""Pages that run: their commands and their Python, in order, on a small log; links and messages."""

import ast
import csv
import re
import shlex
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console

import bert4rec_jax
from bert4rec_jax import cli, experiment, recipes

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="docs/ lies in the repository only")
RUN = ("quickstart", "explain", "report", "explore")
NAMED = {"0133093", "0083658", "1074638", "1454468", "1276104"}  # movies that the pages speak of
SMALL = {
    "data.max-length": 12, "data.min-user-interactions": 1, "data.min-item-interactions": 1,
    "model.dim": 16, "model.heads": 2, "model.ffn-dim": 32, "training.epochs": 1,
    "training.evaluate-every": 1, "evaluation.bootstrap": 100,
}  # fmt: skip


def pages():
    return sorted(DOCS.glob("*.md")) if DOCS.is_dir() else []


def blocks(page):
    """The blocks of a page that are meant to be run, in order: (language, content)."""
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(r"^```(bash|python)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def shorten():
    """Keep of the log what is watched often, by 400 who saw a movie that the pages speak of."""
    log = Path("ratings.csv")
    with log.open(encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    times = Counter(row[1] for row in rows)
    movies = NAMED | {movie for movie, _ in times.most_common(80)}
    users = dict.fromkeys(row[0] for row in rows if row[1] in NAMED)
    kept = set(list(users)[:400])
    with log.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [header, *(row for row in rows if row[0] in kept and row[1] in movies)]
        )


def perform(line, patch):
    """One command as it stands, but for a training that is short."""
    program, *arguments = shlex.split(line, comments=True)
    if program == "pip":
        extras = re.findall(r"\.\[(\w+)\]", line)
        declared = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        assert all(f"\n{extra} = [" in declared for extra in extras)
    elif program == "python":
        assert arguments.pop(0) == "train.py"
        small = [text for name, value in SMALL.items() for text in (f"--{name}", str(value))]
        everything = [*arguments, *small, "--evaluation.no-baselines"]
        recipe, config = recipes.parse(everything, ROOT / "configs")
        experiment.run(config, recipe=recipe, console=Console(quiet=True))
    else:
        assert program == "bert4rec", line
        patch.setattr(sys, "argv", [program, *arguments])
        cli.main()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where every block of RUN has been run, in order."""
    made = tmp_path_factory.mktemp("reader")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        patch.setenv("XDG_CACHE_HOME", str(made / "cache"))
        patch.setattr("bert4rec_jax.entry.tune_memory", lambda: None)
        for page in RUN:
            for language, content in blocks(page):
                if language == "python":
                    exec(compile(content, page, "exec"), {})
                    if page == "quickstart" and not Path("data/mine").exists():
                        shorten()
                else:
                    for line in filter(None, content.splitlines()):
                        perform(line, patch)
    return made


def test_a_newcomer_gets_from_a_csv_to_ranked_lists(folder):
    ranked = pq.read_table(folder / "ranked").to_pylist()
    assert len(ranked) == 400 and all(len(row["item_ids"]) == 10 for row in ranked)
    requests = pq.read_table(folder / "requests.parquet").to_pylist()
    for asked, row in zip(requests, ranked):
        assert asked["user_id"] == row["user_id"]
        assert not set(asked["history"]) & set(row["item_ids"])


def test_pages_leave_what_they_promise(folder):
    assert "Worst misses" in (folder / "runs/mine/report.html").read_text()
    assert (folder / "report.html").is_file() and "<svg" in (folder / "why.svg").read_text()


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_site_has_every_page():
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert {page.name for page in pages()} == set(re.findall(r": (\w+\.md)$", nav, re.MULTILINE))


def messages():
    """Every text in the code, with … for what is filled in."""
    for path in Path(bert4rec_jax.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [getattr(part, "value", None) for part in node.values]
                yield "".join(part if isinstance(part, str) else "…" for part in parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_the_messages_of_troubleshooting_are_those_of_the_code():
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)
    said = "\n".join(messages())
    assert len(named) > 20
    assert [message for message in named if message not in said] == []
