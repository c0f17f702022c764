"""Backbones: networks by name, their weights, their numbered layers, and the cut.

Start with `zoo` (load a network), `layer_table` (number its layers) and `cut` (split it into a frozen prefix and a
trainable tail). This package does not depend on engines, image files or the feature cache, and imports only `errors`
from the rest of tlcli.
"""
