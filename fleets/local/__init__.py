"""The laptop's Agones: game servers as processes, each with its own SDK endpoint, under Agones' states and timing."""
