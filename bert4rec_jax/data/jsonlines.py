"""JSON Lines: logs with one JSON object per line, read block by block."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.json as pa_json

from bert4rec_jax.data.delimited import (
    LINES,
    is_utf8,
    open_bytes,
    records,
    require_regular,
    shorten,
)
from bert4rec_jax.errors import UserError

SUFFIXES = (".jsonl", ".ndjson", ".json")
_BLOCK_BYTES = 8 << 20  # read at once; a longer line needs more
_LONGEST_LINE = 1 << 30
_SAMPLE = 100  # lines from which the columns and their types are inferred
_IDS = ("user", "item", "event")
_NULLS = pa.list_(pa.null())
_KINDS = {str: "text", int: "a number", float: "a number", bool: "true or false", list: "a list"}


def schema(path: Path, columns: Mapping[str, str | None], ids: Collection[str] = _IDS) -> pa.Schema:
    """The columns of a file: those of its first lines, and wanted ones that first occur later.

    Columns of numbers are read as floats, even if all their values are whole. Ids are read as whole
    numbers if all their values in the first lines are whole.

    Args:
      path: the file, which may be compressed.
      columns: role (user, item, timestamp, rating, event) -> the wanted name, or None.
      ids: the roles of ids, and of lists of ids.

    Raises:
      UserError: the file is empty or a pipe, or a line is not a JSON object in Unicode text.
    """
    require_regular(path)
    found: dict[str, list[Any]] = {}
    for line, text in itertools.islice(_lines(path), _SAMPLE):
        for name, value in _object(path, line, text).items():
            found.setdefault(name, []).append(value)
    if not found:
        raise UserError(f"{path} is empty")
    missing = [
        wanted
        for wanted in filter(None, columns.values())
        if not any(map(_tells, found.get(wanted, ())))
    ]
    found |= {name: [value] for name, value in _later(path, missing).items()}
    names = {columns.get(role) for role in ids}
    return pa.schema([(name, _type(values, name in names)) for name, values in found.items()])


def stream(path: Path, columns: Mapping[str, str]) -> Iterator[dict[str, pa.Array]]:
    """The wanted columns in the types of `schema`, batch by batch; a missing field is null.

    Args:
      path: the file, which may be compressed.
      columns: role, under which a column is returned -> its name in the file.

    Raises:
      UserError: a line is not a JSON object in Unicode text or has a wanted field twice, or a value
        is not of its column's type.
    """
    types = schema(path, columns)
    wanted = pa.schema([types.field(name) for name in dict.fromkeys(columns.values())])
    for batch in batches(path, wanted):
        yield {key: batch[name] for key, name in columns.items()}


def batches(path: Path, wanted: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The columns of a schema, batch by batch; see `stream`."""
    rows, block = 0, _BLOCK_BYTES
    while True:
        try:
            for batch in _batches(path, wanted, block, rows):
                rows += len(batch)
                yield batch
            return
        except pa.ArrowInvalid as error:
            if "straddling" not in str(error) or block >= _LONGEST_LINE:
                raise _explanation(path, wanted, error) from None
            block *= 8


def _batches(path: Path, wanted: pa.Schema, block: int, skip: int) -> Iterator[pa.RecordBatch]:
    """The rows after the first `skip`; no line may be longer than a block.

    pyarrow also reads two objects on one line, or one object on two, so lines are counted beside
    its rows. Where the counts differ, the file is read again to find the line.

    Raises:
      UserError: a line is not one JSON object.
    """
    rows = 0
    with open_bytes(path) as binary:
        counted = _LineCounter(binary)
        for batch in pa_json.open_json(
            counted,
            read_options=pa_json.ReadOptions(block_size=block),
            parse_options=_parsing(wanted),
        ):
            batch.validate(full=True)  # refuses text that is not UTF-8
            batch = _of_nulls(batch, wanted)
            rows += len(batch)
            dropped = min(skip, len(batch))
            skip -= dropped
            yield batch.slice(dropped)
    if rows != counted.lines:
        for line, text in _lines(path):
            _object(path, line, text)


def _parsing(wanted: pa.Schema) -> pa_json.ParseOptions:
    # pyarrow makes broken arrays of lists of nothing but nulls, if it is told that they are.
    read = pa.schema([
        field.with_type(pa.list_(pa.string())) if field.type == _NULLS else field
        for field in wanted
    ])  # fmt: skip
    return pa_json.ParseOptions(explicit_schema=read, unexpected_field_behavior="ignore")


def _of_nulls(batch: pa.RecordBatch, wanted: pa.Schema) -> pa.RecordBatch:
    """A batch whose lists of nothing but nulls have the type that is wanted again."""
    if _NULLS not in wanted.types:
        return batch
    return pa.RecordBatch.from_arrays(
        [
            pa.array(batch[field.name].to_pylist(), _NULLS)
            if field.type == _NULLS
            else batch[field.name]
            for field in wanted
        ],
        schema=wanted,
    )


class _LineCounter:
    """A binary stream that counts the lines that are not blank, as far as it has been read."""

    closed = False  # pyarrow asks; the file below is closed by whoever opened it

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._ended = 0
        self._begun = False  # whether the last line has anything but blanks so far

    @property
    def lines(self) -> int:
        return self._ended + self._begun

    def read(self, size: int = -1) -> bytes:
        found = self._stream.read(size)
        first, *others = found.split(b"\n")
        self._begun |= bool(first.strip())
        if others:
            *whole, last = others
            self._ended += self._begun + sum(map(bool, map(bytes.strip, whole)))
            self._begun = bool(last.strip())
        return found

    def close(self) -> None:
        pass


def line_of(path: Path, row: int) -> int:
    """The number of the line that holds row `row` (from 0)."""
    line, _ = next(itertools.islice(_lines(path), row, None))
    return line


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    return ((line, text) for line, (text,) in records(path, LINES) if text.strip())


def _object(path: Path, line: int, text: str) -> dict[str, Any]:
    if not is_utf8(text):
        raise UserError(
            f"{path}, line {line}: {shorten(text.encode(errors='surrogateescape'))} is not "
            "UTF-8 text; convert the file to UTF-8"
        )
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UserError(
            f"{path}, line {line}: {shorten(text)} is not JSON ({error}); expected one object per "
            "line: fix or remove the line"
        ) from None
    if not isinstance(value, dict):
        raise UserError(
            f"{path}, line {line}: {shorten(text)} is no object; expected one JSON object per line,"
            ' such as {"user_id": 7, ...}'
        )
    if "\\u" in text and not is_utf8(json.dumps(value, ensure_ascii=False)):
        raise UserError(
            f"{path}, line {line}: {shorten(text)} has half of a surrogate pair, which is not "
            "valid Unicode text; write both halves, or leave it out"
        )
    return value


def _later(path: Path, names: Collection[str]) -> dict[str, Any]:
    """Name -> the first value after the sampled lines that tells its column's kind.

    Columns without such a value are left out.
    """
    keys = {name: (json.dumps(name), json.dumps(name, ensure_ascii=False)) for name in names}
    found: dict[str, Any] = {}
    lines = itertools.islice(_lines(path), _SAMPLE, None) if keys else iter(())
    for line, text in lines:
        named = [name for name, forms in keys.items() if any(form in text for form in forms)]
        values = _object(path, line, text) if named else {}
        for name in named:
            if _tells(values.get(name)):
                found[name] = values[name]
                del keys[name]
        if not keys:
            break
    return found


def _tells(value: Any) -> bool:
    """Whether a value tells the kind of its column: null, and a list of nothing else, do not."""
    if isinstance(value, list):
        return any(entry is not None for entry in value)
    return value is not None


def _type(values: list[Any], is_id: bool) -> pa.DataType:
    """The Arrow type of the values of a column; null if there are none or their kinds differ."""
    given = [value for value in values if value is not None]
    kinds = {type(value) for value in given}
    if kinds == {list}:
        return pa.list_(_type(list(itertools.chain.from_iterable(given)), is_id))
    if kinds and kinds <= {int, float}:
        whole = is_id and kinds == {int} and all(-(2**63) <= value < 2**63 for value in given)
        return pa.int64() if whole else pa.float64()
    return {frozenset({str}): pa.string(), frozenset({bool}): pa.bool_()}.get(
        frozenset(kinds), pa.null()
    )


def _explanation(path: Path, wanted: pa.Schema, error: pa.ArrowInvalid) -> UserError:
    """The error for a file that pyarrow could not read; reads the file again to find the line."""
    seen: dict[str, list[Any]] = {field.name: [] for field in wanted}
    for number, (line, text) in enumerate(_lines(path)):
        values = _object(path, line, text)
        for field in wanted:
            value = values.get(field.name)
            if value is None:
                continue
            if number < _SAMPLE:
                seen[field.name].append(value)
                differs = _is_mixed(seen[field.name])
            else:
                differs = not _fits(value, field.type)
            if differs:
                if not _is_mixed([value]):
                    problem = (
                        "and of another kind in the first lines; expected the same kind in all "
                        "lines"
                    )
                elif isinstance(value, list) and not any(map(_is_mixed, ([x] for x in value))):
                    problem = "of several kinds; expected text alone, or numbers alone"
                else:
                    problem = (
                        "which cannot be read; expected text, a number, or a list of one of these"
                    )
                return UserError(
                    f"{path}, line {line}: {field.name} is {shorten(value)}, {_kind(value)}, "
                    f"{problem}: convert the column"
                )
    return _unread(path, wanted) or UserError(f"{path} cannot be read as JSON lines ({error})")


def _unread(path: Path, wanted: pa.Schema) -> UserError | None:
    """The error for the first line that pyarrow does not read by itself."""
    lines = _lines(path)
    while some := list(itertools.islice(lines, 1000)):
        if _refusal("\n".join(text for _, text in some), wanted):
            for line, text in some:
                if reason := _refusal(text, wanted):
                    return UserError(
                        f"{path}, line {line}: {shorten(text)} cannot be read ({reason}); fix or "
                        "remove the line"
                    )
    return None


def _refusal(text: str, wanted: pa.Schema) -> str:
    """Why pyarrow does not read some lines; empty if it does."""
    whole = text.encode()
    options = pa_json.ReadOptions(block_size=len(whole), use_threads=False)
    try:
        pa_json.read_json(pa.BufferReader(whole), options, _parsing(wanted))
    except pa.ArrowInvalid as error:
        return str(error).removeprefix("JSON parse error: ").split(" in row ")[0].rstrip(".")
    return ""


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), "an object")


def _is_mixed(values: list[Any]) -> bool:
    """Whether values are of several kinds, in lists too, or are objects, which no column holds."""
    kinds = {_kind(value) for value in values if value is not None}
    if kinds == {"a list"}:
        return _is_mixed(list(itertools.chain.from_iterable(filter(None, values))))
    return len(kinds) > 1 or "an object" in kinds


def _fits(value: Any, kind: pa.DataType) -> bool:
    if isinstance(value, list) and pa.types.is_list(kind):
        return all(entry is None or _fits(entry, kind.value_type) for entry in value)
    if pa.types.is_integer(kind) and isinstance(value, float):
        return False  # 1.0 too
    try:
        return pa.scalar(value, kind).as_py() == value and isinstance(value, bool) == (
            pa.types.is_boolean(kind)
        )
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return False
