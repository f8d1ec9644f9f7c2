"""The four providers, each from its own side."""
