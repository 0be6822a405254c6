import errno
import json
import os
import pickle

import numpy as np
import pytest
from sample import interactions

from bert4rec_jax.data.store import MANIFEST, SequenceStore, is_store, write_store
from bert4rec_jax.errors import UserError

LOG = interactions(
    [("b", "x", 5, 4.0), ("a", "z", 7), ("b", "w", 3, 2.5), ("b", "z", 9, 5.0), ("a", "x", 8, 1.0)]
).in_time_order()
TITLES = {"w": ("Willow", "Fantasy"), "q": ("not in the log", "")}


def write(path, log=LOG):
    return write_store(log, path, titles=TITLES, source={"name": "by hand"})


def snapshot(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_arrays_by_hand(tmp_path):
    store = write(tmp_path / "store")
    # b: w at 3, x at 5, z at 9; a: z at 7, x at 8. Tokens in order of appearance: w 2, x 3, z 4.
    assert store.user_ids() == ["b", "a"]
    assert store.offsets.tolist() == [0, 3, 5]
    assert store.tokens.tolist() == [2, 3, 4, 4, 3]
    assert store.timestamps.tolist() == [3, 5, 9, 7, 8]
    np.testing.assert_array_equal(store.ratings, [2.5, 4, 5, np.nan, 1])
    assert store.lengths.tolist() == [3, 2]
    assert store.history(1).tolist() == [4, 3]
    assert (store.num_users, store.num_interactions, store.timed) == (2, 5, True)
    assert repr(store) == f"SequenceStore('{store.path}': 2 users, 3 items, 5 interactions)"
    assert repr(store.catalog) == "Catalog(3 items)"
    assert [a.dtype for a in (store.offsets, store.tokens, store.ratings, store.timestamps)] == [
        np.int64, np.int32, np.float32, np.int64,
    ]  # fmt: skip


def test_catalog_has_titles_where_known_and_ids_elsewhere(tmp_path):
    catalog = write(tmp_path / "store").catalog
    assert catalog.item_ids == ("w", "x", "z")
    assert catalog.titles == ("Willow", "x", "z")
    assert catalog.genres == ("Fantasy", "", "")


def test_items_without_a_row_have_no_token(tmp_path):
    core = LOG.take(LOG.timestamps != 3)
    assert write(tmp_path / "store", core).catalog.item_ids == ("x", "z")


def test_arrays_are_memory_mapped_and_read_only(tmp_path):
    store = write(tmp_path / "store")
    for array in (store.offsets, store.tokens, store.ratings, store.timestamps):
        assert isinstance(array.base, np.memmap) and type(array) is np.ndarray
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_pickling_sends_the_path_not_the_data(tmp_path):
    store = write(tmp_path / "store", interactions([("u", i, i) for i in range(5000)]))
    store.tokens, store.catalog  # noqa: B018 (cached now, and still not sent)
    sent = pickle.dumps(store)
    assert len(sent) < 2000
    copy = pickle.loads(sent)
    assert copy.fingerprint == store.fingerprint
    np.testing.assert_array_equal(copy.tokens, store.tokens)


def test_equal_data_has_equal_bytes_and_fingerprint(tmp_path):
    one, two = write(tmp_path / "one"), write(tmp_path / "two")
    assert snapshot(one.path) == snapshot(two.path)
    assert one.fingerprint == two.fingerprint
    other = write(tmp_path / "other", LOG.take(np.arange(4)))
    assert other.fingerprint != one.fingerprint


def test_an_earlier_store_is_replaced(tmp_path):
    write(tmp_path / "store")
    assert write(tmp_path / "store", LOG.take(np.arange(3))).num_users == 1
    assert [file.name for file in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize(
    "manifest", ['{"name": "app"}', '{"bundle_schema": 3}', '{"kind": "bert4rec content"}', "no"]
)
def test_another_folder_with_a_manifest_is_left_alone(tmp_path, manifest):
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / MANIFEST).write_text(manifest)
    with pytest.raises(UserError, match="other exists and is not prepared data; choose"):
        write(folder)
    assert (folder / MANIFEST).read_text() == manifest


def test_an_earlier_store_is_replaced_if_it_is_damaged(tmp_path):
    path = write(tmp_path / "store").path
    (path / MANIFEST).write_text("no")
    (path / "tokens.npy").unlink()
    write(path).verify()


def test_folders_within_an_earlier_store_are_not_lost(tmp_path):
    path = write(tmp_path / "store").path
    (path / "run").mkdir()
    with pytest.raises(
        UserError, match="store would be replaced, and the folder 'run' in it would "
    ):
        write(path, LOG.take(np.arange(3)))
    assert (path / "run").is_dir() and SequenceStore.open(path).num_users == 2


def test_an_empty_folder_is_filled_and_parents_are_made(tmp_path):
    (tmp_path / "empty").mkdir()
    assert is_store(write(tmp_path / "empty").path)
    assert is_store(write(tmp_path / "a" / "b").path)


def test_other_folders_and_files_are_left_alone(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "cat.jpg").write_text("miaow")
    for path in (folder, folder / "cat.jpg"):
        with pytest.raises(UserError, match=f"{path.name} exists and is not prepared data; choose"):
            write(path)
    assert snapshot(folder) == {"cat.jpg": b"miaow"}


def full_disk(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("place", ["numpy.save", "pyarrow.parquet.write_table"])
def test_a_full_disk_leaves_the_earlier_store_as_it_was(tmp_path, monkeypatch, place):
    before = snapshot(write(tmp_path / "store").path)
    monkeypatch.setattr(place, full_disk)
    with pytest.raises(UserError, match=r"store: No space left on device; make room or choose"):
        write(tmp_path / "store", LOG.take(np.arange(3)))
    assert [file.name for file in tmp_path.iterdir()] == ["store"]
    assert snapshot(tmp_path / "store") == before


def test_a_failing_rename_puts_the_earlier_store_back(tmp_path, monkeypatch):
    before = snapshot(write(tmp_path / "store").path)
    monkeypatch.setattr("bert4rec_jax.outputs._exchange", lambda one, other: False)
    rename = type(tmp_path).rename

    def fail_once(path, target):
        if path.name.endswith(".partial"):
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(type(tmp_path), "rename", fail_once)
    with pytest.raises(UserError, match="Input/output error"):
        write(tmp_path / "store", LOG.take(np.arange(3)))
    assert [file.name for file in tmp_path.iterdir()] == ["store"]
    assert snapshot(tmp_path / "store") == before


def test_open_refuses_what_is_no_store(tmp_path):
    with pytest.raises(UserError, match=r"holds no prepared data .* `bert4rec prepare"):
        SequenceStore.open(tmp_path)
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(UserError, match=r"cannot read .*manifest\.json .*; prepare again"):
        SequenceStore.open(tmp_path)


@pytest.mark.parametrize("manifest", [{"schema_version": 0}, {}, []])
def test_open_refuses_another_schema(tmp_path, manifest):
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"with schema (0|None), this version reads 1; prepare"):
        SequenceStore.open(tmp_path)


@pytest.mark.parametrize(
    ("entry", "kind"), [("bundle_schema", "a bundle"), ("blocks", "the content of items")]
)
def test_open_says_what_another_folder_is(tmp_path, entry, kind):
    (tmp_path / "manifest.json").write_text(json.dumps({entry: 1}))
    with pytest.raises(UserError, match=f"holds no prepared data, but {kind}; give a folder"):
        SequenceStore.open(tmp_path)


def test_verify_finds_changed_and_missing_files(tmp_path):
    store = write(tmp_path / "store")
    store.verify()
    tokens = store.path / "tokens.npy"
    content = bytearray(tokens.read_bytes())
    content[-1] ^= 1
    tokens.write_bytes(content)
    with pytest.raises(UserError, match=r"tokens\.npy does not match its checksum"):
        store.verify()
    tokens.unlink()
    with pytest.raises(UserError, match=r"tokens\.npy is missing; prepare the data again"):
        store.verify()


def test_a_cut_off_array_is_an_error_that_names_it(tmp_path):
    store = write(tmp_path / "store")
    tokens = store.path / "tokens.npy"
    tokens.write_bytes(tokens.read_bytes()[:100])
    with pytest.raises(UserError, match=r"cannot read .*tokens\.npy .*; prepare the data again"):
        store.history(0)


@pytest.mark.parametrize(
    ("name", "read"),
    [("users.parquet", lambda store: store.user_ids()), ("catalog.parquet", lambda s: s.catalog)],
)
def test_a_cut_off_table_is_an_error_that_names_it(tmp_path, name, read):
    file = write(tmp_path / "store").path / name
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(UserError, match=rf"cannot read .*{name} .*; prepare the data again"):
        read(SequenceStore.open(tmp_path / "store"))


def test_a_manifest_that_may_not_be_read(tmp_path, monkeypatch):
    def refuse(path, **options):
        raise PermissionError(13, "Permission denied")

    write(tmp_path / "store")
    monkeypatch.setattr(type(tmp_path), "read_text", refuse)
    with pytest.raises(UserError, match=r"cannot read .*manifest\.json: Permission denied; change"):
        SequenceStore.open(tmp_path / "store")


def test_what_was_compared_is_not_read_again_until_it_changes(tmp_path, monkeypatch):
    store = write(tmp_path / "store")
    store.verify()
    monkeypatch.setattr("bert4rec_jax.data.store.sha256", lambda file: "read")
    store.verify()
    os.utime(store.path / "tokens.npy")
    with pytest.raises(UserError, match=r"tokens\.npy does not match its checksum"):
        store.verify()


def test_what_was_compared_stays_when_the_store_is_replaced(tmp_path):
    store = write(tmp_path / "store")
    store.verify()
    write(tmp_path / "store", interactions([("other", "q", 1), ("other", "r", 2)]))
    assert store.tokens.tolist() == [2, 3, 4, 4, 3]
    assert store.user_ids() == store.user_ids() == ["b", "a"]
    assert store.catalog.item_ids == ("w", "x", "z")
