"""
The tickets of one queue that wait, kept from cycle to cycle: changes in, matches out. Deterministic; knows no store and no process.

Called by `matching.worker` for small pools, and by `matching.process` for large ones.
"""

from collections.abc import Iterable, Sequence

from matchmaker.matching.columns import Columns
from matchmaker.matching.form import form
from matchmaker.model import Proposal, QueueConfig, Ticket, TicketId


class Pool:
    """Tickets that wait. What is proposed stays until it is removed: a proposal whose commit fails is proposed again."""

    def __init__(self, queue: QueueConfig) -> None:
        self.queue = queue
        self.columns = Columns(queue)

    def change(self, added: Sequence[Ticket], removed: Iterable[TicketId]) -> None:
        """Take tickets out (unknown ones are none), then in (known ones are replaced)."""
        self.columns.change(added, removed)
        if self.columns.crowded:
            kept = self.waiting()
            self.columns = Columns(self.queue)
            self.columns.change(kept, ())

    def waiting(self) -> list[Ticket]:
        """All tickets, in no order."""
        return [ticket for ticket in self.columns.tickets if ticket is not None]

    def cycle(self, now_s: float) -> list[Proposal]:
        """The matches that can be made now, without overlap, those of the oldest tickets first."""
        return form(self.columns, now_s).proposals()
