"""From a store and its sources to a folder of content."""

import dataclasses
import hashlib
import json
from itertools import compress

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shelf
from sample import interactions

from bert4rec_jax.data.catalog import Catalog
from bert4rec_jax.data.cold import choose_cold
from bert4rec_jax.data.store import write_store
from bert4rec_jax.errors import UserError
from bert4rec_jax.features.build import build, training_items
from bert4rec_jax.features.content import Content, made_for
from bert4rec_jax.features.options import BLOCKS, Options, TextOptions
from bert4rec_jax.features.sources import Sources, gather

OPTIONS = Options(BLOCKS, min_count=1, buckets=2)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return shelf.store(tmp_path_factory.mktemp("data") / "store")


@pytest.fixture
def table(tmp_path):
    return shelf.write_parquet(tmp_path / "movies.parquet")


def made(store, output, **options):
    options = {"options": OPTIONS, "fitted": training_items(store)} | options
    return build(store, output, **options)


def tokens(store):
    """Rows of the shelf's items in the content of a store."""
    return [store.catalog.token(item_id) for item_id in shelf.IDS]


def test_training_items_are_those_before_the_targets(store):
    seen = dict(zip(store.catalog.item_ids, training_items(store)))
    assert seen == {item_id: item_id != shelf.IDS[-1] for item_id in shelf.IDS}
    # By time: the fifth step of every user lies after the first quarter of the rows.
    assert training_items(store, "global-time", time_quantile=0.3).sum() < 6


def test_a_split_or_a_mask_that_cannot_be_meant(store, tmp_path):
    """Another split would be leave-one-out, and a mask of rows of the model two items off."""
    with pytest.raises(UserError, match="split is 'cold'; expected one of leave-one-out, global"):
        training_items(store, "cold")
    for quantile in (2.0, 1.0, 0.0, float("nan")):
        with pytest.raises(UserError, match=r"time_quantile is .*; expected in \(0, 1\)"):
            training_items(store, "global-time", time_quantile=quantile)
    mask = training_items(store)
    for fitted in (np.append([False, False], mask), mask[:-1], np.flatnonzero(mask), mask * 1.0):
        with pytest.raises(UserError, match=r"^fitted is of type .* expected a mask \(bool\) of"):
            made(store, tmp_path / "content", fitted=fitted)
    assert made(store, tmp_path / "content", fitted=mask.tolist()).content.width


def watched_in_order(path, items):
    """A store of one user, who watches an item a second."""
    log = interactions([("u", item, t) for t, item in enumerate(items, start=1)])
    return write_store(log.in_time_order(), path, titles={}, source={})


def test_training_items_by_time_are_those_that_selection_trains_on(tmp_path):
    store = watched_in_order(tmp_path / "store", "abcdefghij")
    # T = 5 and T_val = 3; from 6 on, T = 5 too, and T_val is the .9 quantile of 1 .. 5, which is 4.
    for options, expected in (({"time_quantile": 0.5}, "abc"), ({"test_from": 6}, "abcd")):
        seen = training_items(store, "global-time", **options)
        assert "".join(compress(store.catalog.item_ids, seen)) == expected


def test_training_items_of_cold_items_are_in_neither_half(tmp_path):
    store = watched_in_order(tmp_path / "store", map(str, range(40)))
    warm, cold, is_item = training_items(store), choose_cold(store), store.catalog.is_item()
    halves = cold.validation[is_item], cold.test[is_item]
    assert all((warm & half).any() for half in halves)
    expected = warm & ~halves[0] & ~halves[1]
    np.testing.assert_array_equal(training_items(store, "cold-items"), expected)


def test_vocabularies_are_fitted_on_the_given_items_alone(store, tmp_path):
    fitted = np.array([item == "0113277" for item in store.catalog.item_ids])  # Crime|Drama
    genres = made(store, tmp_path / "content", fitted=fitted).content.encoder.blocks[0]
    assert sorted(genres.vocabulary.names) == ["Crime", "Drama"]


def test_the_catalog_alone_gives_genres_and_years(store, tmp_path):
    built = made(store, tmp_path / "content")
    assert [span.name for span in built.content.blocks] == ["genres", "numbers"]
    covered = {c.name: (c.items, c.interactions) for c in built.coverage}
    # Five users watch five movies each: four with genres, five with years; one watches the sixth.
    assert covered == {
        "genres": (pytest.approx(4 / 6), pytest.approx(20 / 26)),
        "numbers": (pytest.approx(5 / 6), pytest.approx(25 / 26)),
        "released": (pytest.approx(5 / 6), pytest.approx(25 / 26)),
    }
    years = next(span for span in built.content.blocks if span.name == "numbers")
    column = built.content.matrix[tokens(store), years.stop - 2]  # how near to the newest movie
    assert column[3] > column[0] == column[1] > column[4] > column[2] == 0  # 1999, 95, 95, 94, 02


def test_metadata_and_the_catalog_behind_it(store, table, tmp_path):
    sentences = []
    built = made(
        store, tmp_path / "content", sources=Sources(metadata=table), notify=sentences.append
    )
    covered = {c.name: c.items * 6 for c in built.coverage}
    assert covered == pytest.approx({
        "rows by imdb_id": 5, "genres": 4, "language": 4, "keywords": 2, "cast": 3, "crew": 2,
        "companies": 2, "numbers": 5, "runtime": 3, "released": 5, "budget": 3,
    })  # fmt: skip
    assert sentences == [
        "movies.parquet matches 5 of 6 items by imdb_id (tmdb_id 0); for example, "
        "'Heat (1995)' is 'Heat'"
    ]
    assert built.content.present()[tokens(store)].tolist() == [True] * 5 + [False]


def test_the_manifest_tells_where_content_comes_from(store, table, tmp_path):
    made(
        store,
        tmp_path / "content",
        sources=Sources(metadata=table),
        text=TextOptions("fake", truncate_dim=4),
        embedder=shelf.Fake(),
        cache=tmp_path / "cache",
        about={"split": "leave-one-out"},
    )
    text = (tmp_path / "content" / "manifest.json").read_text()
    manifest = json.loads(text)
    assert str(tmp_path) not in text
    assert manifest["catalog_fingerprint"] == store.catalog.fingerprint
    checksum = hashlib.sha256(table.read_bytes()).hexdigest()
    assert manifest["sources"] == [
        {"role": "metadata", "name": "movies.parquet", "sha256": checksum}
    ]
    assert manifest["text"] == {
        "model": "fake", "revision": "1", "prompt": "{title}. {text}", "truncate_dim": 4,
    }  # fmt: skip
    assert manifest["fitted_items"] == 5
    assert manifest["id_column"] == "imdb_id"
    assert manifest["split"] == "leave-one-out"
    assert manifest["leaky"] is False
    blocks = {block["name"]: block for block in manifest["blocks"]}
    assert blocks["genres"]["start"] == 0
    assert blocks["text"]["stop"] == manifest["shape"][1]
    assert blocks["text"]["stop"] - blocks["text"]["start"] == 4 + 1  # and whether it is missing
    assert blocks["keywords"]["coverage"] == [
        {"name": "keywords", "columns": blocks["keywords"]["stop"] - blocks["keywords"]["start"],
         "items": pytest.approx(2 / 6), "interactions": pytest.approx(10 / 26)}
    ]  # fmt: skip


def test_text_is_embedded_with_its_prompt_where_there_is_any(store, table, tmp_path):
    model = shelf.Fake()
    text = TextOptions("fake", prompt="title: {title} | text: {text}")
    built = made(
        store, tmp_path / "content", sources=Sources(metadata=table), text=text, embedder=model,
        cache=tmp_path / "cache",
    )  # fmt: skip
    assert sorted(model.asked) == [
        "title: A Trip to the Moon | text: Astronomers go to the Moon.",
        "title: Heat | text: A crime saga. Thieves and a detective.",
        "title: Pulp Fiction | text: Pulp Fiction",
        "title: The Matrix | text: The Matrix",
        "title: Toy Story | text: Toys come alive.",
    ]
    assert built.coverage[-1].name == "text"
    assert built.coverage[-1].columns == 9
    assert built.coverage[-1].items == pytest.approx(5 / 6)


def test_an_item_without_a_text_moves_no_other_text(tmp_path):
    catalog = Catalog(tuple("abc"), ("Heat", "b", "Ran"), ("",) * 3)
    model = shelf.Fake()
    text = TextOptions("fake", prompt="{text}")
    found = gather(catalog, Sources(), text=text, embedder=model, cache=tmp_path).vectors["text"]
    assert found.present.tolist() == [True, False, True]
    lengths = np.linalg.norm(expected := model(["Heat", "Ran"]), axis=1, keepdims=True)
    np.testing.assert_allclose(found.values[[0, 2]], expected / lengths, rtol=1e-6)
    assert not found.values[1].any()


def test_a_text_model_is_loaded_as_it_was_asked_for(monkeypatch, tmp_path):
    asked = []

    def load(name, **options):
        asked.append((name, options))
        return shelf.Fake(name)

    monkeypatch.setattr("bert4rec_jax.features.sources.load_model", load)
    text = TextOptions("fake", revision="abc", batch_size=3)
    gather(shelf.catalog(), Sources(), text=text, cache=tmp_path)
    assert asked == [("fake", {"revision": "abc", "batch_size": 3})]


def test_embeddings_are_a_block_of_their_own(store, tmp_path):
    values = np.arange(12, dtype=np.float32).reshape(6, 2)
    np.save(tmp_path / "e.npy", values)
    built = made(store, tmp_path / "content", sources=Sources(embeddings=tmp_path / "e.npy"))
    span = built.content.blocks[-1]
    assert (span.name, span.stop - span.start) == ("embeddings", 3)
    rows = built.content.matrix[2:8, span.start : span.stop - 1]
    distances = np.linalg.norm(rows[1:] - rows[:-1], axis=1)
    np.testing.assert_allclose(distances, distances[0], rtol=1e-5)
    assert built.coverage[-1].items == 1


def test_leaky_columns_come_with_a_warning(store, table, tmp_path):
    sentences = []
    options = dataclasses.replace(OPTIONS, leaky=True)
    built = made(
        store, tmp_path / "content", sources=Sources(metadata=table), options=options,
        notify=sentences.append,
    )  # fmt: skip
    assert sentences[-1].startswith("popularity, votes and revenue were read after the interaction")
    parts = built.content.blocks[-1].missing
    assert list(parts) == ["popularity", "vote_average", "vote_count", "revenue"]
    assert built.content.manifest["leaky"] is True
    again = made(
        store, tmp_path / "like", sources=Sources(metadata=table), like=built.content.encoding,
        notify=sentences.append,
    )  # fmt: skip
    assert again.content.manifest["leaky"] is True and sentences[-1].startswith("popularity, ")


def test_the_order_of_the_table_changes_nothing(store, tmp_path):
    contents = []
    for rows in (shelf.ROWS, shelf.ROWS[::-1]):
        file = shelf.write_parquet(tmp_path / "movies.parquet", rows)
        made(store, tmp_path / "content", sources=Sources(metadata=file))
        contents.append((tmp_path / "content" / "content.npy").read_bytes())
    assert contents[0] == contents[1]


def test_new_releases_are_encoded_as_the_first_items_were(store, table, tmp_path):
    """A catalog that grew: known items keep their rows bit for bit, new ones have content."""
    built = made(store, tmp_path / "content", sources=Sources(metadata=table))
    catalog = store.catalog
    grown = dataclasses.replace(
        catalog,
        item_ids=(*catalog.item_ids, "9000000"),
        titles=(*catalog.titles, "Heat 2 (2026)"),
        genres=(*catalog.genres, "Crime|Western"),
    )
    new = {"imdb_id": "tt9000000", "title": "Heat 2", "cast": "Al Pacino|Nobody yet"}
    file = shelf.write_parquet(tmp_path / "newer.parquet", [*shelf.ROWS, new])
    known = gather(grown, Sources(metadata=file))
    rows = built.content.encoder.encode(known.movies, known.vectors)
    np.testing.assert_array_equal(rows[:-1], built.content.matrix[catalog.is_item()])
    spans = {span.name: span for span in built.content.blocks}
    assert rows[-1, spans["keywords"].missing["keywords"]] > 0
    assert np.count_nonzero(rows[-1, spans["cast"].start : spans["cast"].stop]) == 2
    assert rows[-1, spans["numbers"].missing["released"]] == 0


def test_content_opens_for_its_store_only(store, table, tmp_path):
    made(store, tmp_path / "content", sources=Sources(metadata=table))
    assert Content.open(tmp_path / "content", store.catalog).width
    fewer = dict(list(shelf.TITLES.items())[1:])
    other = shelf.store(tmp_path / "other", fewer, tuple(fewer))
    with pytest.raises(
        UserError, match=r"holds the content of another catalog \(6 items, .*; this"
    ):
        Content.open(tmp_path / "content", other.catalog)


def test_a_mistake_leaves_nothing_behind(store, table, tmp_path):
    with pytest.raises(UserError):
        made(store, tmp_path / "content", sources=Sources(metadata=table, id_column="tmdb_id"))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "text").write_text("")
    with pytest.raises(UserError, match="exists and is not content"):
        made(store, tmp_path / "thesis", sources=Sources(metadata=table))
    assert {file.name for file in tmp_path.iterdir()} == {"movies.parquet", "thesis"}


def test_sources_that_lead_nowhere(tmp_path):
    with pytest.raises(UserError, match=r"id map needs metadata or embeddings"):
        Sources(id_map=tmp_path)
    with pytest.raises(
        UserError, match=r"id column is one of the table of metadata; give that too"
    ):
        Sources(id_column="x")
    with pytest.raises(UserError, match=r"separator is empty; expected a sign such as '\|'"):
        Sources(separator="")


def test_texts_of_which_there_are_none(tmp_path):
    nothing = {item_id: (item_id, "") for item_id in shelf.IDS}
    store = shelf.store(tmp_path / "store", nothing)
    with pytest.raises(
        UserError, match=r"no item has a title or an overview to embed; give a tabl"
    ):
        made(store, tmp_path / "c", text=TextOptions("fake"), embedder=shelf.Fake())


def test_titles_and_genres_of_the_table_are_kept_for_items_without(tmp_path):
    bare = shelf.store(tmp_path / "bare", titles={})
    table = shelf.write_parquet(tmp_path / "movies.parquet")
    content = build(
        bare, tmp_path / "content", fitted=np.ones(6, bool), sources=Sources(metadata=table),
        options=Options(min_count=1),
    ).content  # fmt: skip
    names = content.names
    token = names.token("0114709")
    assert names.title(token) == "Toy Story (1995)"
    assert names.genres_of(token) == ("Animation", "Comedy")
    assert names.item_ids == bare.catalog.item_ids
    assert names.title(names.token("2294629")) == "2294629"  # of which nothing is known


def test_an_id_map_leads_to_the_table(store, tmp_path):
    table = pq.read_table(shelf.write_parquet(tmp_path / "m.parquet")).drop_columns(["imdb_id"])
    pq.write_table(table, tmp_path / "m.parquet")
    pairs = "".join(f"{i} {r['tmdb_id']}\n" for i, r in zip(shelf.IDS[:4], shelf.ROWS))
    (tmp_path / "map.txt").write_text(pairs)
    sources = Sources(metadata=tmp_path / "m.parquet", id_map=tmp_path / "map.txt")
    built = made(store, tmp_path / "content", sources=sources)
    assert built.coverage[0].name == "rows by tmdb_id"
    assert built.coverage[0].items == pytest.approx(4 / 6)
    assert [source["role"] for source in built.content.manifest["sources"]] == [
        "metadata", "id_map",
    ]  # fmt: skip


def test_an_id_map_leads_to_embeddings(store, tmp_path):
    vectors = pa.table({"tmdb_id": [862, 949], "vector": [[0.0, 1.0], [1.0, 0.0]]})
    pq.write_table(vectors, tmp_path / "e.parquet")
    (tmp_path / "map.txt").write_text("0113277 949\n0114709 862\n")
    sources = Sources(embeddings=tmp_path / "e.parquet", id_map=tmp_path / "map.txt")
    found = gather(shelf.catalog(), sources).vectors["embeddings"]
    assert found.present.tolist() == [True, True] + [False] * 4
    assert found.values[:2].tolist() == [[1, 0], [0, 1]]


def test_new_content_of_the_same_columns_tells_what_they_were_fitted_on(store, tmp_path):
    about = {"split": "global-time", "time_quantile": 0.8, "test_from": 7}
    made(store, tmp_path / "content", about=about)
    assert made_for(tmp_path / "content") == {**about, "fitted_items": 5, "like": True}


def test_blocks_that_a_later_table_lacks_are_told(store, table, tmp_path):
    first = made(store, tmp_path / "first", sources=Sources(table)).content
    titles = pq.read_table(table).select(["imdb_id", "title", "genres"])
    pq.write_table(titles, tmp_path / "less.parquet")
    told = []
    made(store, tmp_path / "more", sources=Sources(tmp_path / "less.parquet"),
         like=first.encoding, notify=told.append)  # fmt: skip
    (lost,) = [sentence for sentence in told if sentence.startswith("nothing is known of ")]
    assert "language" in lost and "genres" not in lost
