"""The network for other runtimes: ONNX models and TensorRT engines, compared with PyTorch before they are written."""
