"""Where the whole pipeline puts a target: its own ties count against it, and a failure is not measured."""

import numpy as np
import pytest

from endcap.app.evaluation import ranked_by
from endcap.app.publish import read_release
from endcap.core.errors import ServiceError
from endcap.evaluate.protocols import Case
from endcap.features.sequences import Histories


class Alike:
    """Thinks the same of every candidate."""

    def score(self, features, candidates):
        return np.zeros(len(candidates.items), np.float32)


class Broken:
    def score(self, features, candidates):
        raise ValueError("no")


@pytest.fixture
def asked(shop, planted):
    """The published release, and everybody's histories in its terms."""
    release = read_release(shop.releases, shop.releases.current())
    histories = Histories.build(shop.store.events(), release.fitted.table.ids)
    return release, histories


def ranks(release, histories, planted, target):
    user = histories.users.ids[0]
    case = Case(user, planted.now_ms, (target,))
    return ranked_by(release.fitted, release.pipeline, histories, "all", [case], workers=1)[0]


def test_candidates_of_one_score_share_the_last_place(asked, planted):
    release, histories = asked
    release.pipeline.scorer = Alike()
    found = [ranks(release, histories, planted, item) for item in release.fitted.table.ids.ids]
    places = np.array([one.ranks[0] for one in found])
    alike = np.array([one.ties[0] for one in found])
    candidates = int((places == places.min()).sum())
    assert candidates > 3
    assert places.min() == candidates
    assert (alike[places == places.min()] == candidates - 1).all()


def test_what_fell_back_is_not_measured(asked, planted):
    release, histories = asked
    release.pipeline.scorer = Broken()
    with pytest.raises(ServiceError, match=r"ranker failed: ValueError: no.*standard error"):
        ranks(release, histories, planted, release.fitted.table.ids.ids[0])
