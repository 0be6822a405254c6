"""The `bert4rec` command: a file per subcommand, whose signature and docstring are the help.

To add a command, write its file and name its function below. Commands import what they use inside:
`bert4rec prepare` starts without jax.
"""

import sys

import tyro

import bert4rec_jax
from bert4rec_jax.cli.add_items import add_items
from bert4rec_jax.cli.compare import compare
from bert4rec_jax.cli.evaluate import evaluate
from bert4rec_jax.cli.explain import explain
from bert4rec_jax.cli.explore import explore
from bert4rec_jax.cli.export import export
from bert4rec_jax.cli.features import features
from bert4rec_jax.cli.pipeline import pipeline
from bert4rec_jax.cli.prepare import prepare
from bert4rec_jax.cli.rank import rank
from bert4rec_jax.cli.recommend import recommend
from bert4rec_jax.cli.report import report
from bert4rec_jax.cli.similar import similar
from bert4rec_jax.cli.train import train, train_command
from bert4rec_jax.entry import run_command, run_program

_app = tyro.extras.SubcommandApp()
for _command in (
    prepare,
    train,
    evaluate,
    compare,
    features,
    export,
    add_items,
    pipeline,
    rank,
    recommend,
    similar,
    explain,
    report,
    explore,
):
    _app.command(_command)


def main() -> None:
    """Run `bert4rec` with the arguments of the process; see `entry.run_command` for its status."""
    if sys.argv[1:] == ["--version"]:
        print(f"bert4rec-jax {bert4rec_jax.__version__}")
        return
    if sys.argv[1:2] == ["train"]:  # its options are those of a config, with a recipe's defaults
        run_command(lambda: train_command(sys.argv[2:]))
        return
    run_command(
        lambda: _app.cli(prog="bert4rec", description="BERT4Rec: what users watch or choose next.")
    )


def program() -> None:
    """Run `bert4rec` as the program of the process."""
    run_program(main)
