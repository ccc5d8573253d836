"""What a studio ships in its image: games, rooms, transports, the Agones SDK, sessions. Imports none of the packages above it."""
