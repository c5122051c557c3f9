"""What several processes begin a tuning with: the same rows, or nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from endcap.app.finetune_start import Source, begin
from endcap.core.errors import CallerError

RUN = """
import json, os, sys
from pathlib import Path
import polars as pl
from endcap.app.finetune_settings import settings_of
from endcap.app.finetune_start import Source, begin
from endcap.core.errors import EndcapError
from endcap.models import distributed

folder, base = Path(sys.argv[1]), sys.argv[2]
distributed.join()
rank = distributed.rank()
config = settings_of(None, [f"base.name={base}"])
rows = pl.DataFrame({"text": [f"text {n}" for n in range(40 + rank)], "label": ["a", "b"] * 20 + ["a"] * rank})
start = begin(Source("a shop", lambda: rows), config, folder / "shop")
heights = [part.height for part in (start.examples.train, start.examples.valid, start.examples.test)]
told = []
for data, name in ((rows, "table"), (rows.head(4), "few")):
    try:
        begin(data, config, folder / name)
    except EndcapError as error:
        told.append(str(error))
(folder / f"{rank}.json").write_text(json.dumps({"rows": heights, "run_id": start.run_id, "told": told}))
distributed.leave()
os._exit(0)  # an interpreter that is taken down while gloo's threads run may crash
"""


def test_processes_begin_with_what_the_first_one_kept_or_not_at_all(tiny_bert: Path, tmp_path: Path) -> None:
    """Each would make another table: the log has grown by a row between them."""
    script = tmp_path / "run.py"
    script.write_text(RUN)
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [sys.executable, *several, str(script), str(tmp_path), str(tiny_bert)]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300)
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert found[0]["rows"] == found[1]["rows"] == [24, 8, 8]
    assert found[0]["run_id"] == found[1]["run_id"]
    for one in found:
        assert "The processes have read different rows or models" in one["told"][0]
        assert "Only 4 of 4 rows can be learned from" in one["told"][1]


def test_a_table_in_the_folder_of_a_run_that_came_to_nothing_stays(
    tuning, colours: pl.DataFrame, tmp_path: Path
) -> None:
    """Where it is the one that is learned from."""
    config = tuning()
    begin(Source("a shop", lambda: colours), config, tmp_path)
    begin(tmp_path / "examples.parquet", tuning(train={"epochs": 2}), tmp_path)
    assert pl.read_parquet(tmp_path / "examples.parquet").equals(colours)
    begin(colours.head(80), config, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run-id"]
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(CallerError, match="finished run"):
        begin(colours, config, tmp_path)
