"""A training on several machines of Vertex AI: a CustomJob whose worker pools run `marco train`."""
