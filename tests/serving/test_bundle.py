"""Bundles that cannot be used, each with one clear error."""

import json
import shutil
from datetime import date, timedelta

import jax
import pytest

from bert4rec_jax.errors import UserError
from bert4rec_jax.serving.bundle import FUNCTIONS, Bundle


@pytest.fixture
def copy(bundle, tmp_path):
    return shutil.copytree(bundle, tmp_path / "bundle")


def change(folder, **values):
    file = folder / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def minor(step):
    first, second = map(int, jax.__version__.split(".")[:2])
    return f"{first}.{second + step}.0"


def test_a_bundle_says_what_it_is(bundle, trained, store):
    opened = Bundle.open(bundle)
    manifest = opened.manifest
    assert set(manifest["functions"]) == set(FUNCTIONS)
    for function in manifest["functions"].values():
        assert function["platforms"] == ["cpu", "cuda", "tpu"]
    assert manifest["functions"]["score"]["arguments"]["candidates"] == "int32[b,c]"
    assert manifest["functions"]["score"]["results"] == ["float32[b,c]"]
    assert manifest["functions"]["top_k"]["results"] == ["float32[b,k]", "int32[b,k]"]
    assert manifest["data_fingerprint"] == store.fingerprint
    assert (
        manifest["catalog_fingerprint"] == opened.catalog.fingerprint == store.catalog.fingerprint
    )
    assert manifest["model"]["dim"] == 8 and manifest["reads"] == "masked"
    assert manifest["jax"] == jax.__version__
    assert opened.max_length == 6
    assert opened.known.tolist() == trained.known.tolist()
    created = date.fromisoformat(manifest["created"][:10])
    assert date.fromisoformat(manifest["readable_until"]) - created == timedelta(days=180)


def test_checksums_cover_every_file(bundle):
    files = {file.name for file in bundle.iterdir()} - {"manifest.json"}
    assert set(Bundle.open(bundle).manifest["checksums"]) == files


def test_something_else_is_no_bundle(tmp_path, store):
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(UserError, match=f"{path} is no bundle .*`bert4rec export RUN BUNDLE`"):
            Bundle.open(path)
    with pytest.raises(UserError, match=r"is no bundle .manifest.json has no bundle_schema"):
        Bundle.open(store.path)


def test_another_schema(copy):
    change(copy, bundle_schema=99, bert4rec_jax="7.0")
    with pytest.raises(UserError, match=r"schema 99, and this version reads 1; install .*\(7.0\)"):
        Bundle.open(copy)


def test_a_newer_jax_made_it(copy):
    change(copy, jax=minor(+1))
    with pytest.raises(UserError, match=f"exported by JAX {minor(+1)}, and this is JAX .*or later"):
        Bundle.open(copy)


def test_an_old_export_is_expired_for_a_newer_jax_only(copy):
    later = date.fromisoformat(Bundle.open(copy).manifest["readable_until"]) + timedelta(days=1)
    assert Bundle.open(copy, today=later)
    change(copy, jax=minor(-1))
    assert Bundle.open(copy, today=later - timedelta(days=1))
    with pytest.raises(UserError, match=r"could be read by later versions until .*export it again"):
        Bundle.open(copy, today=later)


@pytest.mark.parametrize("name", ["params.safetensors", "score.stablehlo", "catalog.parquet"])
@pytest.mark.parametrize("damage", ["changed", "cut off", "missing"])
def test_damaged_files_are_named(copy, name, damage):
    file = copy / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(content if damage == "changed" else content[:-10])
    expected = "is missing" if damage == "missing" else "does not match its checksum"
    with pytest.raises(UserError, match=f"{name} {expected}.*copy the .*again"):
        Bundle.open(copy)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_manifest(copy, content):
    (copy / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=r"manifest\.json"):
        Bundle.open(copy)


def test_a_function_that_jax_cannot_read(copy):
    (copy / "score.stablehlo").write_bytes(b"something")
    opened = Bundle(copy, json.loads((copy / "manifest.json").read_text()))
    with pytest.raises(UserError, match=r"score.stablehlo was exported by JAX .* cannot be read"):
        opened.function("score")
