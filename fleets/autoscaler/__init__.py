"""How many servers a fleet keeps Ready: forecast of its matches, policy, and the webhook that Agones' FleetAutoscaler asks."""
