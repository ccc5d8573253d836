"""`python -m fleets.cli`: the command `warmfleet`, where its script is not on the path."""

from fleets.cli.main import main

main()
