"""A run and pictures to probabilities: the one path that evaluate, predict and exports share."""
