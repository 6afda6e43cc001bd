"""A heat map over the grey image."""

from marco_model.overlay import overlay

__all__ = ("overlay",)
