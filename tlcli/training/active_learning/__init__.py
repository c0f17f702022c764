"""The numeric core of labeling with the help of the network: what to label next, proposals, and what they are worth.

Gets features and labels, and knows no files and no HTTP. May import what `training` may, but not `training.tail`.
"""
