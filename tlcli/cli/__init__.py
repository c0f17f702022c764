"""The command line: one small module per command, which builds settings, calls the use case and prints its result.

Only this package imports Typer. Options are declared in `settings`, output is formatted in `console`. May import every
other package, but imports `commands` and `console` late, so that `tlcli --help` stays fast.
"""
