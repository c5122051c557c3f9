"""The load of the driver from wrk (Debian: apt install wrk), to check that the driver is not what is measured."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.load import cores

RATE = re.compile(r"^Requests/sec:\s+([\d.]+)", re.MULTILINE)
TURNS = """local paths = {{}}
for path in io.lines("{paths}") do paths[#paths + 1] = path end
local place = 0
request = function()
  place = place % #paths + 1
  return wrk.format("GET", paths[place])
end
"""


def wrk_rate(port: int, reads: Sequence[str], *, clients: int, seconds: float) -> float | None:
    """Answers a second to the GETs among the reads; None where wrk is not installed."""
    wrk = shutil.which("wrk")
    if wrk is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        paths, script = Path(folder) / "paths.txt", Path(folder) / "turns.lua"
        paths.write_text("\n".join(read.split(" ", 2)[1] for read in reads if read.startswith("GET ")) + "\n")
        script.write_text(TURNS.format(paths=paths))
        command = ["taskset", "-c", str(cores()[1]), wrk, "-t1", f"-c{clients}", f"-d{max(1, round(seconds))}s"]
        command += ["-s", str(script), f"http://127.0.0.1:{port}"]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = RATE.search(told)
    return float(found[1]) if found else None
