"""The four classes of MARCO and their order.

The order is that of `image/class/label` in the data set and of the published classifier's outputs (Bruno et al. 2018).
"""

CLASSES: tuple[str, ...] = ("Clear", "Crystals", "Other", "Precipitate")
