"""Choices by measurement, before training: the backbone, the input's fit and size, and the augmentation.

Candidates are compared on few training images, by the losses of the exact head on frozen features, out of fold.
`choose` decides what was left at `auto`; the training of later layers belongs to `tail`.
"""
