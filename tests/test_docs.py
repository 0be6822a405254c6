"""Pages that run: docs/run.py in this process for some of them; links, lists and messages."""

import ast
import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console

import bert4rec_jax
from bert4rec_jax import cli
from bert4rec_jax.experiment import protocol, recipes

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="docs/ lies in the repository only")
RUN = ("quickstart", "explain", "report")


def pages():
    return sorted(DOCS.glob("*.md")) if DOCS.is_dir() else []


@pytest.fixture(scope="module")
def docs_run():
    """The script that runs all pages, as a module."""
    spec = importlib.util.spec_from_file_location("docs_run", DOCS / "run.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def in_this_process(patch):
    """From a command to what it does, without the seconds that a new process takes to start."""

    def perform(command, folder):
        patch.chdir(folder)
        if command.language == "python":
            exec(compile(command.text, command.page, "exec"), {})
            return
        program, *arguments = shlex.split(command.shortened, comments=True)
        if program == "python":
            assert arguments.pop(0) == "train.py"
            recipe, config = recipes.parse(arguments, ROOT / "configs")
            protocol.run(config, recipe=recipe, console=Console(quiet=True))
        else:
            assert program == "bert4rec", command.text
            patch.setattr(sys, "argv", [program, *arguments])
            cli.main()

    return perform


@pytest.fixture(scope="module")
def folder(docs_run, tmp_path_factory):
    """Where RUN has been run: the pages go on from each other."""
    made = tmp_path_factory.mktemp("pages") / "reader"
    docs_run.begin("quickstart", made, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(made / "cache"))
        patch.setattr("bert4rec_jax.entry.tune_memory", lambda: None)
        for page in RUN:
            assert docs_run.GOES_ON_FROM.get(page, "quickstart") == "quickstart"
            for command, _, error in docs_run.run_page(page, made, in_this_process(patch)):
                if error:
                    raise AssertionError(f"{page}: {command.text}") from error
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


def test_every_page_is_run_and_named_in_the_lists_as_it_is_called(docs_run):
    assert {"README", *(page.stem for page in pages())} == docs_run.pages().keys()
    for names in (docs_run.GOES_ON_FROM, docs_run.TYPED_BEFORE):
        assert names.keys() <= docs_run.pages().keys()
    every = [command for page in docs_run.pages() for command in docs_run.commands(page)]
    assert len(every) > 80
    for pattern, _ in docs_run.NOT_RUN:
        assert any(re.search(pattern, command.text) for command in every), pattern
    for command in every:
        docs_run.check_extras(command.text)


def test_a_command_that_fails_is_seen(docs_run, tmp_path):
    def fail(command, folder):
        raise RuntimeError(command.shortened)

    steps = [*docs_run.run_page("report", tmp_path, fail)]
    assert [str(error) for _, _, error in steps] == [
        "bert4rec report runs/mine",
        "bert4rec report runs/mine --output report.html",
    ]


def test_trainings_are_short_unless_the_page_says_otherwise(docs_run):
    def shortened(text):
        return docs_run.Command("README", 1, "bash", text).shortened

    found = shortened("python train.py --model.dim 64  # wide")
    assert found.startswith("python train.py --model.dim 64 --data.max-length 12 --model.heads 2")
    assert found.endswith("--evaluation.no-baselines")
    loop = shortened("for seed in 0 1; do python train.py --training.seed $seed; done")
    assert loop.startswith("for seed in 0 1; do python train.py --training.seed $seed --data.")
    assert loop.endswith("--evaluation.no-baselines; done")
    for text in ("python train.py --help", "bert4rec report runs/mine"):
        assert shortened(text) == text


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
