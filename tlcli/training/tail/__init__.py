"""Training of later layers: recipe, loop, gradients, checkpoints, and the search for a depth.

It trains on the features of a frozen prefix, cached or streamed. May import what `training` may, and `training.head`.
"""
