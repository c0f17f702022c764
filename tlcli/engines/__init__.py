"""Engines: run a frozen network fast, in torch, ONNX Runtime or OpenVINO.

This package picks the device, precision and engine, exports networks to ONNX, and turns batches of pixels into
features. It does not depend on feature caches or runs, and may import backbones, images, storage and what lies
below them.
"""
