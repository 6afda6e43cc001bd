"""TFX components, one folder each; every one rests on a plain function that can be tested without a pipeline."""
