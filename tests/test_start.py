"""What a server does not load: processes that serve or ingest start in a second or two because of it."""

import subprocess
import sys

import pytest

LEARNING = ("torch", "lightgbm", "onnx", "sklearn", "pandas", "transformers", "pyarrow", "matplotlib")
PROGRAM = "import sys, {module}; print(' '.join(sorted(set({names}) & sys.modules.keys())))"


@pytest.mark.parametrize("module", ["endcap.web.server", "endcap.app.runtime", "endcap.cli.main"])
def test_nothing_that_only_learning_needs_is_loaded(module):
    program = PROGRAM.format(module=module, names=LEARNING)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == ""
