"""Run every command and every Python block of the pages and of README, as a reader types them.

    python docs/run.py                  # all pages
    python docs/run.py quickstart       # one, and the pages that it goes on from
    python docs/run.py --list           # what would be run and how; what is not, and why

Each page has a scratch folder that holds what a checkout has (train.py, configs/, benchmarks/) and
what its reader is said to have: a log, a table of movies, requests. Lists below say where a page
begins, what is not run and why, and how trainings are shortened; nothing else is left out or
changed. The end is a table of the pages; the status is 1 if anything failed.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
CHECKOUT = ("train.py", "configs", "benchmarks", "docs", "pyproject.toml", "mkdocs.yml")
SECONDS = 600  # that a command may take

# A page goes on in a copy of the folder where another one ended.
GOES_ON_FROM = {
    "explain": "quickstart",
    "report": "quickstart",
    "explore": "quickstart",
    "watching": "quickstart",
    "cold_start": "README",
    "scaling": "quickstart",
    "extending": "quickstart",
    "evaluation": "quickstart",
}
# What the reader of a page has typed before, where no other page says it.
TYPED_BEFORE = {
    "serving": [
        "python train.py movietweetings",
        "python train.py movietweetings --model.times --workdir runs/timed",
        "bert4rec export runs/timed bundles/timed",
    ],
    "two_stage": [
        "bert4rec prepare ratings.csv --user-column user --item-column movie "
        "--timestamp-column time --rating-column stars --titles movies.csv --output data/mine",
    ],
    "explore": [
        "python train.py general --data.path data/mine --training.seed 1 --workdir runs/other",
        "bert4rec export runs/other bundles/other",
    ],
    "cold_start": [
        "python train.py",
        "bert4rec export runs/movietweetings bundles/movies",
        "bert4rec prepare ratings.csv --user-column user --item-column movie "
        "--timestamp-column time --rating-column stars --titles movies.csv --output data/newer "
        "--min-item-interactions 1",
        "bert4rec features data/mine --embeddings vectors.parquet --output content/vectors",
        "python train.py general --data.path data/mine --data.content content/vectors "
        "--workdir runs/mine-vectors",
    ],
}
NOT_RUN = (
    (r"^pip install", "what is installed here is what is tested; the extras named are checked"),
    (r"^pytest", "the tests are a job of their own"),
    (r"--text\b|--text-model", "downloads a text model from Hugging Face"),
    (r"^ray start|/mnt/|^gcloud|^JAX_COORDINATOR", "needs the machines of a cluster"),
    (r"--mesh\.model 4", "needs a machine with four devices"),
    (r"tpu_plan\.py", "compiles for minutes, with libtpu"),
)
# Pages of commands that run on data which cannot be shipped, with the whole recipes.
OTHER_DATA = {"results": "needs MovieLens-1M and a table of TMDB"}
NEEDS = ("ray", "tensorboard", "wandb", "mkdocs")  # of what is not installed nothing is run
SERVERS = r"^(bert4rec explore|tensorboard|mkdocs serve)\b"  # asked for their page, then stopped
# Trainings: one short epoch of a small model. What a command says itself stays.
SMALL = {
    "data.max-length": "12", "model.dim": "16", "model.heads": "2", "model.ffn-dim": "32",
    "training.epochs": "1", "training.evaluate-every": "1", "evaluation.bootstrap": "100",
    "evaluation.no-baselines": "",
}  # fmt: skip
SHORTER = (
    (
        r"^(for .*; do )?python train\.py(?!.*--help)",
        " ".join(f"--{k} {v}".strip() for k, v in SMALL.items()),
    ),
    (r"^python benchmarks/incremental\.py", "--epochs 1 --more-epochs 1"),
)
USERS, MOVIES = 400, 80  # that are kept of the log which the quickstart writes
NAMED = ("0133093", "0083658", "1074638", "1454468", "1276104")  # movies that pages speak of


@dataclass(frozen=True)
class Command:
    """What is run at once.

    Attributes:
      page: where it stands, as README or the name of a page of docs/.
      block: number of its block on the page.
      language: bash or python.
      text: as it stands there.
    """

    page: str
    block: int
    language: str
    text: str

    @property
    def not_run(self) -> str:
        """Why it is not run; empty for what is run."""
        if self.page in OTHER_DATA:
            return OTHER_DATA[self.page]
        if self.language == "bash":
            for pattern, reason in NOT_RUN:
                if re.search(pattern, self.text):
                    return reason
        for name in NEEDS:
            if re.search(rf"\b{name}\b", self.text) and not importlib.util.find_spec(name):
                return f"{name} is not installed here"
        return ""

    @property
    def shortened(self) -> str:
        """What is run instead of `text`."""
        if self.language == "python":
            return self.text
        command, _, _ = re.sub(r"\\\n\s*", "", self.text).partition("  #")
        for pattern, options in SHORTER:
            if re.search(pattern, command):
                said = set(re.findall(r"--([\w.-]+)", command))
                names = re.findall(r"--(\S+)(?: ([^-]\S*))?", options)
                more = [f"--{name} {value}".strip() for name, value in names if name not in said]
                command, done, _ = command.strip().partition("; done")
                return " ".join([command, *more]) + done
        return self.text


def pages() -> dict[str, Path]:
    """Name -> file, in the order of the site's menu, README first."""
    menu = re.findall(r": (\w+)\.md$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.M)
    return {"README": ROOT / "README.md"} | {name: ROOT / "docs" / f"{name}.md" for name in menu}


def blocks(page: str) -> list[tuple[str, str]]:
    """The blocks of a page that are meant to be run, in order: (language, content)."""
    text = pages()[page].read_text(encoding="utf-8")
    return re.findall(r"^```(bash|console|python)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(page: str) -> list[Command]:
    """What is run of a page: lines of commands, whole scripts, and whole blocks of Python."""
    found = []
    for number, (language, content) in enumerate(blocks(page), start=1):
        if language == "python" or content.startswith("#!"):
            texts = [content]
        else:
            lines = re.split(r"(?<!\\)\n", content)
            texts = [part for line in lines for part in line.strip().split(" && ")]
            texts = [text for text in texts if text and not text.startswith("#")]
        kind = "python" if language == "python" else "bash"
        found += [Command(page, number, kind, text) for text in texts]
    return found


def check_extras(text: str) -> None:
    """Raise KeyError if a `pip install` names an extra that pyproject.toml does not have."""
    declared = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extra in re.findall(r"(?:\.|bert4rec-jax)\[(\w+)\]", text):
        if f"\n{extra} = [" not in declared:
            raise KeyError(f"pyproject.toml has no extra {extra!r}")


def in_a_shell(command: Command, folder: Path) -> None:
    """Run a command as it would be typed; raises CalledProcessError with what it printed."""
    if command.language == "python":
        arguments = [sys.executable, "-c", command.shortened]
    else:
        arguments = ["bash", "-euo", "pipefail", "-c", command.shortened]
    if re.search(SERVERS, command.text):
        return _ask_server(arguments, folder)
    done = subprocess.run(
        arguments,
        cwd=folder,
        env=_environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
    )
    (folder / "printed.txt").write_text(done.stdout, encoding="utf-8")
    done.check_returncode()
    return None


def _ask_server(arguments: Sequence[str], folder: Path) -> None:
    """Start a server, ask for the page whose address it prints, and stop it by Ctrl-C."""
    printed = folder / "printed.txt"
    with printed.open("w", encoding="utf-8") as output:
        server = subprocess.Popen(
            arguments,
            cwd=folder,
            env=_environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        end = time.monotonic() + 120
        while not (address := re.search(r"http://\S+/", printed.read_text(encoding="utf-8"))):
            if server.poll() is not None or time.monotonic() > end:
                raise subprocess.CalledProcessError(server.poll() or 124, arguments)
            time.sleep(0.2)
        with urllib.request.urlopen(address.group(), timeout=60) as page:
            page.read()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGINT)
        server.wait(60)


def _environment(folder: Path) -> dict[str, str]:
    """That of this process, but nothing is read from or written to the reader's own folders."""
    here = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    quick = f"--xla_backend_optimization_level=0 {os.environ.get('XLA_FLAGS', '')}"
    return {
        **os.environ,
        "PATH": here,
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "COLUMNS": "150",
        "WANDB_MODE": "offline",
        # What is compiled is compiled once for all pages, and quickly.
        "JAX_COMPILATION_CACHE_DIR": str(folder.parent / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "XLA_FLAGS": quick.strip(),
    }


def write_log() -> None:
    """Write `ratings.csv` and `movies.csv` here: what the quickstart writes, cut short."""
    exec(_python("quickstart", "ratings.csv"), {})
    cut_log()


def cut_log() -> None:
    """Keep of `ratings.csv` what is watched often, by users who saw a movie that pages speak of."""
    log = Path("ratings.csv")
    with log.open(encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    movies = {*NAMED} | {movie for movie, _ in Counter(row[1] for row in rows).most_common(MOVIES)}
    users = [*dict.fromkeys(row[0] for row in rows if row[1] in NAMED)][:USERS]
    kept = {*users}
    with log.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [header, *(row for row in rows if row[0] in kept and row[1] in movies)]
        )


def write_what_the_reader_has() -> None:
    """Write the log, its requests and metadata of its movies here: made up, in TMDB's schema."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    write_log()
    exec(_python("quickstart", "requests.parquet"), {})
    Path("requests").mkdir()
    shutil.copy("requests.parquet", f"requests/{date.today()}.parquet")
    text = {name: pa.string() for name in ("user", "movie")}
    log = pyarrow.csv.read_csv(
        "ratings.csv", convert_options=pyarrow.csv.ConvertOptions(column_types=text)
    )
    for number, rows in enumerate((log.slice(0, 99), log.slice(99))):
        Path(f"data/events/part={number}").mkdir(parents=True)
        pq.write_table(rows, f"data/events/part={number}/rows.parquet")
    users = [*dict.fromkeys(log["user"].to_pylist())]
    ages = pa.table({"user_id": users, "age": [20 + len(user) for user in users]})
    pyarrow.csv.write_csv(ages, "users.csv")
    with Path("movies.csv").open(encoding="utf-8") as file:
        movies = [*csv.DictReader(file)]
    ids = [movie["movieId"] for movie in movies]
    pq.write_table(pa.table(_metadata(ids, [m["title"] for m in movies])), "movies.parquet")
    Path("ids.txt").write_text("".join(f"{item} tt{item}\n" for item in ids), encoding="utf-8")
    vectors = np.random.default_rng(0).normal(size=(len(ids), 8)).astype(np.float32)
    np.save("vectors.npy", vectors)
    known = pa.table({"imdb_id": [f"tt{item}" for item in ids], "vector": vectors.tolist()})
    pq.write_table(known, "vectors.parquet")
    others = pa.table({"imdb_id": ["tt0087332", "tt0088763"], "vector": vectors[:2].tolist()})
    pq.write_table(others, "new.parquet")
    new = ["9000001", "9000002", "0111161", "0068646"]  # the last two are named in cold_start.md
    released = pa.table(_metadata(new, [f"New release {place} (2014)" for place in range(4)]))
    pyarrow.csv.write_csv(released.slice(0, 2), "releases.csv")
    pq.write_table(released, "tmdb.parquet")


def _metadata(ids: list[str], titles: list[str]) -> dict[str, list[object]]:
    """Columns of TMDB's schema, made up from the digits of the ids."""
    digits = [int(item) for item in ids]
    return {
        "imdb_id": [f"tt{item}" for item in ids],
        "title": [re.sub(r" \(\d{4}\)$", "", title) for title in titles],
        "release_date": [f"{title[-5:-1]}-06-01" for title in titles],
        "original_language": [("en", "fr", "ko")[n % 3] for n in digits],
        "genres": [("Drama", "Comedy|Drama", "Thriller")[n % 3] for n in digits],
        "keywords": [f"keyword {n % 7}|keyword {n % 11}" for n in digits],
        "cast": [f"Actor {n % 13}|Actor {n % 17}" for n in digits],
        "director": [f"Director {n % 19}" for n in digits],
        "production_companies": [f"Company {n % 5}" for n in digits],
        "runtime": [80 + n % 80 for n in digits],
        "budget": [n % 90 * 1_000_000 for n in digits],
        "overview": [f"A movie about {n % 23}." for n in digits],
    }


def _python(page: str, holding: str) -> str:
    """The first Python block of a page that names a file."""
    return next(text for kind, text in blocks(page) if kind == "python" and f'"{holding}"' in text)


def begin(page: str, folder: Path, earlier: Path | None) -> None:
    """Make the folder in which a page is run, from that of an earlier page where there is one."""
    if earlier is not None:
        shutil.copytree(earlier, folder)
        return
    folder.mkdir(parents=True)
    for name in CHECKOUT:
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, folder / name)
    if page != "quickstart":  # that page writes its own
        with contextlib.chdir(folder):
            write_what_the_reader_has()


def run_page(
    page: str, folder: Path, perform: Callable[[Command, Path], None] = in_a_shell
) -> Iterator[tuple[Command, str, Exception | None]]:
    """Run a page in its folder.

    Yields:
      Each command as soon as it is done: why it was not run, and what it raised. What has to be
      typed before the page is run first and given out where it failed only.
    """
    for text in TYPED_BEFORE.get(page, ()):
        command = Command(page, 0, "bash", text)
        if error := _tried(perform, command, folder):
            yield command, "", error
    for command in commands(page):
        if reason := command.not_run:
            check_extras(command.text)
            yield command, reason, None
            continue
        error = _tried(perform, command, folder)
        yield command, "", error
        if page == "quickstart" and command.language == "python" and command.block == 2:
            with contextlib.chdir(folder):
                cut_log()


def _tried(
    perform: Callable[[Command, Path], None], command: Command, folder: Path
) -> Exception | None:
    try:
        perform(command, folder)
    except Exception as error:
        return error
    return None


def in_order(wanted: Sequence[str]) -> list[str]:
    """Pages as they have to be run, with those that others go on from."""
    ordered: list[str] = []
    for page in wanted:
        for one in filter(None, (GOES_ON_FROM.get(page), page)):
            if one not in ordered:
                ordered.append(one)
    return ordered


def show_list(wanted: Sequence[str], console: Console) -> None:
    """Say of every command whether and how it would be run."""
    for page in wanted:
        console.print(f"[bold]{page}[/]")
        for command in commands(page):
            how = f"not run: {command.not_run}" if command.not_run else command.shortened
            console.print(
                f"  {command.block}. {how.strip()}", markup=False, highlight=False, soft_wrap=True
            )


def run_all(wanted: Sequence[str], scratch: Path, console: Console) -> bool:
    """Run pages, show a table, and say whether all went well."""
    table = Table("page", *("blocks", "commands", "run", "shortened", "not run", "failed", "s"))
    left_out: dict[str, list[str]] = {}
    well = True
    for page in in_order(wanted):
        started = time.monotonic()
        counts = Counter(commands=len(commands(page)))
        earlier = GOES_ON_FROM.get(page)
        begin(page, scratch / page, scratch / earlier if earlier else None)
        for command, reason, error in run_page(page, scratch / page):
            first = command.text.strip().splitlines()[0].partition("  #")[0].rstrip()
            done = "not run" if reason else "failed" if error else "run"
            counts[done] += 1
            counts["shortened"] += done != "not run" and command.shortened != command.text
            console.print(
                f"{page} {command.block}: {done}: {first}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
            if reason:
                left_out.setdefault(reason, []).append(f"{page}: {first}")
            if error:
                console.print(f"  {error}", markup=False, highlight=False, soft_wrap=True)
                with contextlib.suppress(FileNotFoundError):
                    console.print((scratch / page / "printed.txt").read_text(), markup=False)
        well &= not counts["failed"]
        names = ("commands", "run", "shortened", "not run", "failed")
        seconds = f"{time.monotonic() - started:.0f}"
        table.add_row(page, str(len(blocks(page))), *(str(counts[name]) for name in names), seconds)
    console.print(table)
    for reason, lines in left_out.items():
        console.print(f"not run: {reason}", markup=False, highlight=False)
        for line in lines:
            console.print(f"    {line}", markup=False, highlight=False, soft_wrap=True)
    return well


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("pages", nargs="*", metavar="PAGE", help="all, if none is named")
    parser.add_argument("--list", action="store_true", help="run nothing, say what would be run")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave scratch folders here")
    asked = parser.parse_args()
    if unknown := set(asked.pages) - pages().keys():
        parser.error(f"no page {', '.join(sorted(unknown))}; there are {', '.join(pages())}")
    wanted = asked.pages or list(pages())
    console = Console()
    if asked.list:
        show_list(wanted, console)
        return
    with contextlib.ExitStack() as stack:
        made = asked.keep or stack.enter_context(tempfile.TemporaryDirectory(prefix="pages-"))
        if not run_all(wanted, Path(made).resolve(), console):
            sys.exit(1)


if __name__ == "__main__":
    main()
