"""The server of `tlcli serve`: images of many clients predicted together, the interface, and the page."""
