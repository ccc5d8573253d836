"""matchmaker/api."""
