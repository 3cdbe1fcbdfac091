"""The Open Inference Protocol, in our own package."""
