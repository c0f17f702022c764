"""The command line: one small file a command. The only place that imports typer."""
