from endcap.core.types import Placement
from endcap.testing import a_context, a_stranger
from endcap.testing.contexts import DAY_MS, NOW_MS


def test_orders_are_counted_and_dated():
    context = a_context([4, 2, 4], viewed=[7, 1, 7], cart=[3])
    assert context.items.tolist() == [4, 2, 4, 7, 1, 7]
    assert context.ts_ms[:3].tolist() == [NOW_MS - 3 * DAY_MS, NOW_MS - 2 * DAY_MS, NOW_MS - DAY_MS]
    assert context.ts_ms[3:].tolist() == [NOW_MS - 3000, NOW_MS - 2000, NOW_MS - 1000]
    assert context.bought.tolist() == [2, 4]
    assert context.bought_n.tolist() == [1, 2]
    assert context.bought_first_ms.tolist() == [NOW_MS - 2 * DAY_MS, NOW_MS - 3 * DAY_MS]
    assert context.bought_last_ms.tolist() == [NOW_MS - 2 * DAY_MS, NOW_MS - DAY_MS]
    assert context.session.tolist() == [1, 7]
    assert context.cart.tolist() == [3]


def test_stranger_is_unknown():
    context = a_stranger(Placement.CART)
    assert context.placement is Placement.CART
    assert not any(len(getattr(context, name)) for name in ("items", "bought", "cart", "session"))
