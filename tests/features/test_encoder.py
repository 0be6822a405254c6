import dataclasses
import json

import numpy as np
import pytest
import shelf

from bert4rec_jax.errors import UserError
from bert4rec_jax.features.encoder import Encoder, fit
from bert4rec_jax.features.movie import Movie
from bert4rec_jax.features.options import BLOCKS, Options, OtherColumns
from bert4rec_jax.features.tmdb import movie_of
from bert4rec_jax.features.vectors import Vectors

MOVIES = [movie_of(row, "") for row in shelf.ROWS[:5]] + [Movie()]
FITTED = np.array([True, True, True, True, False, False])
OPTIONS = Options(BLOCKS, min_count=1, buckets=2, leaky=True)
VECTORS = {
    "text": Vectors(
        np.arange(18, dtype=np.float32).reshape(6, 3), np.array([True] * 4 + [False] * 2)
    )
}


@pytest.fixture(scope="module")
def encoder():
    return fit(MOVIES, FITTED, options=OPTIONS, vectors=VECTORS)


def column(encoder, block, name):
    """The column of a name in a block."""
    span = next(span for span in encoder.spans() if span.name == block)
    found = next(b for b in encoder.blocks if b.name == block)
    return span.start + found.vocabulary.columns((name,))[0]


def test_blocks_lie_side_by_side(encoder):
    spans = encoder.spans()
    assert [span.name for span in spans] == [*BLOCKS, "leaky", "text"]
    assert [span.start for span in spans] == [0, *(span.stop for span in spans[:-1])]
    assert spans[-1].stop == encoder.width == encoder.encode(MOVIES, VECTORS).shape[1]


def test_every_block_of_every_movie_says_something_or_is_missing(encoder):
    rows = encoder.encode(MOVIES, VECTORS)
    assert rows.dtype == np.float32
    for span in encoder.spans():
        for part, at in span.missing.items():
            missing = rows[:, at] > 0
            assert missing[-1], f"{part} of the movie about which nothing is known"
            assert not missing[0], f"{part} of the movie about which everything is known"
    heist = rows[:, column(encoder, "keywords", "heist")]
    assert (heist > 0).tolist() == [True, True, False, False, False, False]


def test_rare_names_of_other_columns_have_no_column_of_their_own():
    movies = [Movie(others={"brand": (name,)}) for name in ("Acme", "Acme", "Bolt")]
    options = Options((), min_count=2, others=OtherColumns(("brand",)))
    (block,) = fit(movies, np.ones(3, bool), options=options).blocks
    assert block.vocabulary.names == ("Acme",)


def test_missing_never_equals_known(encoder):
    """Whatever is known of a movie, leaving it out changes the row."""
    fields = ("genres", "language", "keywords", "cast", "crew", "companies", "runtime", "budget",
              "popularity", "vote_average", "vote_count", "revenue")  # fmt: skip
    whole = encoder.encode(MOVIES[:1], _first(VECTORS))
    for field in fields:
        without = dataclasses.replace(MOVIES[0], **{field: getattr(Movie(), field)})
        assert not np.array_equal(encoder.encode([without], _first(VECTORS)), whole), field
    undated = dataclasses.replace(MOVIES[0], year=None, date=None)
    assert not np.array_equal(encoder.encode([undated], _first(VECTORS)), whole)


def test_items_outside_training_change_nothing(encoder):
    others = [
        *MOVIES[:4],
        Movie(keywords=("never seen",), genres=("War",), runtime=999, year=1900, popularity=1e9),
        Movie(keywords=("heist",) , cast=("Al Pacino",), budget=1.0),
    ]  # fmt: skip
    other_vectors = {
        "text": Vectors(np.concatenate([VECTORS["text"].values[:4], np.full((2, 3), 1e6)])
                        .astype(np.float32), np.ones(6, bool))
    }  # fmt: skip
    assert fit(others, FITTED, options=OPTIONS, vectors=other_vectors) == encoder
    np.testing.assert_array_equal(
        encoder.encode(others, other_vectors)[:4], encoder.encode(MOVIES, VECTORS)[:4]
    )


def test_the_order_of_items_changes_nothing_but_the_order_of_rows():
    order = [3, 1, 0, 2, 5, 4]
    movies = [MOVIES[at] for at in order]
    text = VECTORS["text"]
    vectors = {"text": Vectors(text.values[order], text.present[order])}
    turned = fit(movies, FITTED[order], options=OPTIONS, vectors=vectors)
    np.testing.assert_allclose(
        turned.encode(movies, vectors),
        fit(MOVIES, FITTED, options=OPTIONS, vectors=VECTORS).encode(MOVIES, VECTORS)[order],
        rtol=1e-6,
    )


def test_a_row_does_not_depend_on_the_others(encoder):
    rows = encoder.encode(MOVIES, VECTORS)
    for at, movie in enumerate(MOVIES):
        alone = encoder.encode([movie], _slice(VECTORS, at))
        np.testing.assert_array_equal(alone[0], rows[at])


def test_values_are_the_columns_of_numbers_and_embeddings(encoder):
    rows = encoder.encode(MOVIES, VECTORS)
    values = encoder.values(rows)
    numbers = [n for block in encoder.blocks for n in getattr(block, "numbers", ())]
    assert list(values) == [*(number.name for number in numbers), "text"]
    scales = {n.name: b.scale for b in encoder.blocks for n in getattr(b, "numbers", ())}
    for number in numbers:
        known = np.array([movie.number(number.name) is not None for movie in MOVIES])
        assert values[number.name].shape == (6, len(number.knots))
        np.testing.assert_allclose(
            values[number.name].sum(axis=1), np.where(known, scales[number.name], 0), rtol=1e-5
        )
    np.testing.assert_array_equal(values["text"], rows[:, -4:-1])


def test_json_gives_an_equal_encoder_with_bitwise_equal_rows(encoder):
    again = Encoder.from_json(json.loads(encoder.dumps()))
    assert again == encoder
    np.testing.assert_array_equal(again.encode(MOVIES, VECTORS), encoder.encode(MOVIES, VECTORS))


@pytest.mark.parametrize(
    "change",
    [{"schema_version": 9}, {"blocks": [{"kind": "x"}]}, {"options": {"blocks": [], "x": 1}}],
)
def test_the_json_of_another_version_is_refused(encoder, change):
    with pytest.raises(UserError, match=r"encoder was written by another version .*make it again"):
        Encoder.from_json(encoder.to_json() | change)


def test_embeddings_have_to_be_given_in_the_fitted_width(encoder):
    with pytest.raises(UserError, match=r"block 'text' of embeddings of 3 numbers; give those"):
        encoder.encode(MOVIES)
    wide = {"text": Vectors(np.zeros((6, 4), np.float32), np.ones(6, bool))}
    with pytest.raises(UserError, match=r"block 'text' have 4 numbers, expected 3 as when it was"):
        encoder.encode(MOVIES, wide)


def test_blocks_are_chosen_and_leaky_ones_are_off_by_default():
    chosen = fit(MOVIES, FITTED, options=Options(blocks=("cast", "genres"), min_count=1))
    assert [span.name for span in chosen.spans()] == ["cast", "genres"]
    default = fit(MOVIES, FITTED, options=Options())
    parts = {part for span in default.spans() for part in span.missing}
    assert not parts & {"popularity", "vote_average", "vote_count", "revenue"}


def test_cut_offs():
    # Drama, Crime, ... occur once each among the fitted, Science Fiction twice.
    options = Options(BLOCKS, min_count=2, keywords=0, buckets=3)
    blocks = {block.name: block for block in fit(MOVIES, FITTED, options=options).blocks}
    assert blocks["genres"].vocabulary.names == ("Science Fiction",)
    assert blocks["genres"].vocabulary.buckets == 1
    assert blocks["keywords"].vocabulary.names == ()
    assert blocks["keywords"].vocabulary.buckets == 3


def test_nothing_known_is_an_error():
    with pytest.raises(UserError, match=r"none of the 1 items with a training interaction has genre"
                       r"s, .*numbers; give a table with --metadata"):  # fmt: skip
        fit([Movie()], np.array([True]), options=Options())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_count": 0}, "min_count is 0; expected at least 1"),
        ({"buckets": -1}, "buckets is -1; expected at least 0"),
        ({"blocks": ("cast", "cast")}, "the blocks are cast, cast; expected some of genres, "),
        ({"blocks": ("x",)}, "the blocks are x; expected some of genres, language"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(UserError, match=message):
        Options(**options)


def _slice(vectors, at):
    return {
        name: Vectors(given.values[at : at + 1], given.present[at : at + 1])
        for name, given in vectors.items()
    }


def _first(vectors):
    return _slice(vectors, 0)
