import numpy as np
import pytest
import shelf

from bert4rec_jax.errors import UserError
from bert4rec_jax.features import cache
from bert4rec_jax.features.cache import embed

TEXTS = {"1": "abba", "2": "cab", "3": "", "4": "ddd", "5": "abba"}


def run(folder, model, texts=TEXTS, *, prompt="{text}", truncate_dim=None, **options):
    return embed(texts, model, prompt=prompt, truncate_dim=truncate_dim, folder=folder, **options)


def test_unit_vectors_in_the_order_of_the_texts(tmp_path):
    vectors = run(tmp_path, shelf.Fake(dim=3))
    # The letters a, b, c of each text, each counted from 1.
    counts = np.array([[3, 3, 1], [2, 2, 2], [1, 1, 1], [1, 1, 1], [3, 3, 1]])
    norms = np.array([19, 12, 3, 3, 19])[:, None] ** 0.5
    np.testing.assert_allclose(vectors, counts / norms, rtol=1e-6)
    assert vectors.dtype == np.float32


def test_truncated_vectors_are_unit_vectors_again(tmp_path):
    whole = run(tmp_path, shelf.Fake())
    cut = run(tmp_path, shelf.Fake(), truncate_dim=4)
    expected = whole[:, :4] / np.linalg.norm(whole[:, :4], axis=1, keepdims=True)
    np.testing.assert_allclose(cut, expected, rtol=1e-6)


def test_nothing_is_computed_twice(tmp_path):
    first = shelf.Fake()
    vectors = run(tmp_path, first)
    assert first.asked == list(TEXTS.values())
    again = shelf.Fake()
    turned = dict(reversed(TEXTS.items()))
    np.testing.assert_array_equal(run(tmp_path, again, turned), vectors[::-1])
    assert again.asked == []


@pytest.mark.parametrize(
    "change",
    [
        {"model": shelf.Fake(name="other")},
        {"model": shelf.Fake(revision="2")},
        {"prompt": "text: {text}"},
        {"truncate_dim": 3},
    ],
)
def test_what_changes_a_vector_computes_it_anew(tmp_path, change):
    run(tmp_path, shelf.Fake())
    model = change.pop("model", shelf.Fake())
    run(tmp_path, model, **change)
    assert model.asked == list(TEXTS.values())


def test_a_changed_text_and_a_new_item_are_computed_alone(tmp_path):
    run(tmp_path, shelf.Fake())
    model = shelf.Fake()
    run(tmp_path, model, {**TEXTS, "2": "new", "6": "abba"})
    assert model.asked == ["new", "abba"]


def test_a_run_that_stopped_continues_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "SHARD", 2)

    class Stops(shelf.Fake):
        def __call__(self, texts):
            if "ddd" in texts:
                raise KeyboardInterrupt
            return super().__call__(texts)

    steps = []
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Stops(), progress=lambda done, total: steps.append((done, total)))
    assert steps == [(0, 5), (2, 5)]
    model = shelf.Fake()
    steps.clear()
    vectors = run(tmp_path, model, progress=lambda done, total: steps.append((done, total)))
    assert model.asked == ["", "ddd", "abba"]
    assert steps == [(2, 5), (4, 5), (5, 5)]
    np.testing.assert_array_equal(vectors, run(tmp_path / "fresh", shelf.Fake()))


def test_a_damaged_file_is_computed_again(tmp_path):
    vectors = run(tmp_path, shelf.Fake())
    (file,) = tmp_path.glob("*/*.npz")
    for content in (file.read_bytes()[:-30], b"", b"nothing"):
        file.write_bytes(content)
        model = shelf.Fake()
        np.testing.assert_array_equal(run(tmp_path, model), vectors)
        assert model.asked == list(TEXTS.values())
        for other in set(tmp_path.glob("*/*.npz")) - {file}:
            other.unlink()


def test_files_are_there_whole_or_not_at_all(tmp_path, monkeypatch):
    def fails(file, **arrays):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", fails)
    with pytest.raises(UserError, match=r"cannot write .*npz: No space left on device"):
        run(tmp_path, shelf.Fake())
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*; choose another --cache"):
        run(tmp_path / "file", shelf.Fake())


def test_a_model_that_is_too_narrow(tmp_path):
    with pytest.raises(
        UserError, match="fake gives 8 numbers per text, and truncate_dim is 9; exp"
    ):
        run(tmp_path, shelf.Fake(), truncate_dim=9)


def test_values_that_are_not_finite(tmp_path):
    class Overflows(shelf.Fake):
        def __call__(self, texts):
            return np.where(np.array(texts)[:, None] == "ddd", np.nan, np.ones((len(texts), 2)))

    with pytest.raises(UserError, match="not finite for the text 'ddd'; use another model, or"):
        run(tmp_path, Overflows())
