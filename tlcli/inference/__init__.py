"""A run and images to probabilities: the one path that evaluate, predict and exports share."""
