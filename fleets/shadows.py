"""The shadow queues of a studio's files, wired; run by the laptop and by `warmfleet serve director`."""

from fleets.spec.convert import to_queue_config
from fleets.spec.loader import Specs
from matchmaker.model import QueueName
from matchmaker.recording.shadow import Shadow
from matchmaker.store import TicketStore


def shadows(specs: Specs, store: TicketStore) -> list[Shadow]:
    """One for each queue with `shadow`."""
    return [
        Shadow(to_queue_config(queue, specs.fleets), QueueName(queue.spec.shadow.of), store)
        for queue in specs.shadows
        if queue.spec.shadow is not None
    ]
