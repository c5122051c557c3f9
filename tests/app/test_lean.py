"""LightGBM is there, what it would have brought along is not, and whoever wants that gets it afterwards."""

import subprocess
import sys

PROGRAM = """
import sys
from endcap.app.lean import BESIDE, import_lightgbm_alone
import_lightgbm_alone()
import lightgbm, numpy
assert not set(BESIDE) & sys.modules.keys(), set(BESIDE) & sys.modules.keys()
data = lightgbm.Dataset(numpy.arange(40.0).reshape(-1, 1), numpy.arange(40) % 2)
booster = lightgbm.train({"objective": "binary", "verbosity": -1, "num_threads": 1}, data, 2)
assert len(booster.predict(numpy.ones((3, 1)))) == 3
import sklearn, pandas
"""


def test_it_works_without_what_stands_beside_it():
    subprocess.run([sys.executable, "-W", "error", "-c", PROGRAM], check=True, timeout=120)
