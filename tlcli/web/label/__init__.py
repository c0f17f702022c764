"""The server and the page of `tlcli label`: the session that holds the labels, its HTTP interface, and thumbnails."""
