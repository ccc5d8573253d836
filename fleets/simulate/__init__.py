"""What a fleet's `warm` settings would cost and spare: a discrete-event model of matches, servers and nodes, fed by a trace."""
