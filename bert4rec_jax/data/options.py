"""Options for reading a log, in a module that the command line can import without pyarrow."""

from typing import Literal, get_args

Format = Literal[
    "movielens-dat", "movielens-100k", "movielens-csv", "pairs", "csv", "tsv", "jsonl", "parquet"
]
TimeUnit = Literal["s", "ms", "us", "ns"]
FORMATS: tuple[Format, ...] = get_args(Format)
ROWS_IN_MEMORY = 1 << 22  # default number of rows in memory at once
