import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shelf

from bert4rec_jax.errors import UserError
from bert4rec_jax.features.content import (
    MANIFEST,
    Content,
    content_rows,
    release_days_of,
    write_content,
)
from bert4rec_jax.features.encoder import fit
from bert4rec_jax.features.movie import movies_of
from bert4rec_jax.features.options import Options

CATALOG = shelf.catalog()
MOVIES = movies_of(CATALOG)
ENCODER = fit(MOVIES, np.ones(6, bool), options=Options(min_count=1))
MATRIX = content_rows(CATALOG, ENCODER.encode(MOVIES))


def write(path, matrix=MATRIX, about=None):
    return write_content(path, CATALOG, matrix, ENCODER, about or {"note": "x"})


def test_rows_stand_at_the_tokens_of_their_items():
    assert MATRIX.shape == (256, ENCODER.width)
    np.testing.assert_array_equal(MATRIX[2:8], ENCODER.encode(MOVIES))
    assert not MATRIX[:2].any()
    assert not MATRIX[8:].any()
    assert MATRIX[7].any()  # nothing is known of this item, and that is marked


def test_what_is_written_is_read(tmp_path):
    write(tmp_path / "content")
    content = Content.open(tmp_path / "content", CATALOG)
    np.testing.assert_array_equal(content.matrix, MATRIX)
    assert content.matrix.dtype == np.float32
    assert content.encoder == ENCODER
    assert content.blocks == ENCODER.spans()
    assert content.width == ENCODER.width
    assert content.manifest["note"] == "x"
    # Another run writes the same bytes.
    write(tmp_path / "again")
    for file in (tmp_path / "content").iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


def test_the_encoder_of_a_folder_encodes_as_the_matrix_was(tmp_path):
    content = write(tmp_path / "content")
    np.testing.assert_array_equal(content.encoder.encode(MOVIES), content.matrix[2:8])


def test_items_of_which_something_is_known(tmp_path):
    present = write(tmp_path / "content").present()
    assert present.shape == (256,)
    assert np.flatnonzero(present).tolist() == [2, 3, 4, 5, 6]


def test_another_catalog_is_refused(tmp_path):
    write(tmp_path / "content")
    other = shelf.catalog(dict(list(shelf.TITLES.items())[:5]))
    with pytest.raises(UserError) as caught:
        Content.open(tmp_path / "content", other)
    assert str(caught.value) == (
        f"{tmp_path / 'content'} holds the content of another catalog (6 items, fingerprint "
        f"{CATALOG.fingerprint[:12]}; this one has 5 items, {other.fingerprint[:12]}); make it "
        "again with `bert4rec features STORE --output DIR`"
    )


def test_earlier_content_is_replaced_and_other_folders_are_not(tmp_path):
    write(tmp_path / "content")
    write(tmp_path / "content", about={"note": "newer"})
    assert Content.open(tmp_path / "content", CATALOG).manifest["note"] == "newer"
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty")
    for place, content in (("thesis", "text"), ("manifest.json", '{"schema_version": 1}')):
        (tmp_path / place).mkdir()
        (tmp_path / place / place).write_text(content)
        with pytest.raises(UserError, match=r"exists and is not content; choose another folder"):
            write(tmp_path / place)
        assert (tmp_path / place / place).read_text() == content
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"exists and is not content"):
        write(tmp_path / "file")


@pytest.mark.parametrize("earlier", [False, True])
def test_a_full_disk_changes_nothing(tmp_path, monkeypatch, earlier):
    if earlier:
        write(tmp_path / "content")
    save = np.save

    def fails(file, array, **options):
        save(file, array[:1], **options)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", fails)
    with pytest.raises(
        UserError, match=r"No space left on device; make room or choose another fold"
    ):
        write(tmp_path / "content", about={"note": "newer"})
    assert [file.name for file in tmp_path.iterdir()] == ["content"] * earlier
    if earlier:
        assert Content.open(tmp_path / "content", CATALOG).manifest["note"] == "x"


def test_earlier_content_goes_only_once_the_new_one_stands(tmp_path, monkeypatch):
    write(tmp_path / "content")
    monkeypatch.setattr("bert4rec_jax.outputs._exchange", lambda one, other: False)
    rename = Path.rename

    def fails(self, target):
        if self.suffix == ".partial":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(UserError, match=r"Input/output error; .*nothing was changed"):
        write(tmp_path / "content", about={"note": "newer"})
    assert [file.name for file in tmp_path.iterdir()] == ["content"]
    assert Content.open(tmp_path / "content", CATALOG).manifest["note"] == "x"


def test_damage_is_noticed(tmp_path):
    folder = tmp_path / "content"

    def refused(message):
        with pytest.raises(UserError, match=rf"{message}.*make it again"):
            Content.open(folder, CATALOG)
        write(folder)

    with pytest.raises(UserError, match=r"holds no content \(manifest\.json is missing\)"):
        Content.open(folder, CATALOG)
    write(folder)
    (folder / "content.npy").write_bytes((folder / "content.npy").read_bytes()[:-4] + b"abcd")
    refused(r"content\.npy does not match its checksum")
    (folder / "content.npy").unlink()
    refused(r"content\.npy does not match its checksum")
    (folder / "encoder.json").write_text("{")
    refused(r"encoder\.json does not match its checksum")
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | {"schema_version": 9}))
    refused(r"was made with schema 9, this version reads 1")


def test_other_folders_are_not_content(tmp_path):
    (tmp_path / MANIFEST).write_text('{"schema_version": 1}')
    with pytest.raises(UserError, match=r"holds something else than content"):
        Content.open(tmp_path, CATALOG)
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(UserError, match=r"cannot read .*manifest\.json"):
        Content.open(tmp_path, CATALOG)


def test_release_days_stand_at_the_tokens_of_their_items(tmp_path):
    assert release_days_of(CATALOG, MOVIES) is None  # titles have years alone
    movies = [replace(movie, date=1970 + place) for place, movie in enumerate(MOVIES[:2])]
    days = release_days_of(CATALOG, [*movies, *MOVIES[2:]])
    path = tmp_path / "content"
    written = write_content(path, CATALOG, MATRIX, ENCODER, {}, release_days=days)
    expected = np.full(256, np.nan, np.float32)
    expected[2:4] = 0, 365
    np.testing.assert_array_equal(written.release_days, expected)
    assert write(path).release_days is None
