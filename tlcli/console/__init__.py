"""Output for people: progress, summaries, tables, warnings and errors. The only package that imports rich.

Summaries format the results of commands and compute nothing. Results on stdout are tables here, or JSON. May import
`commands` and everything below; only `cli` imports this package.
"""
