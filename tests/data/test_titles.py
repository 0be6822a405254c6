import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bert4rec_jax.data.titles import read_titles
from bert4rec_jax.errors import UserError

FLAGS = "0|0|0|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0"  # Animation, Children's, Comedy


def test_movies_dat_in_utf8_and_latin1(tmp_path):
    content = (
        "0002844::Fantômas - À l'ombre (1913)::Crime|Drama\n"
        "\n"
        "2::Star Wars: Episode IV :: V (1977)::Sci-Fi\r\n"
        "4::Not\x85a line's end::War\n"
        "3::Untold::\n"
    )
    expected = {
        "0002844": ("Fantômas - À l'ombre (1913)", "Crime|Drama"),
        "2": ("Star Wars: Episode IV :: V (1977)", "Sci-Fi"),
        "4": ("Not\x85a line's end", "War"),
        "3": ("Untold", ""),
    }
    file = tmp_path / "movies.dat"
    for encoding in ("utf-8", "utf-8-sig", "latin-1"):
        file.write_bytes(content.encode(encoding))
        assert read_titles(file) == expected


def test_ml_100k_flags_become_genres(tmp_path):
    file = tmp_path / "u.item"
    file.write_bytes(
        f"1|Toy Story (1995)|01-Jan-1995||http://x|{FLAGS}\n"
        f"1357|Pétalo|||http://y|{'|'.join('1' * 19)}\n".encode("latin-1")
    )
    titles = read_titles(file)
    assert titles["1"] == ("Toy Story (1995)", "Animation|Children's|Comedy")
    assert titles["1357"][0] == "Pétalo"
    assert titles["1357"][1].split("|")[0] == "unknown"
    assert titles["1357"][1].split("|")[-2:] == ["War", "Western"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", "id,sku,title\n7,b,B\n8,a,A\n"),
        ("t.jsonl", '{"id": 7, "sku": "b", "title": "B"}\n{"id": 8, "sku": "a", "title": "A"}\n'),
    ],
)
def test_ids_may_be_called_as_in_the_log(tmp_path, name, content):
    file = tmp_path / name
    file.write_text(content)
    assert read_titles(file, "sku") == {"a": ("A", ""), "b": ("B", "")}
    for other in (None, "product"):
        assert read_titles(file, other) == {"7": ("B", ""), "8": ("A", "")}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("movies.csv", 'movieId,title,genres\n1,"American, The (1995)",Comedy|War\n2,b,'),
        ("movies.csv", 'at,genres,item_id,title\n\n,Comedy|War,1,"American, The (1995)"\n,,2,b\n'),
        ("movies.tsv", "item_id\ttitle\tgenres\n1\tAmerican, The (1995)\tComedy|War\n2\tb\t\n"),
        ("movies.csv", 'movieId,title,genres\n1,"American, The (1995)",Comedy|War\n'
                       "2,b,(no genres listed)\n"),
    ],
)  # fmt: skip
def test_tables(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    expected = {"1": ("American, The (1995)", "Comedy|War"), "2": ("b", "")}
    assert read_titles(tmp_path / name) == expected


def test_genres_of_tmdb_become_names(tmp_path):
    file = tmp_path / "movies.csv"
    genres = '"[{""id"": 18, ""name"": ""Drama""}, {""id"": 10752, ""name"": ""War""}]"'
    file.write_text(f"id,title,genres\n7,A,{genres}\n8,B,[]\n9,C,[noir]\n")
    assert read_titles(file) == {"7": ("A", "Drama|War"), "8": ("B", ""), "9": ("C", "[noir]")}


def test_genres_as_pandas_writes_them_are_names(tmp_path):
    file = tmp_path / "movies.csv"
    genres = ("\"['Drama', 'War']\"", "['Drama' 'War']", "\"[{'id': 18, 'name': 'Drama'}]\"")
    file.write_text("id,title,genres\n" + "".join(f"{i},T,{x}\n" for i, x in enumerate(genres)))
    assert [x for _, x in read_titles(file).values()] == ["Drama|War", "Drama|War", "Drama"]


def test_a_table_without_genres_has_titles(tmp_path):
    (tmp_path / "t.csv").write_text("item_id,title\n07,Bond\n")
    assert read_titles(tmp_path / "t.csv") == {"07": ("Bond", "")}


def test_a_title_of_blanks_is_none(tmp_path):
    (tmp_path / "t.csv").write_text("item_id,title\n07, \n")
    assert read_titles(tmp_path / "t.csv") == {"07": ("07", "")}


def typed(path, rows):
    """Rows as a Parquet or JSON table."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        text = json.dumps(rows) if path.suffix == ".json" else "\n".join(map(json.dumps, rows))
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


TYPED = ("t.parquet", "t.jsonl", "t.ndjson", "t.json", "t.jsonl.gz")


@pytest.mark.parametrize("name", TYPED)
@pytest.mark.parametrize("id_column", ["item_id", "movieId", "id"])
def test_typed_tables(tmp_path, name, id_column):
    rows = [
        {id_column: 7, "title": "Bond", "genres": "Action|War", "year": 1962},
        {id_column: 8, "title": "Untold", "genres": None, "year": None},
        {id_column: 0, "title": "None", "genres": "(no genres listed)", "year": 1},
    ]
    expected = {"7": ("Bond", "Action|War"), "8": ("Untold", ""), "0": ("None", "")}
    assert read_titles(typed(tmp_path / name, rows)) == expected
    texts = [{**row, id_column: f"0{row[id_column]}"} for row in rows]
    expected = {f"0{item}": names for item, names in expected.items()}
    assert read_titles(typed(tmp_path / name, texts)) == expected


@pytest.mark.parametrize("name", TYPED)
@pytest.mark.parametrize(
    "genres",
    [
        ["Drama", None, "War"],
        [{"id": 18, "name": "Drama"}, {"id": 10752, "name": "War"}],
        "Drama|War",
        '[{"id": 18, "name": "Drama"}, {"id": 10752, "name": "War"}]',
    ],
)
def test_genres_in_any_form(tmp_path, name, genres):
    rows = [
        {"item_id": "a", "title": "A", "genres": genres},
        {"item_id": "b", "title": "B", "genres": genres[:0]},
    ]
    assert read_titles(typed(tmp_path / name, rows)) == {"a": ("A", "Drama|War"), "b": ("B", "")}


@pytest.mark.parametrize("name", [*TYPED, "t.csv"])
def test_no_title_is_the_id(tmp_path, name):
    """Else lists would show a blank line; genres may be known all the same."""
    if name == "t.csv":
        (tmp_path / name).write_text("item_id,title,genres\na,,War\nb,B,\n")
    else:
        rows = [
            {"item_id": "a", "title": None, "genres": "War"},
            {"item_id": "b", "title": "B", "genres": None},
        ]
        typed(tmp_path / name, rows)
    assert read_titles(tmp_path / name) == {"a": ("a", "War"), "b": ("B", "")}


def test_fields_that_only_some_objects_have(tmp_path):
    rows = [{"item_id": "a"}, {"item_id": "b", "title": "B"}, {"item_id": "c", "genres": "War"}]
    titles = read_titles(typed(tmp_path / "t.jsonl", rows))
    assert titles == {"a": ("a", ""), "b": ("B", ""), "c": ("c", "War")}


@pytest.mark.parametrize("name", ["t.parquet", "t.jsonl"])
@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"item_id": None}, "the item_id is empty; expected an id, which is text or a"),
        ({"item_id": ""}, "the item_id is empty; expected an id"),
        ({"item_id": 7.0}, "the item_id 7.0 is not valid; expected an id, which is text or"),
        ({"item_id": True}, "the item_id True is not valid"),
        ({"title": 7}, "the title 7 is not valid; expected text: fix or remove the row"),
        ({"genres": 7}, r"the genres 7 is not valid; expected names separated by \|, or a list of"),
        ({"genres": [7]}, r"the genres \[7\] is not valid"),
        ({"genres": {"name": "War"}}, "the genres {'name': 'War'} is not valid"),
    ],
)  # fmt: skip
def test_values_that_are_no_titles_are_named(tmp_path, name, row, message):
    path = typed(tmp_path / name, [{"item_id": "a", "title": "A", "genres": "War", **row}])
    place = "row" if name == "t.parquet" else "line"
    with pytest.raises(UserError, match=rf"{name}, {place} 1: {message}"):
        read_titles(path)


@pytest.mark.parametrize("name", TYPED)
def test_typed_tables_with_other_columns(tmp_path, name):
    path = typed(tmp_path / name, [{"asin": "a", "title": "A"}])
    with pytest.raises(UserError, match="has the columns 'asin', 'title'; titles need the columns"):
        read_titles(path)


def test_tables_that_are_none(tmp_path):
    for name, content, message in (
        ("t.parquet", b"PAR1 and no more", "t.parquet is not a whole Parquet file"),
        ("t.jsonl", b'{"item_id": 1,', r"t.jsonl, line 1: .* is broken JSON"),
        ("t.jsonl", b"\n", "t.jsonl is empty: it holds no title"),
        ("t.json", b'{"item_id": 1, "title": "caf\xe9"}', "t.json, line 1: .* is not UTF-8 text"),
        ("t.csv", b'{"item_id": 1}', "holds JSON objects; give it a name that ends in .jsonl"),
        ("titles", b"PAR1", "is a Parquet file; give it a name that ends in .parquet"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=message):
            read_titles(tmp_path / name)
    with pytest.raises(UserError, match="is a folder; give the one file in which the titles are"):
        read_titles(tmp_path)


def test_a_parquet_table_without_a_row(tmp_path):
    table = pa.table({"item_id": pa.array([], pa.string()), "title": pa.array([], pa.string())})
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r"t\.parquet is empty: it holds no title"):
        read_titles(tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1::a::b\n\n2::c\n", r"line 3: '2::c' is no title; expected id::title::genres"),
        (f"1|a|||x|{FLAGS}\n2|b|||\n", r"line 2: '2\|b\|\|\|' is no title; expected id\|title\|"),
        (f"1|a|||x|{FLAGS[:-1]}2\n", r"line 1: .* and 19 flags of 0 or 1"),
        ("movieId,title\n1,a\n2,b,c\n", r"line 3: '2,b,c' is no title; expected movieId,title"),
        (
            "id,name\n1,a\n",
            r"columns 'id', 'name'; titles need .*'item_id' or 'movieId'",
        ),
        ("", "is empty"),
        ("\n\r\n", "is empty"),
    ],
)
def test_lines_that_are_no_titles_are_named(tmp_path, content, message):
    (tmp_path / "titles").write_text(content, newline="")
    with pytest.raises(UserError, match=rf"titles.*{message}"):
        read_titles(tmp_path / "titles")


def test_a_quote_that_is_never_closed_is_told(tmp_path):
    file = tmp_path / "movies.csv"
    file.write_text('movieId,title\n1,"A\n' + "2,B\n" * 40_000)
    with pytest.raises(UserError, match=r"movies\.csv: cannot cut the text into fields .*closed"):
        read_titles(file)
    file.write_text('movieId,title\n1,A\n2,"B\n3,C\n')
    with pytest.raises(UserError, match=r"movies\.csv, line 3: a quote is never closed"):
        read_titles(file)


def test_two_columns_of_one_name_are_refused(tmp_path):
    (tmp_path / "t.csv").write_text("item_id,title,title\n1,A,B\n")
    ids, names = pa.array(["1"]), pa.array(["A"])
    twice = pa.table([ids, names, names], names=["item_id", "title", "title"])
    pq.write_table(twice, tmp_path / "t.parquet")
    for name in ("t.csv", "t.parquet"):
        with pytest.raises(UserError, match=f"{name} has several columns called 'title'"):
            read_titles(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"absent\.dat does not exist"):
        read_titles(tmp_path / "absent.dat")
