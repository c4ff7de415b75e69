"""An app in the shape of Flower's own PyTorch quickstart: message API, FedAvg, a small CNN; knows nothing of fl-sim."""
