"""Servers on a socket: `label`, and the parts that all servers share (access control, start and stop).

The only package that listens on a socket. Holds no use cases and no printing. May import training, inference and
everything below.
"""
