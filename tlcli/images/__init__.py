"""From the bytes of an image file to pixels: decoding, color, preprocessing, augmentation, and worker processes.

Datasets, splits, and networks do not belong here. Modules do not import torch at import time; only augmentation imports
it, on first use. May import `settings`, `storage`, `processes`, `progress`, `interrupts`, and `errors`.
"""
