"""The feature cache: fingerprint, store, and the extraction of images through a frozen prefix into it.

`cache` looks stores up, `extractor` cuts a backbone and computes missing features. Training, image decoding and the
networks themselves belong elsewhere. May import engines, backbones, datasets, images, settings, storage and below.
"""
