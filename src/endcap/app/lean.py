"""A quick start for processes that only serve or ingest."""

from __future__ import annotations

import sys
from typing import Any

BESIDE = ("sklearn", "pandas", "dask", "pyarrow")  # what LightGBM brings along wherever it is installed


def import_lightgbm_alone() -> None:
    """LightGBM without interfaces to other libraries, which nothing here uses and which take longer to import than all
    the rest: for processes of our own, as whoever imports it in one cannot use its interface to scikit-learn there."""
    if "lightgbm" in sys.modules:
        return
    modules: dict[str, Any] = sys.modules
    hidden = [name for name in BESIDE if name not in modules]
    modules |= dict.fromkeys(hidden)  # as if they were not installed
    try:
        import lightgbm  # noqa: F401
    finally:
        for name in hidden:
            del modules[name]
