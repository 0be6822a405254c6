"""Literals: lists and objects as Python and NumPy write them, and pandas into CSV."""

from __future__ import annotations

import ast
import re
from io import StringIO
from tokenize import STRING, TokenError, generate_tokens
from typing import Any

_SIDE_BY_SIDE = re.compile(r"""['"}]\s+['"{]""")  # within a text, too


def literal(text: str) -> Any:
    """The value of a text such as `['a', 'b']`, or `['a' 'b']` as NumPy writes an array.

    Python alone takes texts without a comma in between for one: `['ab']`.

    Raises:
      ValueError: the text is no literal.
    """
    text = text.strip()
    try:
        return ast.literal_eval(_with_commas(text) if _SIDE_BY_SIDE.search(text) else text)
    except (TokenError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(str(error)) from None


def _with_commas(text: str) -> str:
    """The text with a comma between texts or objects that have only spaces between them."""
    found = [""]
    for token in generate_tokens(StringIO(text).readline):
        begins = token.type == STRING or token.string == "{"
        if begins and found[-1].endswith(("'", '"', "}")):
            found.append(",")
        if token.string.strip():
            found.append(token.string)
    return " ".join(found).strip()
