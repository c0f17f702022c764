"""The `tlcli` command, and `python -m tlcli`."""

import signal


def main() -> None:
    """Run tlcli with the process's own arguments, and exit."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # while the command line is imported, Ctrl-C just ends it
    from tlcli.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
