"""What handlers ask for: the shop that `create_app` was given.

Handlers and this are `async` and call the shop with `run_in_threadpool`: what FastAPI does for plain functions takes
three turns through other threads instead of one.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from endcap.app.runtime import Shop


async def shop_of(request: Request) -> Shop:
    shop: Shop = request.app.state.shop
    return shop


ShopDep = Annotated[Shop, Depends(shop_of)]
