"""Data sets of drop images outside the pipeline: the record contract, TFRecord framing, import, synthesis, inspection."""
