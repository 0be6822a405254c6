import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bert4rec_jax.data.records import read_records
from bert4rec_jax.errors import UserError

TEXT = 'id,title,genres\n1,Ärger,\n\n2,"Two, and\nmore",Crime|Drama\n'
ROWS = [
    {"id": "1", "title": "Ärger", "genres": ""},
    {"id": "2", "title": "Two, and\nmore", "genres": "Crime|Drama"},
]


def refused(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as caught:
        list(read_records(path))
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(str(path))


@pytest.mark.parametrize("name", ["m.csv", "m.CSV", "m.csv.xz", "m.tsv"])
def test_delimited_text_with_its_lines(tmp_path, name):
    text = TEXT.replace("Two, and", "Two; and").replace(",", "\t") if "tsv" in name else TEXT
    content = text.encode("utf-8-sig")
    file = tmp_path / name
    file.write_bytes(lzma.compress(content) if name.endswith("xz") else content)
    records = list(read_records(file))
    if "tsv" not in name:
        assert [values for _, values in records] == ROWS
    assert [where for where, _ in records] == [f"{file}, line 2", f"{file}, line 4"]


@pytest.mark.parametrize("name", ["m.jsonl", "m.json", "m.ndjson", "m.json.xz"])
def test_json_lines_and_arrays(tmp_path, name):
    pack = lzma.compress if name.endswith("xz") else bytes
    file = tmp_path / name
    lines = "\n" + "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)
    file.write_bytes(pack(lines.encode("utf-8-sig")))
    assert list(read_records(file)) == [(f"{file}, line {i + 2}", ROWS[i]) for i in range(2)]
    file.write_bytes(pack(json.dumps(ROWS, indent=1).encode("utf-8-sig")))
    assert list(read_records(file)) == [(f"{file}, entry {i + 1}", ROWS[i]) for i in range(2)]


def test_parquet_reads_what_is_wanted(tmp_path):
    file = tmp_path / "m.parquet"
    rows = [{"id": 7, "genres": ["Drama"], "title": None}, {"id": 8, "genres": [], "title": "B"}]
    pq.write_table(pa.Table.from_pylist(rows), file)
    assert list(read_records(file)) == [(f"{file}, row {i + 1}", rows[i]) for i in range(2)]
    wanted = list(read_records(file, {"id", "absent"}))
    assert [values for _, values in wanted] == [{"id": 7}, {"id": 8}]


def test_two_columns_of_one_name_are_refused_where_they_are_read(tmp_path):
    columns = [pa.array([1]), pa.array(["a"]), pa.array(["b"])]
    pq.write_table(pa.table(columns, names=["id", "zone", "zone"]), tmp_path / "m.parquet")
    assert [values for _, values in read_records(tmp_path / "m.parquet", {"id"})] == [{"id": 1}]
    with pytest.raises(UserError, match=r"m.parquet has 2 columns called 'zone'; expected one"):
        list(read_records(tmp_path / "m.parquet"))


def test_times_that_python_cannot_hold(tmp_path):
    when = pa.array([None, 2**50], pa.timestamp("ms"))  # in the year 37648
    pq.write_table(pa.table({"id": ["a", "b"], "when": when}), tmp_path / "m.parquet")
    assert len(list(read_records(tmp_path / "m.parquet", ["id"]))) == 2
    with pytest.raises(UserError, match=r"m.parquet: column 'when' of type timestamp\[ms\] holds"):
        list(read_records(tmp_path / "m.parquet"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.jsonl", '{"id": 1}\n\n{"id": 2, \n', ", line 3: '{\"id\": 2,' is broken JSON (Expec"),
        ("m.jsonl", '{"id": 1}\n[1]\n', ", line 2: [1] is no JSON object; expected one JSON o"),
        ("m.jsonl", "null\n", ", line 1: None is no JSON object; expected one JSON object per"),
        ("m.json", '[{"id": 1},\n{"id" 2}]', ", line 2: '{\"id\" 2}]' is broken JSON (Expecting"),
        ("m.json", '[{"id": 1}, 2]', ", entry 2: 2 is no JSON object; expected one JSON object"),
        ("m.json", '[{"id": 1},', ", line 1: '[{\"id\": 1},' is broken JSON"),
        ("m.json", b'{"id": "caf\xe9"}\n', r""", line 1: b'{"id": "caf\xe9"}\n' is not UTF-8"""),
        ("m.json", b'[\n{"id": "caf\xe9"}]', r""", line 2: b'{"id": "caf\xe9"}]' is not UTF-8"""),
        ("m.csv", b"id,title\n1,a\n2,caf\xe9\n", r", line 3: b'2,caf\xe9' is not UTF-8 text; conv"),
        ("m.csv", "id;title\n1;a\n", " is cut by semicolons ('id;title'); save it with commas"),
        ("m.csv", "id,title\n1,a\n2,b,c\n", ", line 3: '2,b,c' has 3 fields, expected 2 as in the"),
        ("m.csv", "id,id\n1,2\n", ", line 1: two columns are called 'id'; expected one of each"),
        ("m.csv", f'id,title\n1,"{"x" * 140_000}"\n', ": cannot cut the text after line 1 into f"),
        ("m.csv", 'id,title\n1,a\n2,"b\n3,c\n', ", line 3: a quote is never closed, so all that"),
        ("m.csv", "id,title\n", " is empty: it holds no item"),
        ("m.csv", "", " is empty: it holds no item"),
        ("m.json", "\n", " is empty: it holds no item"),
        ("m.json", "[]", " is empty: it holds no item"),
        ("m.xlsx", "x", " is of no known format; expected a file that ends in .parquet, .csv"),
        ("m.parquet", "PAR1", " is not a whole Parquet file; if a copy was cut off, copy it again"),
        ("m.csv.xz", lzma.compress(b"id,title\n" * 9)[:-9], " is cut off or damaged; get a whole"),
    ],
)  # fmt: skip
def test_broken_tables(tmp_path, name, content, message):
    assert refused(tmp_path / name, content).startswith(message)


@pytest.mark.parametrize("name", ["m.parquet", "m.csv", "m.json", "m.xlsx", "movies"])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(UserError, match=rf"{name} does not exist"):
        list(read_records(tmp_path / name))
