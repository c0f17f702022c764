"""`python -m tlcli`, and the entry point of the `tlcli` command."""

import os
import signal

# Idle OpenMP threads sleep. By default they spin, and slow down their own process if other programs keep the cores
# busy. It takes effect when torch and scikit-learn are imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def main() -> None:
    """Run tlcli with the process's own arguments, and exit."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during imports ends the process without a traceback
    from tlcli.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
