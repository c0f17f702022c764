"""The run directory: its layout, writing a run, loading and verifying one, and where it came from.

No inference or training belongs here. May import `backbones` and everything below it, but not `features`.
"""
