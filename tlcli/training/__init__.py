"""Fitting the head, calibrating it, judging it. Gets features and labels, never files."""
