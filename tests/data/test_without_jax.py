import pkgutil
import subprocess
import sys

from bert4rec_jax import data

# The one file that imports Grain, which imports jax where it is installed.
PIPELINE = "pipeline"


def without_jax(code):
    blocked = "import sys; sys.modules.update(dict.fromkeys(('jax', 'jaxlib', 'grain', 'flax')))\n"
    return subprocess.run(
        [sys.executable, "-c", blocked + code], capture_output=True, text=True, timeout=60
    )


def test_data_imports_without_jax():
    modules = {module.name for module in pkgutil.iter_modules(data.__path__)} - {PIPELINE}
    assert {"readers", "store", "split", "plan", "prepare"} <= modules
    code = "\n".join(f"import bert4rec_jax.data.{name}" for name in sorted(modules))
    finished = without_jax(code)
    assert finished.returncode == 0, finished.stderr


def test_the_block_works():
    assert "ModuleNotFoundError" in without_jax("import jax").stderr


def test_prepare_runs_without_jax(tmp_path):
    (tmp_path / "pairs.txt").write_text("a x\na y\n")
    arguments = ["bert4rec", "prepare", f"{tmp_path}/pairs.txt", "--output", f"{tmp_path}/out",
                 "--min-user-interactions", "1", "--min-item-interactions", "1"]  # fmt: skip
    finished = without_jax(f"sys.argv = {arguments!r}\nfrom bert4rec_jax.cli import main\nmain()")
    assert finished.returncode == 0, finished.stderr
    assert "interactions read" in finished.stdout
    assert (tmp_path / "out" / "manifest.json").is_file()
