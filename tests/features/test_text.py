import sys

import pytest
import shelf

from bert4rec_jax.errors import UserError
from bert4rec_jax.features.movie import Movie
from bert4rec_jax.features.options import TextOptions
from bert4rec_jax.features.text import DEFAULT_MODEL, default_prompt, load_model, text_of
from bert4rec_jax.features.tmdb import movie_of

GEMMA = default_prompt(DEFAULT_MODEL)
PLAIN = default_prompt("all-MiniLM-L6-v2")


def test_the_prompt_of_embeddinggemma_for_documents():
    heat = movie_of(shelf.ROWS[0], "")
    assert text_of(heat, GEMMA) == "title: Heat | text: A crime saga. Thieves and a detective."
    assert text_of(heat, PLAIN) == "Heat. A crime saga. Thieves and a detective."


def test_what_is_not_known():
    assert text_of(Movie(overview="A heist."), GEMMA) == "title: none | text: A heist."
    assert text_of(Movie(title="Heat"), GEMMA) == "title: Heat | text: Heat"
    assert text_of(Movie(title="Heat", tagline="A saga."), PLAIN) == "Heat. A saga."
    assert text_of(Movie(year=1995, genres=("Crime",)), GEMMA) is None


def test_braces_in_a_title_mean_nothing():
    assert text_of(Movie(title="{text}", overview="{title} {x}"), GEMMA) == (
        "title: {text} | text: {title} {x}"
    )
    assert text_of(Movie(title="M", overview="a"), "{title}{title} {text} {x}") == "MM a {x}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": "{title}"}, r"prompt is '\{title\}'; expected \{text\} in it, and perhaps"),
        ({"truncate_dim": 0}, "truncate_dim is 0; expected at least 1"),
        ({"batch_size": 0}, "batch_size is 0; expected at least 1"),
    ],
)  # fmt: skip
def test_impossible_options(options, message):
    with pytest.raises(UserError, match=message):
        TextOptions("m", **options)


def test_a_missing_extra_names_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(UserError, match=r"need sentence-transformers \(.*\); install it with "
                       r"`pip install 'bert4rec-jax\[text\]'`, or give --embeddings"):  # fmt: skip
        load_model(DEFAULT_MODEL)
