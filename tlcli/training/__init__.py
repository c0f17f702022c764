"""From a dataset to a classifier: `head` fits the softmax layer exactly, `tail` trains later layers.

`choices` decides before training what the user left at `auto`; `train` calls them in turn. `active_learning` chooses
the images to label.

Decoding, caching and running the frozen prefix belong to `features`; metrics and calibration to `inference`. May
import inference, runs, features, engines, backbones, datasets and below.
"""
