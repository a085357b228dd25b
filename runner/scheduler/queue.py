"""Who is next: round robin over subjects, first come first served within one. Pure."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """Items waiting, by subject; knows no slots and no clocks."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[Item]] = OrderedDict()

    def __len__(self) -> int:
        return sum(len(items) for items in self._waiting.values())

    def add(self, subject: str, item: Item) -> None:
        """Put *item* behind its subject's others, and a new subject behind the others."""
        self._waiting.setdefault(subject, deque()).append(item)

    def discard(self, subject: str, item: Item) -> None:
        """Forget *item*, if it waits."""
        items = self._waiting.get(subject)
        if items and item in items:
            items.remove(item)
            self._drop_if_empty(subject)

    def take(self, may_run: Callable[[str], bool]) -> Item | None:
        """Remove and return the next item of a subject that *may_run*; None if there is none.

        The subject goes to the end of the round.
        """
        for subject, items in self._waiting.items():
            if may_run(subject):
                item = items.popleft()
                self._waiting.move_to_end(subject)
                self._drop_if_empty(subject)
                return item
        return None

    def in_order(self) -> Iterator[Item]:
        """Yield the items in the order they would be taken if every subject might run."""
        rounds = [iter(items) for items in self._waiting.values()]
        nothing = object()
        while rounds:
            still = []
            for items in rounds:
                item = next(items, nothing)
                if item is not nothing:
                    yield item  # type: ignore[misc]
                    still.append(items)
            rounds = still

    def _drop_if_empty(self, subject: str) -> None:
        if not self._waiting[subject]:
            del self._waiting[subject]
