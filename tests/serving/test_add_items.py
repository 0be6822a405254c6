"""Adding items: what was there scores as before, bit for bit; what is new scores by content."""

import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from bert4rec_jax.cli.add_items import add_items as command
from bert4rec_jax.config import ModelConfig
from bert4rec_jax.data.catalog import Catalog
from bert4rec_jax.errors import UserError
from bert4rec_jax.features.encoder import fit
from bert4rec_jax.features.encoding import Encoding
from bert4rec_jax.features.movie import Movie, movies_of
from bert4rec_jax.features.options import Options, OtherColumns
from bert4rec_jax.features.releases import named_releases, read_releases
from bert4rec_jax.features.sources import Sources
from bert4rec_jax.serving.add_items import add_items, grow, open_source
from bert4rec_jax.serving.bundle import Bundle
from bert4rec_jax.serving.export import write_bundle
from bert4rec_jax.serving.requests import table_of
from bert4rec_jax.serving.scorer import load
from bert4rec_jax.training.parts import build_model

QUIET = Console(quiet=True)


def embeddings(path, count, dim=3):
    np.save(path, np.random.default_rng(1).normal(size=(count, dim)).astype(np.float32))
    return Sources(embeddings=path)


def new_ids(count):
    return tuple(f"new {number}" for number in range(count))


def answers(scorer, histories, items):
    """Scores of items for each history."""
    found = scorer.rank(histories, [items] * len(histories), keep_seen=True)
    return [dict(zip(answer.item_ids, answer.scores)) for answer in found]


@pytest.mark.parametrize("count", [3, 300])  # in the table's padding, and beyond it
def test_scores_of_existing_items_stay_bit_for_bit(bundle, scorer, histories, tmp_path, count):
    added, old = new_ids(count), scorer.catalog.item_ids
    sources = embeddings(tmp_path / "new.npy", count)
    # With this offset no list holds a new item.
    manifest = add_items(bundle, tmp_path / "more", ids=added, sources=sources, offset=-50.0)
    assert (manifest["items"], manifest["added_items"]) == (len(old) + count, count)
    more = load(tmp_path / "more", batch_size=16)
    assert more.catalog.item_ids == old + added
    before, after = (answers(one, histories[:20], old) for one in (scorer, more))
    assert before == after
    assert [len(scores) for scores in before] == [len(old)] * 20
    assert more.recommend_batch(histories[:20]) == scorer.recommend_batch(histories[:20])


def test_new_items_score_by_content_alone(bundle, scorer, trained, histories, tmp_path):
    sources = embeddings(tmp_path / "new.npy", 2)
    add_items(bundle, tmp_path / "more", ids=new_ids(2), sources=sources)
    more = load(tmp_path / "more", batch_size=16)
    block = trained.encoding.encoder.blocks[-1]
    raw = np.load(tmp_path / "new.npy")
    rows = np.zeros((2, trained.encoding.encoder.width), np.float32)
    rows[:, -4:-1] = (raw - np.array(block.mean)) * block.scale
    table = trained.variables["params"]["item_table"]
    vectors = table["unknown"] + rows @ table["content"]
    bias = table["unknown_bias"] + rows @ table["content_bias"]
    asked = more.reader.read(table_of(histories[:4]), str)
    hidden = np.asarray(more.ranker.user_vectors(asked))[:4]
    expected = hidden @ vectors.T + bias
    found = answers(more, histories[:4], new_ids(2))
    np.testing.assert_allclose([list(map(f.get, new_ids(2))) for f in found], expected, atol=1e-5)
    assert set(more.recommend(histories[0], k=200).item_ids) >= set(new_ids(2))


@pytest.mark.slow
def test_the_offset_moves_untrained_items_alone(bundle, scorer, histories, tmp_path):
    sources = embeddings(tmp_path / "new.npy", 1)
    scores = []
    for offset in (0.0, 2.0):
        place = tmp_path / str(offset)
        add_items(bundle, place, ids=new_ids(1), sources=sources, offset=offset)
        scores.append(
            answers(load(place, batch_size=16), histories[:1],
                    [*scorer.catalog.item_ids[:1], "new 0"])[0]
        )  # fmt: skip
    old, new = scores[0].keys()
    if old == "new 0":
        old, new = new, old
    assert scores[1][old] == scores[0][old]
    assert scores[1][new] - scores[0][new] == pytest.approx(2, abs=1e-5)


@pytest.mark.slow
def test_a_run_and_a_bundle_give_the_same_and_items_can_be_added_twice(run, bundle, tmp_path):
    sources = embeddings(tmp_path / "new.npy", 2)
    first = add_items(run, tmp_path / "a", ids=new_ids(2), sources=sources)
    second = add_items(bundle, tmp_path / "b", ids=new_ids(2), sources=sources)
    assert first["checksums"]["params.safetensors"] == second["checksums"]["params.safetensors"]
    assert first["metrics"] == second["metrics"]
    more = add_items(tmp_path / "b", tmp_path / "b", ids=("later",),
                     sources=embeddings(tmp_path / "later.npy", 1))  # fmt: skip
    assert more["added_items"] == 3
    assert load(tmp_path / "b", batch_size=16).catalog.item_ids[-3:] == ("new 0", "new 1", "later")


def test_ids_without_a_table_take_the_form_of_the_catalog(bundle, tmp_path):
    sources = embeddings(tmp_path / "new.npy", 1)
    add_items(bundle, tmp_path / "more", ids=("tt0007777",), sources=sources)
    grown = load(tmp_path / "more", batch_size=16).catalog.item_ids
    assert all(item_id.isdigit() for item_id in grown) and grown[-1] == "0007777"


def test_a_table_of_movies(trained, tmp_path):
    """A model whose content is genres and years, and a table as TMDB has it."""
    old = Catalog(
        ("0000001", "0000002"), ("War (1990)", "Stars (2000)"), ("War|Drama", "Sci-Fi|Drama")
    )
    movies = movies_of(old)
    encoder = fit(movies, np.ones(2, bool), options=Options(("genres", "numbers"), min_count=1))
    small = with_catalog(trained, old, Encoding(encoder, None), encoder.encode(movies))
    write_bundle(small, tmp_path / "bundle")
    table = tmp_path / "new.csv"
    table.write_text(
        "imdb_id,title,release_date,genres\n"
        "tt0000003,Comet,2000,Science Fiction|Drama\ntt0000004,Nothing,,\n"
    )
    notes = []
    add_items(tmp_path / "bundle", tmp_path / "more", sources=Sources(metadata=table),
              ids=["tt0000003"], notify=notes.append)  # fmt: skip
    grown = open_source(tmp_path / "more", console=QUIET)
    assert grown.catalog.item_ids == ("0000001", "0000002", "0000003")
    assert grown.catalog.titles[-1] == "Comet (2000)"
    rows = grown.variables["catalog"]["item_table"]["features"]
    np.testing.assert_array_equal(rows[4], rows[3])  # Sci-Fi and Drama of 2000, as Stars
    assert notes and "matches 1 of 1 items" in notes[0]
    # A night without releases: the bundle is passed on.
    add_items(tmp_path / "more", tmp_path / "same", sources=Sources(metadata=table),
              skip_known=True, ids=["0000003"], notify=notes.append)  # fmt: skip
    assert notes[-1].startswith("nothing to add: ")
    passed = open_source(tmp_path / "same", console=QUIET)
    assert passed.catalog.item_ids == grown.catalog.item_ids
    add_items(tmp_path / "more", tmp_path / "moved", sources=Sources(metadata=table),
              skip_known=True, ids=["0000003"], offset=1.5)  # fmt: skip
    moved = open_source(tmp_path / "moved", console=QUIET).variables["catalog"]["item_table"]
    assert float(moved["offset"]) == 1.5
    made = Bundle.open(tmp_path / "moved").manifest
    assert made["metrics"] is made["corrections_sha256"] is None  # those of another offset
    for ids, message in (
        (("0000004",), "nothing is known about 1 of 1 items to add, such as '0000004'"),
        (("0000009",), "has no imdb_id '0000009'"),
        (("0000003", "0000001"), "has no imdb_id '0000001'"),
    ):
        with pytest.raises(UserError, match=message):
            add_items(tmp_path / "bundle", tmp_path / "x", sources=Sources(metadata=table), ids=ids)
    for rows, message in (
        ("imdb_id,title\ntt0000001,War\n", r"1 of 1 items to add .*already \('0000001'\); leave"),
        ("imdb_id,title\ntt3,A\ntt3,B\n", r"line 3: the imdb_id 'tt3' is in .*line 2 too"),
        ("imdb_id,title\ntt003,A\n3,B\n", r"line 3: the imdb_id '3' is in .*line 2 too"),
        ("imdb_id,title\nnm3,A\n", "'nm3' is of another form than the ids of the catalog"),
        ("imdb_id,title\n,A\n", "line 2: the imdb_id is missing"),
        ("film,title\ntt3,A\n", "has none of item_id, imdb_id.*with --id-column"),
    ):
        table.write_text(rows)
        with pytest.raises(UserError, match=message):
            add_items(tmp_path / "bundle", tmp_path / "x", sources=Sources(metadata=table))
    assert not (tmp_path / "x").exists()


def test_a_nightly_table_of_a_shop(trained, tmp_path, capsys):
    """It is read as the first one was, and items of which nothing is known are left out."""
    old = Catalog(("a", "b"), ("a", "b"), ("", ""))
    others = OtherColumns(("brand", "shelves"))
    movies = [
        Movie(others={"brand": ("Acme",), "shelves": ("toys", "garden")}),
        Movie(others={"brand": ("Bolt",), "shelves": ("toys",)}),
    ]
    encoder = fit(
        movies, np.ones(2, bool), options=Options((), min_count=1, buckets=1, others=others)
    )
    encoding = Encoding(encoder, None, "sku", ";")
    small = with_catalog(trained, old, encoding, encoder.encode(movies))
    write_bundle(small, tmp_path / "bundle")
    table = tmp_path / "goods.csv"
    table.write_text(
        "sku,brand,shelves\na,Acme,toys;garden\nb,Bolt,toys\nc,Acme,garden;toys\nd,,\n"
    )
    notes = []

    def add(source, output, **options):
        add_items(tmp_path / source, tmp_path / output, sources=Sources(metadata=table),
                  skip_known=True, notify=notes.append, **options)  # fmt: skip

    with pytest.raises(UserError, match=r"nothing is known about 1 of 2 .*'d'.*--skip-unknown"):
        add("bundle", "more")
    add("bundle", "more", skip_unknown=True)
    assert notes[-1] == ("left out 1 of 2 items to add, about which nothing is known, such as 'd'")
    grown = open_source(tmp_path / "more", console=QUIET)
    assert grown.catalog.item_ids == ("a", "b", "c")
    assert (grown.encoding.id_column, grown.encoding.separator) == ("sku", ";")
    rows = grown.variables["catalog"]["item_table"]["features"]
    np.testing.assert_array_equal(rows[4], rows[2])
    # The next night, only the unknown one is new.
    command(tmp_path / "more", tmp_path / "same", metadata=table, skip_known=True,
            skip_unknown=True)  # fmt: skip
    shown = capsys.readouterr()
    assert "left out 1 of 1 items to add" in shown.err and "nothing to add: " in shown.err
    assert "3 items, 1 of them added" in shown.out
    assert open_source(tmp_path / "same", console=QUIET).catalog.item_ids == ("a", "b", "c")
    assert not any("warning" in note for note in notes)
    add_items(tmp_path / "bundle", tmp_path / "wrong", skip_known=True, skip_unknown=True,
              sources=Sources(metadata=table, separator="|"), notify=notes.append)  # fmt: skip
    assert any("warning: lists are cut at '|', and were cut at ';'" in note for note in notes)
    with pytest.warns(UserWarning, match="warning: lists are cut at '|', and") as warned:
        add_items(tmp_path / "bundle", tmp_path / "wrong", skip_known=True, skip_unknown=True,
                  sources=Sources(metadata=table, separator="|"))  # fmt: skip
    assert len(warned) == 1


def test_rows_without_an_id_are_none_of_the_named_ones(tmp_path):
    table = tmp_path / "movies.csv"
    table.write_text("imdb_id,title\n,A\ntt0000009,C\n")
    old = Catalog(("0000001",), ("B",), ("",))
    assert read_releases(table, old, ids=["tt0000009"])[1].item_ids == ("0000009",)
    with pytest.raises(UserError, match="line 2: the imdb_id is missing"):
        read_releases(table, old)


def test_leading_zeros_count_in_ids_that_are_no_imdb_numbers(tmp_path):
    old, table = Catalog(("21", "5"), ("A", "B"), ("", "")), tmp_path / "new.csv"
    table.write_text("item_id,title\n21,A\n0021,C\n")
    assert read_releases(table, old, skip_known=True)[1].item_ids == ("0021",)


def test_whole_numbers_with_and_without_a_fraction_are_one_id(tmp_path):
    """As in a log that was written with missing ids, and in the match of `bert4rec features`."""
    old, table = Catalog(("21.0", " 5"), ("A", "B"), ("", "")), tmp_path / "new.csv"
    table.write_text("item_id,title\n21,A\n5,B\n7,C\n")
    assert read_releases(table, old, skip_known=True)[1].item_ids == ("7",)
    assert read_releases(table, old, ids=["7.0"])[1].item_ids == ("7",)
    for given in ({}, {"ids": ["21.0"]}):
        with pytest.raises(UserError, match="are in the catalog already \\('21'"):
            read_releases(table, old, **given)
    with pytest.raises(UserError, match="are in the catalog already \\('21'"):
        named_releases(["21"], old)


def test_the_column_of_ids_is_the_one_that_the_catalog_knows(tmp_path):
    """As MovieLens' links: ids of their own beside those of IMDb."""
    old, table = Catalog(("1", "2"), ("A", "B"), ("", "")), tmp_path / "new.csv"
    table.write_text("imdb_id,movieId,title\ntt0000007,1,A\ntt0000009,3,C\n")
    with pytest.raises(UserError, match=r"1 of 2 items to add are in the catalog already \('1'\)"):
        read_releases(table, old)
    column, new = read_releases(table, old, ids=["3"])
    assert (column, new.item_ids) == ("movieId", ("3",))
    assert read_releases(table, old, skip_known=True)[1] == new
    known = Catalog(("1", "3"), ("A", "C"), ("", ""))
    assert len(read_releases(table, known, skip_known=True)[1]) == 0
    table.write_text("imdb_id,movieId,title\ntt0000009,3,C\n")  # nothing tells which is meant
    assert read_releases(table, old)[0] == "imdb_id"
    column, new = read_releases(table, old, usual_column="movieId")
    assert (column, new.item_ids) == ("movieId", ("3",))


def with_catalog(trained, catalog, encoding, rows):
    """The trained model about other items."""
    config = replace(trained.config, model=ModelConfig(dim=8, heads=2, layers=1, ffn_dim=16))
    model = build_model(
        config.model, num_rows=catalog.num_rows, max_length=config.data.max_length,
        content_dim=rows.shape[1],
    )  # fmt: skip
    table = trained.variables["params"]["item_table"]
    generator = np.random.default_rng(0)
    table = table | {
        name: generator.normal(size=(rows.shape[1], *table[name].shape[1:])).astype(np.float32)
        for name in ("content", "content_bias")
    }
    features = np.zeros((catalog.num_rows, rows.shape[1]), np.float32)
    features[2 : 2 + len(rows)] = rows
    known = catalog.is_item()
    params = {
        name: value
        for name, value in trained.variables["params"].items()
        if name != "thumb_embedding"
    }
    variables = {
        "params": params | {"item_table": table},
        "catalog": {"item_table": {"features": features, "trained": known}},
    }
    return replace(
        trained, config=config, model=model, variables=variables, catalog=catalog, known=known,
        encoding=encoding,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ids", "shape", "message"),
    [
        (("new",), (1, 4), "have 4 numbers, expected 3 as when it was fitted"),
        (("a", "b"), (3, 3), r"has the shape \[3, 3\]; expected \[2, D\]"),
        ((), (1, 3), "which items to add"),
        (("0",), (1, 3), r"1 of 1 items to add are in the catalog already \('0'\)"),
        (("tt0", "tt7777"), (2, 3), r"1 of 2 items to add are in the catalog already \('0'\)"),
        ("tt7777", (1, 3), "ids is 'tt7777'; expected a list of item ids"),
        (None, (1, 3), "ids is None; expected a list of item ids"),
        (np.array([], str), (1, 3), "which items to add"),
        (np.array([0]), (1, 3), r"1 of 1 items to add are in the catalog already \('0'\)"),
        (("tt7777", "7777"), (2, 3), "'7777' is named 2 times in the ids to add; expected every"),
    ],
)
def test_what_cannot_be_added(bundle, tmp_path, ids, shape, message):
    sources = embeddings(tmp_path / "new.npy", *shape)
    with pytest.raises(UserError, match=message):
        add_items(bundle, tmp_path / "more", ids=ids, sources=sources)
    assert not (tmp_path / "more").exists()


def test_embeddings_are_needed_where_the_model_had_them(bundle, tmp_path):
    table = tmp_path / "new.jsonl"
    table.write_text(json.dumps({"item_id": "700", "title": "Late", "year": 2020}) + "\n")
    with pytest.raises(UserError, match="block 'embeddings' of embeddings of 3 numbers; give"):
        add_items(bundle, tmp_path / "more", sources=Sources(metadata=table))


@pytest.mark.parametrize("offset", [float("nan"), float("inf"), "1"])
def test_an_offset_is_a_finite_number(bundle, tmp_path, offset):
    sources = embeddings(tmp_path / "new.npy", 2)
    with pytest.raises(UserError, match=f"offset is {offset!r}; expected a (finite )?number"):
        add_items(bundle, tmp_path / "more", ids=new_ids(2), sources=sources, offset=offset)


def test_a_model_of_ids_alone_knows_no_new_items(trained, tmp_path):
    without = replace(trained, encoding=None)
    write_bundle(without, tmp_path / "bundle")
    with pytest.raises(UserError, match=r"by their ids alone.*train it with content"):
        add_items(tmp_path / "bundle", tmp_path / "more", ids=["a"], sources=Sources())


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_rounding_comes_last(bundle, histories, tmp_path, dtype):
    """A bundle with new items may be rounded; a rounded one takes no new items."""
    sources = embeddings(tmp_path / "new.npy", 2)
    add_items(bundle, tmp_path / "full", ids=new_ids(2), sources=sources)
    manifest = add_items(bundle, tmp_path / "small", ids=new_ids(2), sources=sources, dtype=dtype)
    assert manifest["dtype"] == dtype
    full, small = (load(tmp_path / x, batch_size=16) for x in ("full", "small"))
    items = [*full.catalog.item_ids[:5], *new_ids(2)]
    for exact, rounded in zip(*(answers(x, histories[:4], items) for x in (full, small))):
        assert exact.keys() == rounded.keys() == set(items)
        assert exact != rounded
        assert list(exact.values()) == pytest.approx([rounded[x] for x in exact], abs=0.1)
    with pytest.raises(UserError, match=f"rounded to {dtype}; add .* with --dtype {dtype}"):
        add_items(tmp_path / "small", tmp_path / "more", ids=["a"], sources=sources)


def test_growing_changes_nothing_of_the_first_model(trained):
    before = trained.known.copy()
    rows = np.ones((1, trained.encoding.encoder.width), np.float32)
    grown = grow(trained, Catalog(("z",), ("Z",), ("",)), rows)
    np.testing.assert_array_equal(trained.known, before)
    assert grown.known.sum() == trained.known.sum() + 1
