"""The softmax head: the convex fit, the selection of its L2 and temperature, and training with all other layers frozen.

The fit gets features and labels, never files. May import what `training` may, but not `training.tail`.
"""
