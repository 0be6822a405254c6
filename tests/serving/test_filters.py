"""Filters: which items of a catalog may be listed, and what tells two filters apart."""

import numpy as np
import pytest

from bert4rec_jax.data.catalog import Catalog
from bert4rec_jax.errors import UserError
from bert4rec_jax.serving.filters import Filters


def test_a_catalog_with_many_genres_is_not_listed_whole():
    names = [f"c{number:03}" for number in range(219)]
    catalog = Catalog(tuple(names), tuple(names), tuple(names))
    with pytest.raises(UserError) as refused:
        Filters(genres="C010").allowed(catalog)
    shown = ", ".join(names[:30])
    assert str(refused.value).startswith("no item has the genre 'C010' (did you mean 'c010' or ")
    assert str(refused.value).endswith(f"?); the catalog has {shown} and 189 more")


def test_genres_and_years():
    catalog = Catalog(
        ("a", "b", "c", "d"),
        ("A (1990)", "B (1999)", "C", "D (2001)"),
        ("Drama|Crime", "Comedy", "Drama", ""),
    )

    def passing(**filters):
        return [
            catalog.item_ids[t - 2] for t in np.flatnonzero(Filters(**filters).allowed(catalog))
        ]

    assert passing() == ["a", "b", "c", "d"]
    assert passing(genres=("Drama",)) == passing(genres="Drama") == ["a", "c"]
    assert passing(genres=("Drama", "Comedy")) == ["a", "b", "c"]
    assert passing(years=(1990, 1999)) == ["a", "b"]
    assert passing(genres=("Drama",), years=(1980, 1995)) == ["a"]
    assert passing(only=["d", "a", "x"]) == passing(only={"d", "a"}) == ["a", "d"]
    for wrong, message in (
        (
            {"genres": ("drama",)},
            r"genre 'drama' \(did you mean 'Drama'\?\); the catalog has Comedy, Crime, ",
        ),
        ({"genres": ("Noir",)}, r"no item has the genre 'Noir'; the catalog has Comedy, Crime, "),
        ({"genres": 5}, "genres is 5; expected a list of genres"),
        ({"genres": None}, "genres is None; expected a list of genres"),
        ({"genres": ["Drama", None]}, "one of genres is None; expected text, as in the catalog"),
        ({"years": (2000, 1990)}, "expected the earlier one first"),
        ({"genres": ("Comedy",), "years": (1980, 1990)}, "no item of the catalog passes"),
        ({"years": 1990}, "years is 1990; expected the first and the last one"),
        ({"years": ("1990", "1999")}, "one of years is '1990'; expected a whole number"),
        ({"only": 5}, "only is 5; expected a list of item ids"),
        ({"only": ["x", 1.5]}, "only holds 1.5 of type float; item ids are texts"),
        ({"only": ["x", "y"]}, "only: none of its 2 ids .such as 'x'. is an id of the catalog"),
    ):
        with pytest.raises(UserError, match=message):
            passing(**wrong)


def test_the_order_of_allowed_ids_makes_no_other_job():
    assert Filters(only=["b", "a"]).described() == Filters(only=("a", "b")).described()
    assert Filters(only=["b", "a"]).described() != Filters(only=["b"]).described()


def test_filters_are_told_apart_by_all_that_they_hold(tmp_path):
    for name, text in (("one", "1\n"), ("same", "1\n"), ("other", "2\n")):
        (tmp_path / name).write_text(text)
    kinds = (
        Filters(), Filters(genres="Drama"), Filters(genres=("Drama", "War")),
        Filters(years=(1990, 1999)), Filters(years=(1990, 2000)),
        Filters(only=tmp_path / "one"), Filters(only=tmp_path / "other"),
    )  # fmt: skip
    described = [kind.described() for kind in kinds]
    assert all(described.count(one) == 1 for one in described)
    assert Filters(only=tmp_path / "same").described() == described[5]


def test_a_list_of_other_ids_is_refused(scorer, tmp_path):
    file = tmp_path / "now.txt"
    file.write_text("tt1\ntt2\n")
    with pytest.raises(UserError, match="none of its 2 lines"):
        Filters(only=str(file)).allowed(scorer.catalog)
    with pytest.raises(UserError, match="does not exist; expected a file with an item id per line"):
        Filters(only=tmp_path / "none").allowed(scorer.catalog)
    with pytest.raises(UserError, match="is no regular file; expected a file with an item id per"):
        Filters(only=tmp_path).allowed(scorer.catalog)
    file.write_bytes(b"1\nfilm\xe9\n")
    with pytest.raises(UserError, match=r"now\.txt is not UTF-8 text .*save it as UTF-8"):
        Filters(only=file).allowed(scorer.catalog)


def test_a_list_that_may_not_be_read_is_one_error(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "now.txt").write_text("1\n")
    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(UserError, match=r"cannot read .*now\.txt: Permission denied"):
        Filters(only=tmp_path / "now.txt").described()


def test_a_byte_order_mark_is_no_part_of_an_id(scorer, tmp_path):
    (tmp_path / "now.txt").write_bytes("\ufeff3\n4\n".encode())
    allowed = Filters(only=tmp_path / "now.txt").allowed(scorer.catalog)
    wanted = [scorer.catalog.token(item) for item in ("3", "4")]
    assert np.flatnonzero(allowed).tolist() == sorted(wanted)
