import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shelf

from bert4rec_jax.data import parquet
from bert4rec_jax.errors import UserError
from bert4rec_jax.features.embeddings import read_embeddings

CATALOG = shelf.catalog()
VALUES = np.arange(12, dtype=np.float32).reshape(6, 2)


def write(path, ids, vectors, kind=None, **columns):
    lists = pa.array(vectors, kind or pa.list_(pa.float32()))
    pq.write_table(pa.table({"imdb_id": ids, "embedding": lists} | columns), path)
    return path


def refused(file):
    with pytest.raises(UserError) as caught:
        read_embeddings(file, CATALOG)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(str(file))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8])
def test_rows_in_the_catalogs_order(tmp_path, dtype):
    np.save(tmp_path / "e.npy", VALUES.astype(dtype))
    found = read_embeddings(tmp_path / "e.npy", CATALOG)
    np.testing.assert_array_equal(found.values, VALUES)
    assert found.values.dtype == np.float32
    assert found.present.all()


FIXED = pa.list_(pa.float16(), 2)
version = int(pa.__version__.split(".")[0])


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.float32()),
        pa.large_list(pa.float64()),
        pytest.param(
            FIXED, marks=pytest.mark.skipif(version < 26, reason="pyarrow < 26 cannot read them")
        ),
    ],
)
@pytest.mark.parametrize("rows", [2, 1000])
def test_parquet_rows_find_their_items_in_any_order(tmp_path, monkeypatch, kind, rows):
    monkeypatch.setattr(parquet, "_BATCH_ROWS", rows)
    ids = ["tt9", "tt0133093", None, "tt0113277", "tt0114709", "tt0110912"]
    vectors = [[9, 9], [6, 7], [8, 8], [0, 1], None, [8, 9]]
    vectors = [v and [np.float16(x) for x in v] for v in vectors]
    file = write(tmp_path / "e.parquet", ids, vectors, kind)
    found = read_embeddings(file, CATALOG)
    assert found.present.tolist() == [True, False, False, True, True, False]
    np.testing.assert_array_equal(found.values[found.present], VALUES[[0, 3, 4]])
    assert not found.values[~found.present].any()


def test_lists_that_this_pyarrow_cannot_read(tmp_path, monkeypatch):
    """Nulls among lists of a fixed size, before pyarrow 26."""

    def fails(*_, **__):
        raise pa.ArrowInvalid("Expected all lists to be of size=2 but index 2 had size=0")

    file = write(tmp_path / "e.parquet", ["tt0113277"], [[0.0, 1.0]])
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", fails)
    assert "lists of a fixed size, of which some are null; pyarrow" in refused(file)


def test_two_columns_of_one_name(tmp_path):
    ids, vectors = pa.array(["tt0113277"]), pa.array([[0.0, 1.0]])
    for names, columns, message in (
        (["imdb_id", "imdb_id", "v"], [ids, ids, vectors], "has 2 columns called 'imdb_id'"),
        (["imdb_id", "v", "v"], [ids, vectors, vectors], "has 2 columns of lists of numbers"),
    ):
        pq.write_table(pa.table(columns, names=names), tmp_path / "e.parquet")
        assert message in refused(tmp_path / "e.parquet")


def test_ids_that_are_not_utf8(tmp_path):
    ids = pa.array([b"tt0113277", b"\xe9"], pa.binary()).view(pa.string())
    file = write(tmp_path / "e.parquet", ids, [[0.0, 1.0], [2.0, 3.0]])
    assert ", row 2: column 'imdb_id' holds text that is not UTF-8" in refused(file)


def test_ids_under_another_name_by_a_map_or_as_the_catalogs_own(tmp_path):
    file = tmp_path / "e.parquet"
    vectors = pa.array([[1.0, 2.0]])
    for columns, id_map in (
        ({"key": ["0113277"]}, None),
        ({"item_id": ["0113277"], "note": ["x"]}, {"0113277": "7"}),
        ({"tmdb_id": [7], "note": ["x"]}, {"0113277": "7"}),
    ):
        pq.write_table(pa.table(columns | {"v": vectors}), file)
        found = read_embeddings(file, CATALOG, id_map=id_map)
        assert found.present.tolist() == [True] + [False] * 5
        assert found.values[0].tolist() == [1, 2]


def test_a_sidecar_says_which_catalog_a_file_is_for(tmp_path):
    np.save(tmp_path / "e.npy", VALUES)
    sidecar = tmp_path / "e.json"
    sidecar.write_text(json.dumps({"catalog_fingerprint": CATALOG.fingerprint}))
    assert read_embeddings(tmp_path / "e.npy", CATALOG).present.all()
    sidecar.write_text(json.dumps({"catalog_fingerprint": "0" * 64}))
    message = refused(tmp_path / "e.npy")
    assert message.startswith(" was made for another catalog: e.json has the fingerprint '0000")
    assert CATALOG.fingerprint in message
    for broken in ("{", "[]", "{}"):
        sidecar.write_text(broken)
        with pytest.raises(UserError, match=r"cannot read .*e\.json .*: fix or remove it"):
            read_embeddings(tmp_path / "e.npy", CATALOG)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (VALUES[:5], " has the shape [5, 2]; expected [6, D], a row of D numbers for each item"),
        (VALUES.ravel(), " has the shape [12]; expected [6, D]"),
        (VALUES[:, :0], " has the shape [6, 0]; expected [6, D]"),
        (VALUES[:, :, None], " has the shape [6, 2, 1]; expected [6, D]"),
        (np.where(VALUES == 5, np.nan, VALUES), ", row 3 (item '0000417'): the vector holds nan"),
        (VALUES * np.float64(1e39), ", row 1 (item '0113277'): the vector holds inf; expected fin"),
        (VALUES.astype(str), " holds values of type <U32; expected numbers"),
    ],
)  # fmt: skip
def test_arrays_that_are_no_embeddings(tmp_path, values, message):
    np.save(tmp_path / "e.npy", values)
    assert refused(tmp_path / "e.npy").startswith(message)


def test_files_that_cannot_be_read(tmp_path):
    for name in ("e.npy", "e.parquet", "e.bin"):
        assert refused(tmp_path / name) == " does not exist"
        (tmp_path / name).write_bytes(b"\x93NUMPY broken")
    assert refused(tmp_path / "e.npy").startswith(" is not a whole .npy file (")
    assert refused(tmp_path / "e.parquet").startswith(" is not a whole Parquet file")
    assert refused(tmp_path / "e.bin").startswith(" is of no known format; expected embeddings in")


IDS = ["tt0113277", "tt0114709", "tt0000417", "tt0133093"]


@pytest.mark.parametrize(
    ("ids", "vectors", "message"),
    [
        (IDS, [[1, 2], [3, 4], [5], [6, 7]], ", row 3: the vector has 1 numbers, expected 2 as"),
        (IDS, [[1, 2], [3, 4], [5, np.nan], [6, 7]], ", row 3: the vector holds nan; expected"),
        (IDS, [[1, 2], [3, None], [5, 6], [6, 7]], ", row 2: the vector holds nan; expected"),
        (IDS, [[], [], [], []], ", row 1: the vector is empty; expected numbers"),
        (IDS, [None] * 4, ": every list in 'embedding' that matches an item is null"),
        ([*IDS[:3], "113277"], [[1, 2]] * 4, ", row 4: the imdb_id '113277' has a vector in row 1"),
        (["a", "b"], [[1, 2]] * 2, ": no id matches the catalog (6 items, such as '0113277', "),
    ],
)  # fmt: skip
@pytest.mark.parametrize("rows", [2, 1000])
def test_parquet_that_is_no_embeddings(tmp_path, monkeypatch, rows, ids, vectors, message):
    monkeypatch.setattr(parquet, "_BATCH_ROWS", rows)
    assert refused(write(tmp_path / "e.parquet", ids, vectors)).startswith(message)


def test_ids_of_embeddings_are_no_matter_of_the_options_of_a_table(tmp_path):
    """`--id-column` is of the table of metadata, and `add-items` has no `--id-map`."""
    message = refused(write(tmp_path / "e.parquet", ["a"], [[1, 2]]))
    assert "--id" not in message
    assert message.endswith("ids item_id, or give a file with these items")


def test_a_file_for_another_catalog_shares_few_ids(tmp_path):
    titles = {str(i): (f"Film {i}", "") for i in range(50)}
    file = write(tmp_path / "e.parquet", [f"{i}" for i in range(47, 97)], [[1.0]] * 50)
    with pytest.raises(UserError) as caught:
        read_embeddings(file, shelf.catalog(titles))
    assert str(caught.value) == (
        f"{file} was made for another catalog: of its 50 ids in imdb_id and the 50 items of the "
        "catalog only 3 match; make the embeddings again for these items"
    )
    # A file for far more movies than the catalog has is none for another catalog.
    file = write(tmp_path / "e.parquet", [f"{i}" for i in range(5000)], [[1.0]] * 5000)
    assert read_embeddings(file, shelf.catalog(titles)).present.all()


def test_columns(tmp_path):
    file = tmp_path / "e.parquet"
    pq.write_table(pa.table({"imdb_id": IDS, "embedding": [1.0] * 4}), file)
    assert refused(file).startswith(" has 0 columns of lists of numbers; its columns are 'imdb_id'")
    write(file, IDS, [[1.0]] * 4, other=[[1.0]] * 4)
    assert refused(file).startswith(" has 2 columns of lists of numbers")
    pq.write_table(pa.table({"a": IDS, "b": IDS, "v": [[1.0]] * 4}), file)
    assert refused(file).startswith(" has none of item_id, imdb_id, ")
