"""What is known of users as rows of numbers: a worked example, and what is refused."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bert4rec_jax.errors import UserError
from bert4rec_jax.features.known_users import read_users
from bert4rec_jax.features.user_encoding import UserEncoding

USERS = [f"u{i}" for i in range(12)]
EVERYONE = np.ones(12, bool)
# Five F, five M, one X and one that says nothing; the ages 20 and 40 six times each, but one.
GENDERS = [*"FFFFF", *"MMMMM", "X", None]
AGES = [20, 40] * 5 + [None, 30]
TAGS = [["a", "b"], ["a"]] * 5 + [[], None]


def write(folder, **columns):
    file = folder / "users.parquet"
    pq.write_table(pa.table({"user_id": USERS, **columns}), file)
    return file


def test_rows_by_hand(tmp_path):
    file = write(tmp_path, gender=GENDERS, age=AGES, tags=TAGS)
    said = []
    known = read_users(file, [*USERS, "other"], np.append(EVERYONE, False), notify=said.append)
    # F, M, any other, missing | age: mean 30, deviation 10 * sqrt(10 / 11); missing | a, b, other,
    # missing
    one = 1 / np.sqrt(10 / 11)
    assert known.encoding.names == ("gender", "age", "tags") and known.encoding.width == 10
    rows = known.matrix[1:]
    np.testing.assert_allclose(rows[0], [1, 0, 0, 0, -one, 0, 1, 1, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(rows[9], [0, 1, 0, 0, one, 0, 1, 0, 0, 0], rtol=1e-6)
    np.testing.assert_array_equal(rows[10], [0, 0, 1, 0, 0, 1, 0, 0, 0, 0])  # X; no tag is a value
    np.testing.assert_array_equal(rows[11], [0, 0, 0, 1, 0, 0, 0, 0, 0, 1])
    nothing = [0, 0, 0, 1, 0, 1, 0, 0, 0, 1]
    np.testing.assert_array_equal(rows[12], nothing)  # not in the table
    np.testing.assert_array_equal(known.matrix[0], nothing)
    assert said == ["  users.parquet knows 12 of 13 users: gender, age, tags (10 columns)"]


def test_only_users_that_are_trained_on_shape_the_columns(tmp_path):
    trained = np.arange(12) < 5
    known = read_users(write(tmp_path, gender=GENDERS, age=AGES), USERS, trained)
    gender, age = known.encoding.columns
    assert gender.vocabulary.names == ("F",) and age.mean == np.mean(AGES[:5])


def test_the_labels_of_rows_of_pandas_are_no_feature(tmp_path):
    """It writes those of a frame that was sorted or filtered as one more column."""
    file = write(tmp_path, age=AGES, __index_level_0__=list(range(12)))
    assert read_users(file, USERS, EVERYONE).encoding.names == ("age",)
    with pytest.raises(UserError, match="has no column but 'user_id'"):
        read_users(write(tmp_path, __index_level_0__=list(range(12))), USERS, EVERYONE)


def test_a_number_that_is_the_same_for_all_has_no_deviation(tmp_path):
    """Rounded, that of twelve times 35.7 is 7e-15: another age would be 4, the most there is."""
    known = read_users(write(tmp_path, age=[35.7] * 12), USERS, EVERYONE)
    np.testing.assert_array_equal(known.matrix[1:], [[0, 0]] * 12)
    later = known.encoding.encode({"age": [36.2]}, 1, str)
    np.testing.assert_allclose(later, [[0.5, 0]], rtol=1e-6)


def test_a_user_with_several_histories_has_the_row_in_all(tmp_path):
    """As where cold items are held out: a history without them, and one per question."""
    ids, trained = [*USERS, USERS[3], USERS[9]], np.append(EVERYONE, [False, False])
    once = read_users(write(tmp_path, gender=GENDERS, age=AGES), USERS, EVERYONE)
    said = []
    known = read_users(tmp_path / "users.parquet", ids, trained, notify=said.append)
    assert known.encoding == once.encoding
    np.testing.assert_array_equal(known.matrix[:13], once.matrix)
    np.testing.assert_array_equal(known.matrix[13:], once.matrix[[4, 10]])
    assert said[0].startswith("  users.parquet knows 12 of 12 users")


def test_a_text_with_an_underscore_is_no_number(tmp_path):
    """Python would read 25_34 as 2534."""
    file = tmp_path / "users.csv"
    ages = ["18_24", "25_34"]
    file.write_text("user_id,age\n" + "".join(f"u{i},{ages[i % 2]}\n" for i in range(20)))
    known = read_users(file, [f"u{i}" for i in range(20)], np.ones(20, bool))
    (age,) = known.encoding.columns
    assert set(age.vocabulary.names) == set(ages)


def test_columns_that_come_later_get_rows_as_the_first_ones_did(tmp_path):
    known = read_users(write(tmp_path, gender=GENDERS, age=AGES, tags=TAGS), USERS, EVERYONE)
    encoding = UserEncoding.from_json(known.encoding.to_json())
    assert encoding == known.encoding and hash(encoding) == hash(known.encoding)
    asked = {"gender": [" F ", None], "age": ["20", float(10**6)], "tags": ["b", ["new"]]}
    rows = encoding.encode(asked, 2, str)
    np.testing.assert_array_equal(rows[0, :4], known.matrix[1, :4])
    np.testing.assert_array_equal(rows[0, 4:6], known.matrix[1, 4:6])  # a number in a text
    assert rows[1, 4] == 4  # standard deviations at most
    np.testing.assert_array_equal(rows[:, 6:], [[0, 1, 0, 0], [0, 0, 1, 0]])
    np.testing.assert_array_equal(encoding.encode({}, 3, str), known.matrix[:1].repeat(3, 0))


def test_lines_of_json_may_lack_what_others_have(tmp_path):
    """As JSON Lines often leave out what is not known: the first line does not name all columns."""
    file = tmp_path / "users.jsonl"
    lines = [{"user_id": "u0"}, {"user_id": "other", "plan": "a"}, {"user_id": "u1", "age": 30}]
    file.write_text("\n".join(map(json.dumps, lines)))
    known = read_users(file, USERS, EVERYONE)
    assert known.encoding.names == ("plan", "age")
    # no plan has a column of its own | age: mean 30; missing
    np.testing.assert_array_equal(known.matrix[1:4], [[0, 1, 0, 1], [0, 1, 0, 0], [0, 1, 0, 1]])
    file.write_text('{"user_id": "u0", "age": 30}\n{"age": 40}\n')
    with pytest.raises(UserError, match=r"users.jsonl, line 2: the user_id is empty"):
        read_users(file, USERS, EVERYONE)
    file.write_text('{"user_id": "u0", "age": 30}\n{"user_id": "u1", "history": 1}\n')
    with pytest.raises(UserError, match="has a column 'history'"):
        read_users(file, USERS, EVERYONE)


def test_texts_of_a_csv_are_numbers_where_all_are(tmp_path):
    ages = ["" if age is None else age for age in AGES]
    lines = [f"{u},{age},{i % 2 == 0},z{i % 2}" for i, (u, age) in enumerate(zip(USERS, ages))]
    file = tmp_path / "users.csv"
    file.write_text("user_id,age,paying,zone\n" + "\n".join(lines))
    known = read_users(file, USERS, EVERYONE)
    age, paying, zone = known.encoding.columns
    assert (age.mean, paying.vocabulary.names) == (30, ("false", "true"))
    assert zone.vocabulary.names == ("z0", "z1")
    truths = [i % 2 == 0 for i in range(12)]
    zones = [f"z{i % 2}" for i in range(12)]
    same = read_users(write(tmp_path, age=AGES, paying=truths, zone=zones), USERS, EVERYONE)
    assert same.encoding == known.encoding
    np.testing.assert_array_equal(same.matrix, known.matrix)
    again = read_users(file, USERS, EVERYONE, like=known.encoding)
    np.testing.assert_array_equal(again.matrix, known.matrix)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user,age\nu1,3", r"no column 'user_id'; its columns are 'user', 'age': rename the one"),
        ("user_id\nu1", "no column but 'user_id'"),
        ("user_id,history\nu1,3", "a column 'history'; expected another name"),
        ("user_id,age\nu1,3\nu2,4\nu1,5", "line 4: the user 'u1' was in .*line 2 already"),
        ("user_id,age\nu1,3\n,4", "line 3: the user_id is empty; expected text or a whole number"),
        ("user_id,age\nu1,3\nu2,nan", "line 3: the age nan is not valid; expected a finite number"),
        ("user_id,age\nu1,3\nu2,-inf", "line 3: the age -inf is not valid"),
        (
            "user_id,age\nu1,3\nu2,3x\nu3,4",
            "line 3: the age '3x' is not valid; expected a number, as in 2 other rows",
        ),
        ("user_id,age\n1,3", r"none of its users \(such as '1'\) .* trained on \(such as 'u0'\)"),
        ("user_id,age\n", "users.csv is empty: it holds no user"),
        ("user_id,age\nu1,3,4", "line 2: 'u1,3,4' has 3 fields, expected 2"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(tmp_path, text, message):
    (tmp_path / "users.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_users(tmp_path / "users.csv", USERS, EVERYONE)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            pa.array([None, 3, *range(10)], pa.date32()),
            "row 2: the x datetime.date.* is of type date; expected text, true or false, a number",
        ),
        (
            pa.array([None] * 11 + [float("nan")]),
            "row 12: the x nan is not valid; expected a finite number",
        ),
        (pa.array([[0.5]] * 12), r"row 1: the x \[0.5\] is not valid; expected a list of texts"),
    ],
)
def test_values_that_are_no_column_are_refused(tmp_path, column, message):
    with pytest.raises(UserError, match=message):
        read_users(write(tmp_path, x=column), USERS, EVERYONE)


def test_whole_numbers_are_ids_by_their_digits(tmp_path):
    table = pa.table({"user_id": [10, 7], "plan": ["a", "b"]})
    pq.write_table(table, tmp_path / "users.parquet")
    known = read_users(tmp_path / "users.parquet", ["7", "007", "10"], np.ones(3, bool))
    missing = known.matrix[:, -1]
    np.testing.assert_array_equal(missing, [1, 0, 1, 0])


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"gone\.parquet does not exist"):
        read_users(tmp_path / "gone.parquet", USERS, EVERYONE)
