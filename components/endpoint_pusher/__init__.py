"""The EndpointPusher: a published model becomes a version on Vertex AI and takes over an endpoint's traffic in steps."""
