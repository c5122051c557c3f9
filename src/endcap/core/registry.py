"""name -> factory. Built-in names are registered where they are defined; third parties use entry points.

A package adds a source by declaring, in its own pyproject:
    [project.entry-points."endcap.sources"]
    my_source = "my_package:MySource"
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Generic, TypeVar

from endcap.core.errors import CallerError

T = TypeVar("T")


class Registry(Generic[T]):
    """One kind of plug point, by name. `group` is the entry-point group that extends it."""

    def __init__(self, kind: str, group: str) -> None:
        self.kind, self.group = kind, group
        self._known: dict[str, T] = {}

    def add(self, name: str, factory: T) -> T:
        if name in self._known and self._known[name] is not factory:
            raise CallerError(f"The {self.kind} name {name!r} is taken.", next_step="Choose another name.")
        self._known[name] = factory
        return factory

    def get(self, name: str) -> T:
        if name not in self._known:
            self._load(name)
        if name not in self._known:
            raise CallerError(
                f"There is no {self.kind} called {name!r}.", next_step=f"Known: {', '.join(self.names())}."
            )
        return self._known[name]

    def names(self) -> list[str]:
        return sorted({*self._known, *(point.name for point in entry_points(group=self.group))})

    def _load(self, name: str) -> None:
        for point in entry_points(group=self.group, name=name):
            self._known[name] = point.load()
