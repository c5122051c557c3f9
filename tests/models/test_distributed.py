"""Two real processes on one machine, which share a model's parameters, learn what one learns."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

RUN = """
import json, os, sys, time
from pathlib import Path
import torch
from torch import nn
from endcap.models import distributed
from endcap.models.config import LoopConfig
from endcap.models.loop import train

class Sums:
    def batches(self, epoch):
        drawn = torch.randn(8, 32, 4, generator=torch.Generator().manual_seed(epoch))
        return [batch[distributed.rank() :: distributed.processes()] for batch in drawn]

    def loss(self, batch):
        return (model(batch) - batch.sum(1, keepdim=True)).square().mean()

    def metric(self):
        return -float((model(torch.ones(2, 4)) - 4).abs().mean())

def stop(progress):
    if [progress.epoch, progress.step] == [interrupt_at, 3]:
        time.sleep(0.5)  # the other may still read what this one sent
        os._exit(0)

folder, interrupt_at = Path(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
distributed.join()
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))
distributed.shard(model, [model[0]])
checkpoint = folder / f"run-{distributed.rank()}.safetensors"
report = train(model, Sums(), LoopConfig(lr=0.02, epochs=4), checkpoint=checkpoint, progress=stop)
weights = distributed.whole(model)
if distributed.rank() == 0:
    found = {"weights": {name: tensor.tolist() for name, tensor in weights.items()}, "resumed": report.resumed_after}
    (folder / "found.json").write_text(json.dumps(found))
distributed.leave()
os._exit(0)  # an interpreter that is taken down while gloo's threads run may crash
"""


def _run(folder: Path, interrupt_at: int, processes: int) -> dict:
    folder.mkdir(exist_ok=True)
    script = folder / "run.py"
    script.write_text(RUN)
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    command = [sys.executable, *several, str(script), str(folder), str(interrupt_at)]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    found = folder / "found.json"
    return json.loads(found.read_text()) if found.exists() else {}


def test_two_processes_learn_what_one_does_and_resume(tmp_path: Path) -> None:
    one = _run(tmp_path / "one", interrupt_at=0, processes=1)
    assert _run(tmp_path / "two", interrupt_at=3, processes=2) == {}
    two = _run(tmp_path / "two", interrupt_at=0, processes=2)
    assert (one["resumed"], two["resumed"]) == (0, 2)
    (tmp_path / "two" / "run-1.safetensors").unlink()  # killed before it had written what the first one had
    anew = _run(tmp_path / "two", interrupt_at=0, processes=2)
    assert anew["resumed"] == 0
    for name, values in one["weights"].items():
        np.testing.assert_allclose(two["weights"][name], values, atol=1e-5)
        np.testing.assert_allclose(anew["weights"][name], values, atol=1e-5)
