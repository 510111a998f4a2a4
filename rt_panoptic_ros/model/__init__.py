"""What a model is without its computation: configuration, bundle, classes, weights."""
