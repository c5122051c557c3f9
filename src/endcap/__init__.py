"""Endcap: a shop's catalogue and behaviour logs, turned into live, personalised recommendations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from endcap.app.runtime import Shop
    from endcap.core.types import Event, EventType, Item, Placement, Query, Slate

__version__ = "0.1.0"
__all__ = ["Event", "EventType", "Item", "Placement", "Query", "Shop", "Slate", "__version__"]


def __getattr__(name: str) -> Any:
    """The public names load when they are first asked for: `endcap --help` should not wait for numpy."""
    if name == "Shop":
        from endcap.app.runtime import Shop

        return Shop
    if name in __all__:
        from endcap.core import types

        return getattr(types, name)
    raise AttributeError(f"module 'endcap' has no attribute {name!r}")
