"""One tries for all while something is away."""

from endcap.core.breaker import Breaker


def test_one_tries_for_all():
    now = [0.0]
    breaker = Breaker(1.0, lambda: now[0])
    assert breaker.allows()
    breaker.failed()
    assert [breaker.allows(), breaker.allows()] == [False, False]
    now[0] = 1.0
    assert [breaker.allows(), breaker.allows()] == [True, False]
    breaker.failed()
    now[0] = 1.5
    assert not breaker.allows()
    breaker.worked()
    assert breaker.allows()
    assert not breaker.is_open
