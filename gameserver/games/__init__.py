"""Real games, small ones: written against `gameserver.game` alone, as a studio would."""
