"""Files, folders and objects at URLs: read, written completely or not at all, locked, and named.

What the files mean belongs to the packages that write them (`runs`, `features`, `inference`). Imports only `processes`,
`progress`, `interrupts` and `errors`, and never torch, because `tlcli --help` imports this package.
"""
