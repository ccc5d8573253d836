"""Who gets which server: the shelf, the claim, the keeper that fills it, recovery."""
