import datetime
import json
import math

import pytest
import shelf

from bert4rec_jax.errors import UserError
from bert4rec_jax.features.movie import Movie
from bert4rec_jax.features.tmdb import BILLED, id_of, movie_of

HEAT = Movie(
    title="Heat", year=1995, date=1995 + 348 / 365, language="en", genres=("Crime", "Drama"),
    keywords=("heist", "los angeles"), cast=("Al Pacino", "Robert De Niro"),
    crew=("Michael Mann",), companies=("Regency",), runtime=170.0, budget=60e6,
    tagline="A crime saga.", overview="Thieves and a detective.", popularity=20.5,
    vote_average=7.9, vote_count=1886.0, revenue=187e6,
)  # fmt: skip

# The same movie as `/movie/949?append_to_response=keywords,credits,external_ids` gives it.
API = {
    "id": 949, "adult": False, "title": "Heat", "original_title": "Heat",
    "release_date": "1995-12-15", "original_language": "en", "runtime": 170, "budget": 60000000,
    "genres": [{"id": 80, "name": "Crime"}, {"id": 18, "name": "Drama"}],
    "keywords": {"keywords": [{"id": 1, "name": "heist"}, {"id": 2, "name": "los angeles"}]},
    "credits": {
        "cast": [{"name": "Robert De Niro", "order": 1}, {"name": "Al Pacino", "order": 0}],
        "crew": [{"name": "Dante Spinotti", "job": "Director of Photography"},
                 {"name": "Michael Mann", "job": "Director"},
                 {"name": "Michael Mann", "job": "Writer"}],
    },
    "production_companies": [{"id": 508, "name": "Regency", "logo_path": None}],
    "spoken_languages": [{"iso_639_1": "es", "name": "Español"}],
    "tagline": "A crime saga.", "overview": "Thieves and a detective.", "popularity": 20.5,
    "vote_average": 7.9, "vote_count": 1886, "revenue": 187000000,
    "external_ids": {"imdb_id": "tt0113277"},
}  # fmt: skip


def test_a_flat_row():
    assert movie_of(shelf.ROWS[0], "here") == HEAT


def test_the_form_of_the_api():
    assert movie_of(API, "here") == HEAT
    assert id_of(API, "id") == 949
    assert id_of(API, "imdb_id") == "tt0113277"
    assert id_of(API, "tmdb_id") is None


@pytest.mark.parametrize("write", [json.dumps, repr])
def test_the_form_of_the_api_inside_text(write):
    nested = ("genres", "keywords", "credits", "production_companies", "spoken_languages")
    row = API | {field: write(API[field]) for field in nested}
    row |= {"runtime": "170.0", "budget": "60000000", "vote_count": "1886"}
    assert movie_of(row, "here") == HEAT


def test_other_places_of_the_same():
    assert movie_of({"keywords": {"results": [{"name": "heist"}]}}, "").keywords == ("heist",)
    assert movie_of({"keywords": ["heist", "toy", "heist"]}, "").keywords == ("heist", "toy")
    assert movie_of({"cast": API["credits"]["cast"]}, "").cast == HEAT.cast
    assert movie_of({"crew": API["credits"]["crew"]}, "").crew == HEAT.crew
    assert movie_of({"directors": "A|B"}, "").crew == ("A", "B")
    assert movie_of({"original_title": "Ran"}, "").title == "Ran"
    assert movie_of({"spoken_languages": API["spoken_languages"]}, "").language == "es"
    assert movie_of({"genres": "Crime, Drama"}, "", separator=",").genres == ("Crime", "Drama")
    # A title is no list, though it looks like one.
    assert movie_of({"title": "[REC]", "keywords": "[rec]|zombie"}, "").keywords[0] == "[rec]"


@pytest.mark.parametrize(
    "text",
    [
        "['Crime' 'Drama']", "['Crime'\n 'Drama']", "['Crime', 'Drama']",
        "[{'id': 80, 'name': 'Crime'}, {'id': 18, 'name': 'Drama'}]",
        "[{'id': 80, 'name': 'Crime'}\n {'id': 18, 'name': 'Drama'}]",
    ],
)  # fmt: skip
def test_lists_as_pandas_writes_them_into_csv(text):
    """Those of NumPy, which have no commas, come from Parquet; Python would join their texts."""
    assert movie_of({"genres": text}, "").genres == ("Crime", "Drama")


def test_quotes_within_a_name_are_no_end_of_it():
    name = "The 'Best' 'of' \"It\" {1}"
    assert movie_of({"keywords": repr([name, "b"])}, "").keywords == (name, "b")
    assert movie_of({"keywords": f"[{name!r} 'b']"}, "").keywords == (name, "b")


def test_only_the_top_of_the_bill_counts():
    names = [f"actor {i}" for i in range(30)]
    assert movie_of({"cast": "|".join(names)}, "").cast == tuple(names[:BILLED])
    assert movie_of({"cast": "|".join(names[:1] + names)}, "").cast == tuple(names[:BILLED])


def test_who_has_no_place_on_the_bill_comes_last():
    cast = [{"name": "c"}, {"name": "b", "order": 1}, {"name": "a", "order": 0}]
    assert movie_of({"cast": cast}, "").cast == ("a", "b", "c")


def test_a_release_date_is_believed_before_a_year():
    assert movie_of({"release_date": "1995-12-15", "year": 2001}, "").year == 1995


def test_zero_is_a_number_of_other_columns():
    assert movie_of({"price": 0, "brand": ""}, "", names=["brand"], numbers=["price"]).others == {
        "price": 0
    }


@pytest.mark.parametrize(
    "nothing", [None, "", "  ", math.nan, [], "[]", {"keywords": []}, {"results": []}]
)
def test_every_form_of_nothing_is_missing(nothing):
    fields = ("genres", "keywords", "cast", "director", "production_companies")
    assert movie_of(dict.fromkeys(fields, nothing), "") == Movie()
    if not isinstance(nothing, list | dict) and nothing != "[]":
        assert movie_of(dict.fromkeys(shelf.FIELDS, nothing), "") == Movie()


def test_zeros_that_mean_unknown_and_zeros_that_do_not():
    unknown = ("runtime", "budget", "revenue", "vote_average")
    assert movie_of(dict.fromkeys(unknown, 0), "") == Movie()
    assert movie_of({"vote_count": 0, "popularity": "0"}, "") == Movie(vote_count=0, popularity=0)


@pytest.mark.parametrize(
    "date",
    ["1995-12-15", "1995", " 1995-12 ", datetime.date(1995, 12, 15), datetime.datetime(1995, 1, 1),
     1995, 1995.0, "1995.0"],
)  # fmt: skip
def test_years(date):
    assert movie_of({"release_date": date}, "").year == 1995
    assert movie_of({"year": date}, "").year == 1995


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        ("2012-01-01", 2012.0), ("2012-12-31", 2012 + 365 / 366),
        (" 2013-07-02T10:00", 2013 + 182 / 365),
        (datetime.date(2013, 7, 2), 2013 + 182 / 365), (datetime.datetime(2012, 1, 1, 9), 2012.0),
    ],
)  # fmt: skip
def test_dates_are_years_and_the_days_since_they_began(date, expected):
    movie = movie_of({"release_date": date}, "")
    assert movie.date == movie.released == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("date", ["1995", "1995-12", 1995, "1995-02-30"])
def test_without_a_day_a_movie_is_of_the_middle_of_its_year(date):
    movie = movie_of({"release_date": date}, "")
    assert (movie.date, movie.year, movie.released) == (None, 1995, 1995.5)
    assert movie_of({}, "").released is None


LIST = "; expected names with a separator, or TMDB's list of objects with a name: fix or remove "


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("runtime", "long", "the runtime 'long' is not valid; expected a number from 0: fix or"),
        ("budget", -1, "the budget -1 is not valid; expected a number from 0"),
        ("budget", "/ff9q.jpg", "the budget '/ff9q.jpg' is not valid"),
        ("budget", math.inf, "the budget inf is not valid"),
        ("budget", 10**400, "the budget 1000"),
        ("runtime", True, "the runtime True is not valid"),
        ("runtime", [90], "the runtime [90] is not valid"),
        ("release_date", "soon", "the release_date 'soon' is not valid; expected a year from 1870 "
         "to 2100, or a date such as 1995-12-15"),
        ("release_date", "15/12/1995", "the release_date '15/12/1995' is not valid"),
        ("year", 19951215, "the year 19951215 is not valid"),
        ("year", 1995.5, "the year 1995.5 is not valid"),
        ("title", 300, "the title 300 is not valid; expected text"),
        ("title", "half \ud83d", r"the title 'half \ud83d' is not valid; expected Unicode text"),
        ("cast", ["\ud83d"], r"the cast '\ud83d' is not valid; expected Unicode text, without "
         "half of a surrogate pair: fix or remove"),
        ("genres", 18, f"the genres 18 is not valid{LIST}"),
        ("genres", [{"id": 18}], f"the genres {{'id': 18}} is not valid{LIST}"),
        ("keywords", {"id": 18}, f"the keywords {{'id': 18}} is not valid{LIST}"),
        ("keywords", '[{"name": "a"', "the keywords '[{\"name\": \"a\"' is not valid; expected"),
        ("genres", "{[18]: 1}", "the genres '{[18]: 1}' is not valid; expected JSON, "),
        ("genres", "['a' ... 'b']", "the genres \"['a' ... 'b']\" is not valid; expected JSON, "),
        ("genres", '{"a":' * 10**5, "the genres '{\"a\":"),
        ("credits", "Al Pacino", "the credits 'Al Pacino' is not valid; expected an object with "),
    ],
)  # fmt: skip
def test_values_that_are_not_valid_are_named(field, value, message):
    with pytest.raises(UserError) as caught:
        movie_of({field: value}, "movies.csv, line 7")
    assert str(caught.value).startswith(f"movies.csv, line 7: {message}")


@pytest.mark.parametrize("text", ["1970-01-01", "1969-12-31", "2012-12-31", "2013-03-01"])
def test_the_day_of_release_is_that_of_the_date(text):
    day = (datetime.date.fromisoformat(text) - datetime.date(1970, 1, 1)).days
    assert movie_of({"release_date": text}, "").release_day == day
    assert movie_of({"release_date": text[:4]}, "").release_day is None
