"""Bundles that cannot be used, each with one clear error."""

import hashlib
import json
import shutil
from datetime import date, timedelta
from functools import partial
from itertools import cycle

import jax
import numpy as np
import pytest

from bert4rec_jax.errors import UserError
from bert4rec_jax.outputs import whole_folder
from bert4rec_jax.serving import bundle as bundles
from bert4rec_jax.serving.bundle import FUNCTIONS, Bundle
from bert4rec_jax.serving.bundle_files import BundleFiles
from bert4rec_jax.serving.pipeline import write_pipeline


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


@pytest.mark.parametrize(
    "changed",
    [
        {"repeats": True}, {"thumbs": [1, 2]}, {"max_length": 5}, {"reads": "causal"},
        {"trained_until": 5}, {"created": "today"},
    ],
)  # fmt: skip
def test_what_answers_differently_has_another_fingerprint(bundle, copy, changed):
    change(copy, **changed)
    same = Bundle.open(copy).fingerprint == Bundle.open(bundle).fingerprint
    assert same == ("created" in changed)


def test_products_have_all_bits_of_float32_on_every_platform(bundle):
    """As in the evaluator, whose scores these are."""
    module = Bundle.open(bundle).function("score").mlir_module()
    products = [line for line in module.splitlines() if "stablehlo.dot_general" in line]
    assert products and all("[HIGHEST, HIGHEST]" in line for line in products)


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


def test_a_file_that_may_not_be_read(copy, monkeypatch):
    def refuse(path, *arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(copy), "open", refuse)
    with pytest.raises(UserError, match=r"cannot read .*: Permission denied; change its permiss"):
        BundleFiles(copy, {"params.safetensors": ""})


@pytest.fixture
def other(rare):
    """A bundle of the same items, five of which it does not list."""
    return rare.bundle.path


def swap(folder, other):
    """Put another bundle in the place of one, as `bert4rec export` does."""
    with whole_folder(folder) as partial:
        shutil.copytree(other, partial, dirs_exist_ok=True)


def same(found, path):
    """Whether all that an opened bundle reads is of the bundle at `path`."""
    expected = Bundle.open(path)
    assert found.fingerprint == expected.fingerprint
    np.testing.assert_array_equal(found.known, expected.known)
    for name in found.manifest["checksums"]:
        assert found.files.read(name) == (path / name).read_bytes()
    assert found.catalog.item_ids == expected.catalog.item_ids
    assert found.parameters().keys() == expected.parameters().keys()
    assert found.function("top_k").mlir_module_serialized


def test_an_opened_bundle_stays_what_it_was(bundle, copy, other):
    opened = Bundle.open(copy)
    swap(copy, other)
    same(opened, bundle)
    same(Bundle.open(copy), other)


def swapping(monkeypatch, swaps):
    """Call one of `swaps` after each reading of a manifest, as long as there are any."""
    read = bundles._read_manifest

    def read_and_swap(path):
        manifest = read(path)
        next(swaps, lambda: None)()
        return manifest

    monkeypatch.setattr(bundles, "_read_manifest", read_and_swap)
    monkeypatch.setattr(bundles, "_PAUSE", 0)


def test_a_bundle_that_is_replaced_while_it_is_opened(copy, other, monkeypatch):
    swapping(monkeypatch, iter([lambda: swap(copy, other)]))
    same(Bundle.open(copy), other)


def test_a_bundle_that_is_away_for_a_moment(copy, other, monkeypatch):
    away = copy.with_name("away")
    back = [lambda: copy.rename(away), lambda: None, lambda: None]
    swapping(monkeypatch, iter(back))
    monkeypatch.setattr(bundles.time, "sleep", lambda seconds: shutil.copytree(other, copy))
    same(Bundle.open(copy), other)


def test_a_bundle_that_is_replaced_time_and_again(bundle, copy, other, monkeypatch):
    swaps = (partial(swap, copy, source) for source in cycle([other, bundle]))
    swapping(monkeypatch, swaps)
    with pytest.raises(UserError, match=r"bundle was replaced each of the 3 times .*open it again"):
        Bundle.open(copy)


def test_both_stages_of_a_pipeline_are_of_one_version(bundle, other, tmp_path, monkeypatch):
    folder = tmp_path / "pipeline"
    write_pipeline(bundle, bundle, folder, candidates=9)
    write_pipeline(other, other, tmp_path / "new", candidates=9)
    expected = Bundle.open(tmp_path / "new").fingerprint
    # The manifests of the pipeline and its first stage are read; then comes the second stage.
    swapping(
        monkeypatch, iter([lambda: None, lambda: None, lambda: swap(folder, tmp_path / "new")])
    )
    assert Bundle.open(folder).fingerprint == expected


def test_a_file_that_is_overwritten_is_not_taken_for_the_one_that_was_opened(copy):
    opened = Bundle.open(copy)
    with (copy / "params.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    with pytest.raises(UserError, match=r"params\.safetensors does not match its checksum"):
        opened.parameters()


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_manifest(copy, content):
    (copy / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=r"manifest\.json"):
        Bundle.open(copy)


def test_a_function_that_jax_cannot_read(copy):
    (copy / "score.stablehlo").write_bytes(b"something")
    checksums = json.loads((copy / "manifest.json").read_text())["checksums"]
    changed = hashlib.sha256(b"something").hexdigest()
    change(copy, checksums={**checksums, "score.stablehlo": changed})
    opened = Bundle.open(copy)
    with pytest.raises(UserError, match=r"score.stablehlo was exported by JAX .* cannot be read"):
        opened.function("score")
