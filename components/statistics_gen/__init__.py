"""How TFX's StatisticsGen is set up for drop images."""
