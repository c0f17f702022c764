"""Experiment trackers that `finetune --track` reports a run to: TensorBoard, MLflow and Weights & Biases, one file each.

What is reported is decided in `training` and `commands`. Imports `training` and the packages below it, but no other
package on its own level.
"""
