"""Parties: players who gather before they queue, by a code; their leader queues them as one ticket."""
