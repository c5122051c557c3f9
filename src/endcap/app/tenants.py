"""The shops that one process serves, each with a folder of its own. Only a key says which of them a request reaches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from endcap.app.keys import Key, id_of
from endcap.core.errors import CallerError, ServiceError

if TYPE_CHECKING:
    from endcap.app.runtime import Shop


class Holder(NamedTuple):
    """Whose key was shown, and of which shop."""

    shop: Shop
    key: Key


class Tenants:
    """One shop or several. keys_required: nobody is let in without a key, whatever the workspace holds."""

    def __init__(self, shops: Sequence[Shop], *, keys_required: bool = False) -> None:
        self.shops = tuple(shops)
        self.keys_required = keys_required or len(self.shops) > 1
        self._places: dict[str, int] = {}  # key id -> where its shop was found last

    def open_shop(self) -> Shop | None:
        """The shop that may be reached without a key: the only one, as long as it never had any."""
        if self.keys_required or self.shops[0].keys.known():
            return None
        return self.shops[0]

    def holder(self, token: str) -> Holder | None:
        """Whose key this is; None where it is nobody's, revoked or expired.

        A dictionary is asked, and whether one small file has changed. Where several shops hold the key, as copies of a
        workspace do, it opens none of them.
        """
        key_id = id_of(token)
        place = self._places.get(key_id)
        known: dict[str, Key] = {} if place is None else self.shops[place].keys.known()
        if place is None or key_id not in known:
            found = self._holding(key_id)
            if len(found) != 1:
                return None
            place = self._places[key_id] = found[0]
            known = self.shops[place].keys.known()
        shop, key = self.shops[place], known[key_id]
        return Holder(shop, key) if key.is_good(token, shop.clock()) else None

    def _holding(self, key_id: str) -> list[int]:
        """The places of the shops that hold the key. ServiceError where none does and the keys of one cannot be read:
        another shop's trouble is not that of this one's callers."""
        found, trouble = [], None
        for at, shop in enumerate(self.shops):
            try:
                if key_id in shop.keys.known():
                    found.append(at)
            except ServiceError as error:
                trouble = error
        if trouble is not None and not found:
            raise trouble
        return found

    def check(self) -> None:
        """CallerError for two shops that are one folder, keep their log or state in one place or hold the same key, and
        for one that nobody could reach."""
        self._check_places()
        owners: dict[str, Shop] = {}
        for shop in self.shops:
            for key_id in shop.keys.known():
                if key_id in owners:
                    raise CallerError(
                        f"The key {key_id} is a key of two shops: {owners[key_id].folder} and {shop.folder}.",
                        where="shops",
                        next_step=f"Remove {shop.keys.path} and make new keys for the copy.",
                    )
                owners[key_id] = shop
            if self.keys_required and not shop.keys.known():
                raise CallerError(
                    "The shop has no API keys to tell callers apart.",
                    where=str(shop.folder),
                    next_step=f"Make one: endcap keys create --shop {shop.folder} --name NAME --scopes read,write",
                )

    def _check_places(self) -> None:
        """That each keeps what it knows where no other does."""
        kept: dict[str, Shop] = {}
        for shop in self.shops:
            for place, setting in ((shop.store.where, "[store] namespace"), (shop.state_where, "[state] prefix")):
                if place and place in kept:
                    raise CallerError(
                        f"Two shops keep what they know in one place, {place}: {kept[place].folder} and {shop.folder}.",
                        where=setting,
                        next_step="Give each its own; a `schema=` in ENDCAP_STORE_URL goes before both.",
                    )
                kept[place] = shop
