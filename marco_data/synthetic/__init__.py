"""Synthetic photographs of crystallization drops in the MARCO contract; see docs/synthetic.md."""

from marco_data.synthetic.plan import KINDS, Plan, Settings, plan
from marco_data.synthetic.render import Drop, draw
from marco_data.synthetic.writer import MANIFEST, manifest_of, synthesize

__all__ = ["KINDS", "MANIFEST", "Drop", "Plan", "Settings", "draw", "manifest_of", "plan", "synthesize"]
