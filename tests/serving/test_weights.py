"""Weights in fewer bytes, against the formulas written out in NumPy."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from oracle import evaluated, scores_in_process
from safetensors.numpy import save

from bert4rec_jax.data.split import leave_one_out
from bert4rec_jax.errors import UserError
from bert4rec_jax.serving import weights
from bert4rec_jax.serving.evaluation import answer_cases
from bert4rec_jax.serving.export import export, write_bundle
from bert4rec_jax.serving.scorer import load
from bert4rec_jax.serving.traced import Serving, by_path

RANDOM = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def rounded(path, value, dtype):
    """What a weight is after rounding, one number at a time."""
    name = path.split("/")[-1]
    if value.ndim < 2 or name not in ("embedding", "kernel", "content", "features"):
        return value
    if dtype == "bfloat16":  # the upper half of the bits, rounded to even
        bits = value.view(np.uint32).astype(np.uint64)
        return (
            (((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) << 16).astype(np.uint32).view(np.float32)
        )
    found = np.empty_like(value)
    for place in np.ndindex(value.shape):
        group = value[place[0]] if name == "embedding" else value[..., place[-1]]
        scale = np.float32(abs(group).max()) / np.float32(127)
        found[place] = np.float32(round(value[place] / scale)) * scale
    return found


def test_a_table_by_hand():
    found = weights.stored({"t/embedding": np.array([[-2, 1], [0, 0]], np.float32)}, "int8")
    assert found["t/embedding"].tolist() == [[-127, 64], [0, 0]]
    assert found["t/embedding"].dtype == np.int8
    np.testing.assert_array_equal(found["t/embedding_scale"], np.float32([[2 / 127], [1]]))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_products_are_those_of_the_unpacked_vectors(dtype):
    vectors = weights.packed(jnp.asarray(RANDOM), dtype)
    hidden = RANDOM[:2] + 1
    plain = np.asarray(weights.unpacked(vectors))
    np.testing.assert_allclose(weights.products(hidden, vectors), hidden @ plain.T, rtol=1e-5)
    items = np.array([[5, 0, 0], [1, 2, 3]])
    expected = np.take_along_axis(hidden @ plain.T, items, axis=1)
    np.testing.assert_allclose(weights.products_at(hidden, vectors, items), expected, rtol=1e-5)


def test_what_is_written_is_read(tmp_path):
    arrays = {
        "a": RANDOM, "b": RANDOM.astype(jnp.bfloat16), "c": RANDOM.astype(np.int8),
        "d": RANDOM > 0, "e": np.array(2, np.float32), "f": np.zeros((0, 3), np.float32),
    }  # fmt: skip
    Path(tmp_path / "file").write_bytes(save(arrays))
    found = weights.read((tmp_path / "file").read_bytes())
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@pytest.fixture(scope="module")
def plain(trained):
    """The tiny model without content, whose item vectors are the rounded rows themselves."""
    content_free = {
        path: value
        for path, value in by_path(trained.variables).items()
        if "item_table" not in path or path.endswith(("/embedding", "/bias"))
    }
    model = trained.model.clone(content_dim=0)
    return replace(trained, model=model, variables=nested(content_free))


def nested(params):
    return unflatten_dict(params, sep="/")


@pytest.mark.parametrize("dtype", [pytest.param("bfloat16", marks=pytest.mark.slow), "int8"])
def test_a_small_bundle_is_a_model_of_rounded_weights(plain, store, tmp_path, dtype):
    """Its scores, ranks and lists are those of the module with weights rounded in NumPy."""
    manifest = write_bundle(plain, tmp_path / dtype, dtype=dtype)
    assert manifest["dtype"] == dtype
    scorer = load(tmp_path / dtype, batch_size=64, devices=jax.devices()[:1])
    params = {path: rounded(path, x, dtype) for path, x in by_path(plain.variables).items()}
    found = weights.restored(scorer.bundle.parameters())
    assert found.keys() == params.keys()
    for path, value in params.items():
        np.testing.assert_array_equal(found[path], value, err_msg=path)
    model = replace(plain, variables=nested(params))
    cases = leave_one_out(store).test["test"]
    expected = scores_in_process(model, store, cases)
    ids = store.catalog.item_ids
    histories = [[ids[token - 2] for token in history] for history in cases.histories(store)]
    ratings = [store.ratings[a:b].tolist() for a, b in zip(store.offsets[cases.users], cases.rows)]
    asked = {"ratings": ratings, "keep_seen": True}
    for answers in (
        scorer.recommend_batch(histories, 40, **asked),
        scorer.rank(histories, [list(ids)] * len(histories), **asked),
    ):
        for answer, row in zip(answers, expected):
            tokens = [store.catalog.token(item) for item in answer.item_ids]
            assert len(tokens) == 40
            np.testing.assert_allclose(answer.scores, row[tokens], rtol=1e-5, atol=1e-5)
    answered, through = evaluated(model, store, cases), answer_cases(scorer, store, cases)
    np.testing.assert_array_equal(through.ranks, answered.ranks)
    np.testing.assert_array_equal(through.top, answered.top)
    asked = np.array([[2, 3, 1, 0]], np.int32), np.zeros((1, 4), np.int8), np.full((1, 1), 2)
    own = Serving(plain.model, 6, causal=False).attend(params, *asked)
    for found, expected in zip(scorer.ranker.functions.attend(*asked), own, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_weights_of_a_type_that_bundles_do_not_have(tmp_path):
    with pytest.raises(UserError, match="dtype is 'float16'; expected one of float32, bf"):
        export(tmp_path / "run", tmp_path / "bundle", dtype="float16")


def test_fewer_bytes(trained, bundle, tmp_path):
    """Also with content, whose columns have a scale each."""
    write_bundle(trained, tmp_path / "int8", dtype="int8")
    stored = weights.read((tmp_path / "int8" / "params.safetensors").read_bytes())
    features = stored["catalog/item_table/features"]
    assert features.dtype == np.int8
    assert stored["catalog/item_table/features_scale"].shape == (1, features.shape[1])
    assert (
        sum(map(len, map(bytes, stored.values())))
        < (bundle / "params.safetensors").stat().st_size / 2
    )
