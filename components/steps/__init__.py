"""The steps of the pipeline; `pipelines.pipeline` wires them."""
