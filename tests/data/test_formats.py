import os

import pytest

from bert4rec_jax.data.formats import locate
from bert4rec_jax.errors import UserError

DAT = "1::0054890::9::1381945744\n"
U_DATA = "196\t242\t3\t881250949\n"
MOVIELENS = "userId,movieId,rating,timestamp\n1,2,3.5,1112486027\n"


def put(folder, files):
    for name, content in files.items():
        (folder / name).write_text(content)


@pytest.mark.parametrize(
    ("name", "content", "format"),
    [
        ("ratings.dat", DAT, "movielens-dat"),
        ("anything.txt", DAT, "movielens-dat"),
        ("u.data", U_DATA, "movielens-100k"),
        ("u1.base", U_DATA, "movielens-100k"),
        ("ratings.csv", MOVIELENS, "movielens-csv"),
        ("small.txt", "\n" + MOVIELENS, "movielens-csv"),
        ("ratings.csv", "user_id,item_id\n1,2\n", "csv"),
        ("log.csv", "user_id,item_id\n1,2\n", "csv"),
        ("log.tsv", U_DATA, "tsv"),
        ("ml-1m.txt", "1 1\n1 2\n", "pairs"),
        ("ml-1m.txt", "1\t1\n1\t2\n", "pairs"),
        ("part-0", "PAR1...", "parquet"),
    ],
)
def test_formats_are_told_by_name_and_first_line(tmp_path, name, content, format):
    put(tmp_path, {name: content})
    found = locate(tmp_path / name)
    assert (found.format, found.parts, found.titles) == (format, (tmp_path / name,), None)


@pytest.mark.parametrize(
    ("files", "format", "log", "titles"),
    [
        ({"ratings.dat": DAT, "movies.dat": "", "users.dat": DAT}, "movielens-dat", 0, 1),
        ({"u.data": U_DATA, "u.item": "", "u1.base": U_DATA}, "movielens-100k", 0, 1),
        ({"ratings.csv": MOVIELENS, "movies.csv": "", "tags.csv": ""}, "movielens-csv", 0, 1),
        ({"ratings.csv": "user_id,item_id\n", "movies.csv": ""}, "csv", 0, None),
    ],
)
def test_folders_hold_a_log_and_its_titles(tmp_path, files, format, log, titles):
    put(tmp_path, files)
    found = locate(tmp_path)
    names = list(files)
    assert found.format == format
    assert [part.name for part in found.parts] == [names[log]]
    assert (found.titles and found.titles.name) == (None if titles is None else names[titles])


def test_the_parts_of_a_parquet_folder_are_read_in_the_order_of_their_names(tmp_path):
    put(tmp_path, {"part-1.parquet": "PAR1", "part-0.parquet": "PAR1", "_SUCCESS": ""})
    found = locate(tmp_path)
    assert found.format == "parquet"
    assert [part.name for part in found.parts] == ["part-0.parquet", "part-1.parquet"]


def test_a_given_format_is_not_questioned(tmp_path):
    put(tmp_path, {"ratings.csv": MOVIELENS, "ratings.dat": DAT})
    assert locate(tmp_path / "ratings.csv", "tsv").format == "tsv"
    assert locate(tmp_path, "csv").parts == (tmp_path / "ratings.csv",)
    assert locate(tmp_path, "movielens-dat").parts == (tmp_path / "ratings.dat",)


def test_several_logs_in_a_folder_are_not_chosen_from(tmp_path):
    put(tmp_path, {"ratings.csv": MOVIELENS, "ratings.dat": DAT})
    with pytest.raises(UserError, match=r"holds ratings\.dat and ratings\.csv; give the path"):
        locate(tmp_path)


def test_a_folder_without_a_log_tells_what_it_holds(tmp_path):
    put(tmp_path, {"ml-1m.txt": "1 1\n", "movies.dat": ""})
    with pytest.raises(
        UserError, match=r"none of ratings\.dat, .* but ml-1m\.txt, movies\.dat; gi"
    ):
        locate(tmp_path)


def test_other_subfolders_are_not_read(tmp_path):
    (tmp_path / "january").mkdir()
    (tmp_path / "january" / "part-0.parquet").write_text("PAR1")
    message = r"but january; give the path of the log file, or of one subfolder: none is read but "
    with pytest.raises(UserError, match=message):
        locate(tmp_path)
    (tmp_path / "january").rename(tmp_path / "month=1")
    assert locate(tmp_path).parts == (tmp_path / "month=1" / "part-0.parquet",)
    with pytest.raises(UserError, match="holds none of ratings"):
        locate(tmp_path, "csv")


def test_an_unknown_first_line_is_shown(tmp_path):
    put(tmp_path, {"log.txt": "one two three\n"})
    with pytest.raises(
        UserError,
        match=r"format of .*log\.txt .* 'one two three'; .* --format \(in Python: format\): mov",
    ):
        locate(tmp_path / "log.txt")


def test_missing_empty_and_packed_files(tmp_path):
    put(tmp_path, {"empty.csv": "", "blank.csv": "\n\n", "log.csv.zst": "x"})
    with pytest.raises(UserError, match=r"absent\.csv does not exist; give a log file"):
        locate(tmp_path / "absent.csv")
    for name in ("empty.csv", "blank.csv"):
        with pytest.raises(UserError, match=f"{name} is empty"):
            locate(tmp_path / name)
    with pytest.raises(UserError, match=r"log\.csv\.zst is packed; unpack it and give"):
        locate(tmp_path / "log.csv.zst")


def test_a_pipe_is_no_log(tmp_path):
    os.mkfifo(tmp_path / "log.csv")
    with pytest.raises(UserError, match=r"log\.csv is no regular file, and a pipe can be read onl"):
        locate(tmp_path / "log.csv")


def test_a_broken_link_among_shards_is_passed_over(tmp_path):
    (tmp_path / "a.parquet").write_text("x")
    (tmp_path / "b.parquet").symlink_to(tmp_path / "gone")
    assert [file.name for file in locate(tmp_path).parts] == ["a.parquet"]
