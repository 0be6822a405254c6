"""Run a Python script with glibc's malloc tuned as this package's commands tune it.

    python tuned.py SCRIPT [ARGUMENT ...]

Needs nothing but Python, so that it works in the environment of any peer.
"""

import ctypes
import os
import runpy
import sys
from pathlib import Path

# M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_ARENA_MAX of glibc's malloc.h.
for parameter, value in ((-3, 1 << 30), (-1, 2**31 - 1), (-8, 1)):
    ctypes.CDLL(None).mallopt(parameter, value)
os.environ["TUNED_MALLOC"] = "1"
sys.argv = sys.argv[1:]
sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
runpy.run_path(sys.argv[0], run_name="__main__")
