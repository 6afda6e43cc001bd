"""Configuration, the one graph, thin runners and the command line."""
