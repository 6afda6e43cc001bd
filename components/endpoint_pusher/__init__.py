"""The EndpointPusher: a published model, as a version on Vertex AI, takes over an endpoint's traffic in steps."""
