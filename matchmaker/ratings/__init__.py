"""Ratings: what players are worth, learned from how their matches end. An option of a queue; openskill does the sums (the extra `ratings`)."""
