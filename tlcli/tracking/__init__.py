"""Experiment trackers for `finetune --track`: TensorBoard, MLflow and Weights & Biases, one file each.

What is reported is decided in `training` and `commands`. Imports `training` and the packages below it, but no other
package on its own level.
"""
