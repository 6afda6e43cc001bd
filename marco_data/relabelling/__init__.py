"""Relabelling: the images that disagree most with a classifier go to experts, whose answers come back as an overlay."""
