"""`marco serve`: a classifier behind KServe's protocols and Vertex AI's routes."""
