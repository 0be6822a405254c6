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


def test_a_table_without_genres_has_titles(tmp_path):
    (tmp_path / "t.csv").write_text("item_id,title\n07,Bond\n")
    assert read_titles(tmp_path / "t.csv") == {"07": ("Bond", "")}


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


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"absent\.dat does not exist"):
        read_titles(tmp_path / "absent.dat")
