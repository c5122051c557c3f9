"""kill -9 while a shop records and publishes: what was acknowledged is there, and a whole release answers."""

import random
import signal
import subprocess
import sys
import time

from endcap.app.runtime import Shop

WORKER = """
import sys
from endcap import Event, EventType, Shop

with Shop.open(sys.argv[1]) as shop:
    releases = [manifest.release_id for manifest in shop.releases.list()]
    step = int(sys.argv[2])
    while True:
        step += 1
        shop.publish(releases[step % 2])
        act = {"event_type": EventType.VIEW, "user_id": "u", "item_id": "dairy-000", "ts_ms": shop.clock()}
        shop.record(Event(event_id=f"e{step}", **act))
        print(step, flush=True)
"""


def test_killed_at_any_moment_nothing_acknowledged_is_lost(folder):
    draw, step = random.Random(5), 0
    with Shop.open(folder) as shop:
        whole = {manifest.release_id for manifest in shop.releases.list()}
    for _ in range(4):
        command = [sys.executable, "-c", WORKER, str(folder), str(step)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
            step = int(worker.stdout.readline())
            time.sleep(draw.uniform(0.05, 0.4))
            worker.send_signal(signal.SIGKILL)
            step = max([step, *(int(line) for line in worker.stdout.read().split("\n") if line.strip())])
        with Shop.open(folder) as shop:
            recorded = {event.event_id for _, event in shop.store.events_after(0) if event.event_id.startswith("e")}
            assert {f"e{place}" for place in range(1, step + 1)} <= recorded
            assert shop.recommend(user="u", n=3).release in whole
            assert shop.store.verify() == []
