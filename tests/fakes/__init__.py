"""Stand-ins for services that cannot run here; each file names the upstream source that it was written from.

- `gcs_emulator`: Google Cloud Storage, which is a real server behind a proxy that injects faults; `gcs_over_tls`:
  the same as TensorFlow reaches it.
- `kubeflow_api`: Kubeflow Pipelines.
- `step_services`: what surrounds the container of a step on Kubeflow Pipelines and Vertex AI.
- `argo`, `jobset_rules`: what Argo Workflows and JobSet decide.
- `kubernetes_api`: Kubernetes with JobSet. `kubectl`: the command, for tests/cluster.
- `vertex_api`: Vertex AI.
- `vizier_service`: Vertex AI Vizier.
- `google_cloud`: IAM, Resource Manager, Service Usage, Cloud Storage and Artifact Registry, as the cluster check asks.
- `http_server`: what those that speak HTTP share.
"""
