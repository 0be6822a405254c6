"""Options for reading a log, in a module that the command line can import without pyarrow."""

from typing import Literal, get_args

Format = Literal[
    "movielens-dat", "movielens-100k", "movielens-csv", "pairs", "csv", "tsv", "jsonl", "parquet"
]
TimeUnit = Literal["s", "ms", "us", "ns"]
FORMATS: tuple[Format, ...] = get_args(Format)
ROWS_IN_MEMORY = 1 << 22  # default number of rows in memory at once


def option(shell: str, python: str) -> str:
    """How a message names an option of `prepare`: in a shell, and from Python."""
    return f"{shell} (in Python: {python})"


def column_option(role: str) -> str:
    """How a message names the option for the column of a role."""
    return option(f"`bert4rec prepare --{role}-column NAME`", f"columns={{{role!r}: NAME}}")


def unit_option(unit: str) -> str:
    """How a message names the option for the unit of times."""
    return option(f"--timestamp-unit {unit}", f"columns={{'unit': {unit!r}}}")
