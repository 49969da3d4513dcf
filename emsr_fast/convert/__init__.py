"""The network for other runtimes: ONNX models and TensorRT engines, checked before anybody gets them."""
