"""
The tickets of one queue that wait, kept from cycle to cycle: changes in, matches out. Deterministic; knows no store and no process.

Called by `matching.worker` for small pools, and by `matching.process` for large ones.
"""

from collections.abc import Iterable, Sequence

from matchmaker.matching.form import form_matches
from matchmaker.model import Proposal, QueueConfig, Ticket, TicketId


class Pool:
    """Tickets that wait. What is proposed stays until it is removed: a proposal whose commit fails is proposed again."""

    def __init__(self, queue: QueueConfig) -> None:
        self.queue = queue
        self.tickets: dict[TicketId, Ticket] = {}

    def change(self, added: Sequence[Ticket], removed: Iterable[TicketId]) -> None:
        """Take tickets out (unknown ones are none), then in (known ones are replaced)."""
        for ticket in removed:
            self.tickets.pop(ticket, None)
        self.tickets.update((ticket.id, ticket) for ticket in added)

    def cycle(self, now_s: float) -> list[Proposal]:
        """The matches that can be made now, without overlap."""
        return form_matches(self.queue, list(self.tickets.values()), now_s)
