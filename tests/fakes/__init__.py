"""Stand-ins for services that cannot run here; each file names the upstream source that it was written from.

- `gcs_emulator`: Google Cloud Storage, which is a real server behind a proxy that injects faults.
- `kubeflow_api`: Kubeflow Pipelines.
- `step_services`: what surrounds the container of a step on Kubeflow Pipelines and Vertex AI.
- `kubernetes_api`: Kubernetes with JobSet.
- `vertex_api`: Vertex AI.
- `vizier_service`: Vertex AI Vizier.
- `http_server`: what those that speak HTTP share.
"""
