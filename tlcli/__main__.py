"""`python -m tlcli` is `tlcli`."""

from tlcli.cli.main import main

main()
