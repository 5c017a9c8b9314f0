"""The runtime: drives compiled graphs with numpy and ONNX Runtime alone; no PyTorch."""
