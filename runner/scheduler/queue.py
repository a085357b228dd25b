"""Who is next: round robin over subjects, first come first served within one. Pure."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Item = TypeVar("Item")

_REMEMBERED_SUBJECTS = 1000


class FairQueue(Generic[Item]):
    """Items waiting, by subject; knows no slots and no clocks.

    The subject that was served longest ago is next. So one that was not served lately waits for
    nobody's second turn, and one that comes with each item anew has no advantage over one that
    queues them up.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[Item]] = OrderedDict()
        self._served: OrderedDict[str, int] = OrderedDict()
        self._turns = 0

    def __len__(self) -> int:
        return sum(len(items) for items in self._waiting.values())

    def add(self, subject: str, item: Item) -> None:
        """Put *item* behind its subject's others."""
        if subject not in self._waiting:
            own_turn = self._served.get(subject, 0)
            later = [one for one in self._waiting if self._served.get(one, 0) > own_turn]
            self._waiting[subject] = deque()
            for one in later:
                self._waiting.move_to_end(one)
        self._waiting[subject].append(item)

    def discard(self, subject: str, item: Item) -> None:
        """Forget *item*, if it waits."""
        items = self._waiting.get(subject)
        if items and item in items:
            items.remove(item)
            self._drop_if_empty(subject)

    def take(self, may_run: Callable[[str], bool]) -> tuple[str, Item] | None:
        """Remove and return the next item of a subject that *may_run*, with its subject.

        None if there is none. The subject goes to the end of the round.
        """
        for subject, items in self._waiting.items():
            if may_run(subject):
                item = items.popleft()
                self._waiting.move_to_end(subject)
                self._drop_if_empty(subject)
                self._note_turn(subject)
                return subject, item
        return None

    def in_turn(self, running: Sequence[str], *, slots: int, per_subject: int) -> Iterator[Item]:
        """Yield the items in the order in which they get slots.

        That is, if nobody comes or leaves, and runs end in the order in which they began.

        Args:
            running: The subjects that have slots, the one that has it longest first.
            slots, per_subject: How many run at once, in all and of one subject.
        """
        ahead: FairQueue[Item] = FairQueue()
        ahead._waiting.update((name, items.copy()) for name, items in self._waiting.items())
        going = deque(running)
        counts = Counter(going)
        while ahead._waiting:
            has_slot = len(going) < slots
            turn = ahead.take(lambda one: counts[one] < per_subject) if has_slot else None
            if turn is None:
                counts[going.popleft()] -= 1
            else:
                subject, item = turn
                going.append(subject)
                counts[subject] += 1
                yield item

    def _note_turn(self, subject: str) -> None:
        self._turns += 1
        self._served[subject] = self._turns
        self._served.move_to_end(subject)
        if len(self._served) > _REMEMBERED_SUBJECTS:
            self._served.popitem(last=False)

    def _drop_if_empty(self, subject: str) -> None:
        if not self._waiting[subject]:
            del self._waiting[subject]
