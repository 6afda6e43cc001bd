"""Data sets of drop images outside the pipeline: record contract, framing, import, synthesis, inspection."""
