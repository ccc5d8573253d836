"""What matching costs and is worth: cycles, quality on a stream, players from POST to assigned."""
