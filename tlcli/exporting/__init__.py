"""Export a run for use without tlcli: as ONNX, OpenVINO IR, a `torch.export` program, or a folder for timm and hubs.

Each export is compared with the run on real images before it is kept. The order of the steps is in `commands.export`.
May import `inference` and everything below it, but neither `training` nor any other package on its level.
"""
