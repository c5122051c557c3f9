"""A shop's own server asks Endcap: a page for a shopper, the next page, what they did, and a price that changed.

python examples/client.py http://127.0.0.1:8765
"""

from __future__ import annotations

import sys

from endcap.client import Client


def visit(url: str, user_id: str = "visitor-1") -> list[str]:
    """Two pages that a shopper is shown, with the events of what they did. Returns the item ids of both."""
    with Client(url) as shop:
        page = shop.recommend(user_id, n=4)
        for place in page.items:
            print(f"{place.title}: {place.reason}")
        shop.record_many(
            [
                {
                    "event_type": "impression",
                    "user_id": user_id,
                    "item_id": item_id,
                    "recommendation_id": page.recommendation_id,
                }
                for item_id in page.item_ids()
            ]
        )
        chosen = page.items[0].item_id
        shop.record({"event_type": "add_to_cart", "user_id": user_id, "item_id": chosen})
        shop.patch_item(chosen, price=1.99, currency="USD")
        return [*page.item_ids(), *shop.more(page).item_ids()]


if __name__ == "__main__":
    visit(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8765")
