"""Encodings: movies that come later get rows as the first ones did, or one clear error."""

import numpy as np
import pytest
import shelf

from bert4rec_jax.errors import UserError
from bert4rec_jax.features.build import build
from bert4rec_jax.features.encoding import Encoding
from bert4rec_jax.features.movie import Movie
from bert4rec_jax.features.options import Options, TextOptions
from bert4rec_jax.features.sources import Sources, gather

TEXT = TextOptions("fake", truncate_dim=4)


@pytest.fixture
def content(tmp_path):
    table = shelf.write_parquet(tmp_path / "movies.parquet")
    return build(
        shelf.store(tmp_path / "store"), tmp_path / "content", fitted=np.ones(6, bool),
        sources=Sources(table), options=Options(min_count=1), text=TEXT, embedder=shelf.Fake(),
        cache=tmp_path / "cache",
    ).content  # fmt: skip


def known(tmp_path, model, text=TEXT):
    table = shelf.write_parquet(tmp_path / "movies.parquet")
    return gather(
        shelf.catalog(), Sources(table), text=text, embedder=model, cache=tmp_path / "cache"
    )


def test_rows_of_the_first_movies_come_out_again(content, tmp_path):
    encoding = Encoding.from_json(content.encoding.to_json())
    assert encoding == content.encoding
    rows = encoding.rows(known(tmp_path, shelf.Fake()))
    np.testing.assert_array_equal(rows[:5], content.matrix[2:7])
    assert not rows[5].any()  # nothing is known of it
    assert encoding.text_options() == TextOptions(
        "fake", "1", "{title}. {text}", truncate_dim=4
    )  # fmt: skip


@pytest.mark.parametrize(
    ("model", "text", "message"),
    [
        (shelf.Fake(name="other"), TEXT, "model 'other' .expected 'fake'."),
        (shelf.Fake(revision="2"), TEXT, "revision '2' .expected '1'."),
        (shelf.Fake(), TextOptions("fake", truncate_dim=3), "truncate_dim 3 .expected 4."),
        (shelf.Fake(), TextOptions("fake", prompt="{text}", truncate_dim=4), "prompt '.text.'"),
    ],
)  # fmt: skip
def test_another_text_model_is_refused(content, tmp_path, model, text, message):
    with pytest.raises(UserError, match=message):
        content.encoding.rows(known(tmp_path, model, text))


def test_texts_that_the_content_never_had_are_refused(content, tmp_path):
    plain = Encoding(content.encoding.encoder, None)
    with pytest.raises(UserError, match=r"texts were embedded with fake.*leave out the text model"):
        plain.rows(known(tmp_path, shelf.Fake()))
    assert plain.text_options() is None


def test_genres_under_the_names_that_are_known():
    movie = Movie(genres=("Science Fiction", "Drama", "Family"))
    assert movie.genres_among(("Sci-Fi", "Drama")).genres == ("Sci-Fi", "Drama", "Family")
    assert movie.genres_among(("Science Fiction", "Sci-Fi")).genres == movie.genres
