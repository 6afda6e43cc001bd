"""Vertex AI: where a project is, and how the service is asked."""
