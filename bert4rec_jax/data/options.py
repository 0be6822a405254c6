"""Options of reading a log, which the command line names without pyarrow."""

from typing import Literal, get_args

Format = Literal[
    "movielens-dat", "movielens-100k", "movielens-csv", "pairs", "csv", "tsv", "jsonl", "parquet"
]
TimeUnit = Literal["s", "ms", "us", "ns"]
FORMATS: tuple[Format, ...] = get_args(Format)
ROWS_IN_MEMORY = 1 << 22  # at once, unless told otherwise
