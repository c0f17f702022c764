"""`python -m tlcli`, and the entry point of the `tlcli` command."""

import signal


def main() -> None:
    """Run tlcli with the process's own arguments, and exit."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during imports ends the process without a traceback
    from tlcli.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
