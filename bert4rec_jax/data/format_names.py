"""Format names: the kinds of logs that can be read; the command line names them without pyarrow."""

from typing import Literal, get_args

Format = Literal[
    "movielens-dat", "movielens-100k", "movielens-csv", "pairs", "csv", "tsv", "parquet"
]
FORMATS: tuple[Format, ...] = get_args(Format)
