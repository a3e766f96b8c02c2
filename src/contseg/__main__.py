"""`python -m contseg`."""

from contseg.cli.main import main

main()
