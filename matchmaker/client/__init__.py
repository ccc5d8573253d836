"""
The REST API, typed, for a studio's services and tools: every endpoint, its bodies as the API itself has them, its refusals as exceptions.

```python
async with Client("https://play.example", token) as client:
    ticket = await client.create_ticket("duel", [PlayerBody(id="ann", attributes={"rating": 1500})])
    async for ticket in client.follow_ticket(ticket.id):
        print(ticket.state, ticket.estimatedWait)
```

A game's players have `gameserver.client`, which plays the match too and needs nothing of the matchmaker's.
"""

from matchmaker.api.explanations import ExplanationBody
from matchmaker.api.party_schemas import MemberRequest, PartyBody
from matchmaker.api.schemas import (
    AssignmentBody,
    BackfillBody,
    PlayerBody,
    QueueBody,
    RatingBody,
    TicketBody,
)
from matchmaker.api.sessions import SessionBody
from matchmaker.client.client import Client
from matchmaker.client.errors import (
    ApiError,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    RateLimited,
    TooLarge,
    Unauthorized,
    Unavailable,
    Unreachable,
)

__all__ = [
    "ApiError",
    "AssignmentBody",
    "BackfillBody",
    "Client",
    "Conflict",
    "ExplanationBody",
    "Forbidden",
    "Gone",
    "Invalid",
    "MemberRequest",
    "NotFound",
    "PartyBody",
    "PlayerBody",
    "QueueBody",
    "RateLimited",
    "RatingBody",
    "SessionBody",
    "TicketBody",
    "TooLarge",
    "Unauthorized",
    "Unavailable",
    "Unreachable",
]
