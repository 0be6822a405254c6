import pytest
import shelf

from bert4rec_jax.data.catalog import Catalog
from bert4rec_jax.features.movie import Movie, movies_of, title_of


def test_a_catalog_knows_titles_years_and_genres():
    movies = movies_of(shelf.catalog())
    assert movies[0] == Movie(title="Heat", year=1995, genres=("Crime", "Drama"))
    assert movies[4] == Movie(title="Pulp Fiction", year=1994)
    assert movies[5] == Movie()  # its title only repeats its id


def test_titles_with_and_without_a_year():
    titles = ("1984", "2001: A Space Odyssey (1968)", "Se7en(1995)", "(1963)", "M (fragment)")
    movies = movies_of(Catalog(tuple("abcde"), titles, ("",) * 5))
    assert [(movie.title, movie.year) for movie in movies] == [
        ("1984", None), ("2001: A Space Odyssey", 1968), ("Se7en", 1995), ("(1963)", None),
        ("M (fragment)", None),
    ]  # fmt: skip


def test_the_year_is_added_to_a_title_once():
    for movie in (Movie(title="Heat", year=1995), Movie(title="Heat (1995)", year=1995)):
        assert title_of("1", movie) == "Heat (1995)"
    assert title_of("1", Movie(title="Heat (1995)", year=1996)) == "Heat (1995) (1996)"
    assert title_of("1", Movie(title="Heat")) == "Heat" and title_of("1", Movie()) == "1"


def test_another_movie_fills_gaps_and_changes_nothing_else():
    own = Movie(title="Heat (own)", year=1996, genres=("Sci-Fi", "Science Fiction", "Drama"))
    known = Movie(title="Heat", genres=("Crime",), runtime=170)
    assert known.or_else(own) == Movie(title="Heat", year=1996, genres=("Crime",), runtime=170)
    # One column for one genre, whoever names it.
    assert Movie().or_else(own).genres == ("Science Fiction", "Drama")


@pytest.mark.parametrize("name", ["names", "number", "date", "or_else", "year", "others"])
def test_other_facts_are_never_those_of_the_movie(name):
    """A column may be called as a method or a field is, and be empty for some movie."""
    movie = Movie(year=2013, date=2013.5)
    assert movie.names(name) == () and movie.number(name) is None
    found = Movie(others={name: ("a",)})
    assert found.names(name) == ("a",)


def test_a_single_name_is_a_list_of_one():
    movie = Movie(language="en", genres=("Crime", "Drama"))
    assert movie.names("language") == ("en",)
    assert movie.names("genres") == ("Crime", "Drama")
    assert movie.names("keywords") == Movie().names("language") == ()
