"""`warmfleet doctor`: what of a node and of a cluster stands in the way of real time, and how to mend it. Looks, never changes."""
