"""Images in: from DATA to pixels. Knows no network, imports no torch."""
