"""The steps of the pipeline, one file each; `pipelines.pipeline` wires them."""
