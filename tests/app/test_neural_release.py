"""A release with the transformer and content vectors: trained with torch, served without it."""

import subprocess
import sys

from endcap.app.runtime import Shop
from endcap.data.synthetic import cycle_shop

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
