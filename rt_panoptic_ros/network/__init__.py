"""The network in torch, for training, export checks and the torch backend."""
