"""Who follows which party. The channel says that something changed; a party that waits under a ticket is also looked at when that is over."""

from collections.abc import Mapping
from typing import Any

from gameserver.sessions.client import StoreClient
from matchmaker.api.ticket_watch import TicketWatch
from matchmaker.api.watch import Watch
from matchmaker.model import FINAL, TicketId
from matchmaker.parties.model import Party, PartyId
from matchmaker.parties.store import CHANGED


class PartyWatch(Watch[PartyId, Party]):
    """Tells the followers of parties."""

    def __init__(self, client: StoreClient, tickets: TicketWatch) -> None:
        super().__init__(client, [CHANGED])
        self._waiting: dict[TicketId, PartyId] = {}
        tickets.listeners.append(self._ticket_changed)

    def heard(self, message: bytes) -> None:
        """A party has changed."""
        self._refresh(PartyId(message.decode()))

    def waits(self, party: Party) -> None:
        """A follower has read a party: it wants to know when the party's ticket is over."""
        if party.ticket is not None:
            self._waiting[party.ticket] = party.id

    def _ticket_changed(self, change: Mapping[str, Any]) -> None:
        if self._waiting and change["state"] in FINAL:
            for ticket in change["tickets"]:
                if (party := self._waiting.pop(ticket, None)) is not None:
                    self._refresh(party)

    def _refresh(self, party: PartyId) -> None:
        for follower in self.followers(party):
            follower.refresh()

    def _refresh_all(self) -> None:
        self._waiting.clear()  # reading afresh fills it
        super()._refresh_all()
