"""What managing fleets costs: deciding, simulating, rendering."""
