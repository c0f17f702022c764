"""A run for use without tlcli: as ONNX, as a `torch.export` program, and as a folder for timm and model hubs."""
