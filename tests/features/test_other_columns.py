"""Columns of tables that are not about movies: categories and numbers of any catalog."""

import json

import numpy as np
import pytest
import shelf

from bert4rec_jax.errors import UserError
from bert4rec_jax.features.build import build, training_items
from bert4rec_jax.features.content import read_encoding
from bert4rec_jax.features.encoding import Encoding
from bert4rec_jax.features.metadata import Metadata
from bert4rec_jax.features.options import Options, OtherColumns, TextOptions
from bert4rec_jax.features.releases import read_releases
from bert4rec_jax.features.sources import Sources, gather

OTHERS = OtherColumns(("brand", "shelves"), ("price",))
# item, brand, shelves, price; the last item of the shelf is not in the table
GOODS = [
    ("0113277", "Acme", "tools|garden", "2.5"),
    ("0114709", "Acme", "toys", "10"),
    ("0000417", "", "garden|tools|garden", "-1"),
    ("0133093", "Bolt", "", ""),
    ("0110912", "Bolt", "toys", "2.5"),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return shelf.store(tmp_path_factory.mktemp("data") / "store")


def write_goods(path, rows=GOODS, header="item_id,brand,shelves,price"):
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")
    return path


def made(store, output, table, others=OTHERS, **more):
    options = Options(("genres",), min_count=1, buckets=1, others=others)
    return build(
        store,
        output,
        fitted=training_items(store),
        **({"options": options, "sources": Sources(table)} | more),
    )


def test_columns_of_names_and_of_numbers(store, tmp_path):
    content = made(store, tmp_path / "content", write_goods(tmp_path / "goods.csv")).content
    spans = {span.name: span for span in content.blocks}
    assert list(spans) == ["genres", "brand", "shelves", "other numbers"]
    rows = content.matrix[[store.catalog.token(item_id) for item_id in shelf.IDS]] != 0

    def block(name):
        return rows[:, spans[name].start : spans[name].stop].astype(int).tolist()

    # Acme and Bolt (two items each, so by name), others, missing; an empty text is missing.
    acme, bolt, nothing = [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]
    assert block("brand") == [acme, acme, nothing, bolt, bolt, nothing]
    # garden, tools and toys (two items each), others, missing.
    assert block("shelves") == [
        [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 1, 0, 0],
        [0, 0, 0, 0, 1],
    ]  # fmt: skip
    # Knots -1 and 10 (four prices are too few for more), missing; 2.5 is near both.
    assert block("other numbers") == [
        [1, 1, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1], [1, 1, 0], [0, 0, 1],
    ]  # fmt: skip
    price = spans["other numbers"].start
    near = content.matrix[store.catalog.token("0113277"), price : price + 2]
    np.testing.assert_allclose(near / near.sum(), [7.5 / 11, 3.5 / 11], rtol=1e-6)


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (7, ("7",)), (7.0, ("7",)), ("7", ("7",)), (True, ("true",)), (None, ()),
        (float("nan"), ()), (["b", "a", "b", None], ("b", "a")), ([1, 2.0], ("1", "2")), ([], ()),
        ('["x", "y"]', ("x", "y")), ([{"name": "x"}], ("x",)),
    ],
)  # fmt: skip
def test_forms_of_names(store, tmp_path, value, names):
    record = {"item_id": "0113277", "brand": value}
    other = {"item_id": "0114709", "brand": "known"}
    table = tmp_path / "goods.jsonl"
    table.write_text(f"{json.dumps(record)}\n{json.dumps(other)}\n")
    known = gather(store.catalog, Sources(table), others=OtherColumns(("brand",)))
    assert known.movies[store.catalog.item_ids.index("0113277")].names("brand") == names


def test_more_items_are_encoded_as_the_first_ones(store, tmp_path):
    table = write_goods(tmp_path / "goods.csv")
    first = made(store, tmp_path / "content", table).content
    encoding = read_encoding(first.path)
    assert Encoding.from_json(json.loads(json.dumps(encoding.to_json()))) == encoding
    # The same columns again, without naming them.
    like = made(store, tmp_path / "like", table, like=encoding).content
    np.testing.assert_array_equal(like.matrix, first.matrix)

    new = write_goods(tmp_path / "new.csv", [("9", "Bolt", "toys|cars", "2.5")])
    column, catalog = read_releases(new, store.catalog, others=OTHERS)
    assert (column, catalog.item_ids) == ("item_id", ("9",))
    row = encoding.rows(gather(catalog, Sources(new), others=OTHERS))[0]
    own = first.matrix[store.catalog.token("0110912")]  # Bolt, toys, 2.5
    changed = np.flatnonzero(row != own)
    shelves = next(span for span in first.blocks if span.name == "shelves")
    genres = first.blocks[0]
    # But for genres, which neither has, only the bucket of other shelves is new.
    assert changed.tolist() == [shelves.stop - 2]
    assert row[genres.stop - 1] == own[genres.stop - 1] > 0


def test_encoders_of_earlier_versions_have_no_other_columns(store, tmp_path):
    table = write_goods(tmp_path / "goods.csv")
    made(store, tmp_path / "content", table)
    values = read_encoding(tmp_path / "content").to_json()
    del values["encoder"]["options"]["others"]
    assert Encoding.from_json(values).encoder.options.others == OtherColumns()


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (("brnd",), "has no column 'brnd'; its columns are 'item_id', 'brand', 'shelves', 'price'"),
        (("brand", "brand"), "the column 'brand' is named twice"),
        (("genres",), "the column 'genres' is one of movies, and read as such"),
        (("language",), "the column 'language' is called as a block is; rename it"),
    ],
)
def test_names_that_are_no_other_columns(store, tmp_path, others, message):
    with pytest.raises(UserError, match=message):
        made(store, tmp_path / "content", write_goods(tmp_path / "g.csv"), OtherColumns(others))
    assert not (tmp_path / "content").exists()


def test_a_number_that_is_none(store, tmp_path):
    table = write_goods(tmp_path / "goods.csv", [("0113277", "Acme", "", "cheap")])
    with pytest.raises(UserError, match=r"line 2: the price 'cheap' is not valid; expected a fin"):
        made(store, tmp_path / "content", table)


def test_a_table_without_columns_of_movies_leads_to_the_options(store, tmp_path):
    table = write_goods(tmp_path / "goods.csv")
    with pytest.raises(UserError, match="--name-columns and --number-columns"):
        made(store, tmp_path / "content", table, OtherColumns())


def test_new_items_need_the_columns_too(store, tmp_path):
    new = write_goods(tmp_path / "new.csv", [("9", "Bolt", "toys")], "item_id,brand,shelves")
    with pytest.raises(UserError, match="has no column 'price'"):
        read_releases(new, store.catalog, others=OTHERS)


def test_the_separator_and_the_named_column_of_ids_are_kept(store, tmp_path):
    """A shop's table, whose `id` numbers its rows: by accident some of these are items too."""
    rows = [(str(int(item)), *(x.replace("|", ";") for x in rest)) for item, *rest in GOODS]
    header = "id,sku,brand,shelves,price"
    rows = [(str(113277 + at), *row) for at, row in enumerate(rows)]
    table = write_goods(tmp_path / "goods.csv", rows, header)
    shop = shelf.store(tmp_path / "shop", {}, tuple(str(int(item_id)) for item_id in shelf.IDS))
    notes = []
    sources = Sources(table, id_column="sku", separator=";")
    first = made(shop, tmp_path / "content", table, sources=sources, notify=notes.append).content
    encoding = read_encoding(first.path)
    assert encoding == first.encoding
    for kept in (encoding, Encoding.from_json(json.loads(json.dumps(encoding.to_json())))):
        assert (kept.id_column, kept.separator) == ("sku", ";")
    like = made(shop, tmp_path / "like", table, like=encoding, notify=notes.append).content
    np.testing.assert_array_equal(like.matrix, first.matrix)
    assert (like.encoding.id_column, like.encoding.separator) == ("sku", ";")
    assert notes[-1].startswith("goods.csv matches 5 of 6 items by sku")
    assert not any("warning" in note for note in notes)
    # What is known without a table is how the first one was read.
    bare = made(shop, tmp_path / "bare", None, like=encoding).content
    assert (bare.encoding.id_column, bare.encoding.separator) == ("sku", ";")

    new = write_goods(tmp_path / "new.csv", [("113277", "9", "Bolt", "toys;garden", "1")], header)
    sources = encoding.as_before(Sources(new))
    column, catalog = read_releases(
        new, shop.catalog, usual_column=sources.usual_column, others=OTHERS,
        separator=sources.separated_by,
    )  # fmt: skip
    assert (column, catalog.item_ids) == ("sku", ("9",))
    known = gather(catalog, sources, others=OTHERS)
    assert known.movies[0].names("shelves") == ("toys", "garden")


def test_tables_without_the_column_of_ids_that_was_named(store, tmp_path):
    encoding = Encoding(None, None, "sku")
    sources = encoding.as_before(Sources(write_goods(tmp_path / "goods.csv")))
    assert gather(store.catalog, sources, others=OTHERS).metadata.id_column == "item_id"
    table = write_goods(tmp_path / "none.csv", header="ean,brand,shelves,price")
    with pytest.raises(UserError, match="has none of sku, item_id, imdb_id"):
        gather(store.catalog, encoding.as_before(Sources(table)), others=OTHERS)
    with pytest.raises(UserError, match="has none of sku, item_id, imdb_id"):
        read_releases(table, store.catalog, usual_column="sku", others=OTHERS)


def test_another_separator_than_before_is_warned_of(store, tmp_path):
    table = write_goods(tmp_path / "goods.csv")
    encoding = made(store, tmp_path / "content", table).content.encoding
    notes = []
    assert encoding.separator == "|"
    sources = encoding.as_before(Sources(table, separator=";"), notes.append)
    assert sources.separated_by == ";"
    (note,) = notes
    assert note.startswith("warning: lists are cut at ';', and were cut at '|' when the content")
    # Content of earlier versions does not say how its lists were cut.
    earlier = Encoding.from_json(
        {name: value for name, value in encoding.to_json().items() if name != "separator"}
    )
    assert earlier == encoding and earlier.separator is None
    assert earlier.as_before(Sources(table), notes.append).separated_by == "|"
    assert earlier.as_before(Sources(table, separator=";"), notes.append).separated_by == ";"
    assert len(notes) == 1


def test_columns_that_are_not_read_are_named(store, tmp_path):
    header = "item_id,movieId,title,popularity,brand,shelves,price"
    rows = [(row[0], "1", "T", "3", *row[1:]) for row in GOODS]
    table, notes = write_goods(tmp_path / "goods.csv", rows, header), []
    content = made(
        store, tmp_path / "content", table, OtherColumns(("brand",)), notify=notes.append
    ).content
    # Ids, titles and what is off because it leaks are not among them.
    assert notes[1:] == [
        "not used: shelves, price (see --name-columns, --number-columns, --text-columns)"
    ]
    made(store, tmp_path / "like", table, like=content.encoding, notify=notes.append)
    made(store, tmp_path / "content", table, notify=notes.append)
    assert sum("not used" in note for note in notes) == 1
    many = Metadata([], "id", np.zeros(0, bool), tuple("abcdefghij")).unread_sentence()
    assert many.startswith("not used: a, b, c, d, e, f, g, h and 2 more (see ")


def test_texts_of_other_columns_are_embedded(store, tmp_path):
    header = "item_id,title,overview,text,brand"
    rows = [("0113277", "Saw", "Cuts.", "Of steel.", "Acme"), ("0114709", "Nail", "", "Long.", "")]
    table = write_goods(tmp_path / "goods.csv", rows, header)
    more = {"text": TextOptions("fake"), "cache": tmp_path / "cache"}
    model = shelf.Fake()
    content = made(
        store, tmp_path / "content", table, OtherColumns(texts=("text",)), embedder=model, **more
    ).content
    assert {"Saw. Cuts. Of steel.", "Nail. Long."} < set(model.asked)
    # The column is kept.
    encoding = read_encoding(content.path)
    assert encoding.encoder.options.others.texts == ("text",)
    like = made(store, tmp_path / "like", table, like=encoding, embedder=shelf.Fake(), **more)
    np.testing.assert_array_equal(like.content.matrix, content.matrix)
    short = write_goods(tmp_path / "short.csv", [row[:3] for row in rows], "item_id,title,overview")
    with pytest.raises(UserError, match="has no column 'text'; its columns are"):
        made(store, tmp_path / "x", short, like=encoding, embedder=shelf.Fake(), **more)
    with pytest.raises(UserError, match="'overview' is one of movies"):
        OtherColumns(texts=("overview",))
    with pytest.raises(UserError, match="'text' is called as a block is"):
        OtherColumns(("text",))


def test_items_without_a_text_need_the_length_of_the_others(store, tmp_path):
    table = write_goods(tmp_path / "goods.csv", [("0113277", "Acme", "", "1")])
    titled = write_goods(tmp_path / "titled.csv", [("0113277", "Saw")], "item_id,title")
    more = {"text": TextOptions("fake"), "embedder": shelf.Fake(), "cache": tmp_path / "cache"}
    encoding = made(store, tmp_path / "content", titled, OtherColumns(), **more).content.encoding
    _, new = read_releases(table, shelf.catalog({"1": ("1", "")}))
    with pytest.raises(UserError, match="no item has a title or an overview to embed"):
        gather(new, Sources(table), others=OTHERS, **more)
    known = gather(new, Sources(table), others=OTHERS, text_dim=encoding.text_dim(), **more)
    assert not encoding.rows(known).any()
