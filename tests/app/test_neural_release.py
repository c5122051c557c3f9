"""A release with the transformer and content vectors: trained with torch, served without it."""

import os
import subprocess
import sys

from endcap.app import sequences
from endcap.app.runtime import Shop
from endcap.data.synthetic import cycle_shop
from endcap.models.sequence_fit import fit_sequence

SETTINGS = """
[train]
threads = 1
moments = 1
sources = ["sequence"]

[sequence]
dim = 32
epochs = 60
lr = 0.01
"""

SERVE = """
import sys
from endcap import Shop
from endcap.web.server import create_app

with Shop.open(sys.argv[1], read_only=True) as shop:
    create_app(shop)
    slate = shop.recommend(user=sys.argv[2], n=3)
print(sorted({"torch", "transformers"} & sys.modules.keys()), slate.release, [entry.source for entry in slate.items])
"""


def test_the_server_answers_from_it_without_torch(tmp_path):
    planted = cycle_shop(users=150, items=24)
    folder = Shop.init(tmp_path / "shop", SETTINGS)
    with Shop.open(folder, clock=lambda: planted.now_ms) as shop:
        shop.ingest(planted.dataset)
        trained = shop.train()
        right = [
            shop.recommend(user=user, n=1, hide_bought=True).items[0].item_id == answer
            for user, answer in planted.answers.items()
        ]
    assert sum(right) / len(right) >= 0.99
    user = next(iter(planted.answers))
    command = [sys.executable, "-c", SERVE, str(folder), user]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert said.startswith("[] ")
    assert trained.manifest.release_id in said
    assert "sequence" in said


def test_where_torch_cannot_fork_the_fits_are_done_one_after_the_other(tmp_path, monkeypatch):
    """A build for an accelerator refuses to go on in a fork, once its process has trained; this machine's does not."""
    here = os.getpid()

    def refusing(*args, **kwargs):
        if os.getpid() != here:
            raise RuntimeError("Unable to handle autograd's threading in combination with fork-based multiprocessing.")
        return fit_sequence(*args, **kwargs)

    monkeypatch.setattr(sequences, "fit_sequence", refusing)
    planted = cycle_shop(users=150, items=24)
    settings = SETTINGS.replace("threads = 1", "threads = 2").replace("epochs = 60", "epochs = 2")
    with Shop.open(Shop.init(tmp_path / "shop", settings), clock=lambda: planted.now_ms) as shop:
        shop.ingest(planted.dataset)
        trained = shop.train()
    assert trained.comparison is not None
    assert "sequence" in trained.comparison.to_markdown()
