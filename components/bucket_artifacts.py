"""MLflow's artifacts on `gs://`, with the retries and checks of the rest of the project.

MLflow's own class uploads without a retry under google-cloud-storage 2, and does not check the length of what it reads.
"""

from pathlib import Path
from typing import Any

from mlflow.entities import FileInfo
from mlflow.store.artifact import artifact_repository_registry
from mlflow.store.artifact.gcs_artifact_repo import GCSArtifactRepository

from marco_model import store


class BucketArtifacts(GCSArtifactRepository):
    """The artifacts of a run or a model; raises `InputError` and `ClusterError` as `marco_model.store` does."""

    def __init__(self, artifact_uri: str, client: Any = None, **options: Any) -> None:
        super().__init__(artifact_uri, client or store.client(), **options)

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Uploads a file."""
        store.upload(Path(local_file), self._uri(artifact_path, Path(local_file).name))

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Uploads a folder with all its files."""
        folder = Path(local_dir)
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            store.upload(path, self._uri(artifact_path, path.relative_to(folder).as_posix()))

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """Returns the files and folders at `path`."""
        with store.reaching(self._uri(path)):
            return list(super().list_artifacts(path))

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        store.download(self._uri(remote_file_path), Path(local_path))

    def _uri(self, *parts: str | None) -> str:
        return "/".join([self.artifact_uri.rstrip("/"), *(part for part in parts if part)])


def register() -> None:
    """Makes MLflow use `BucketArtifacts` in this process."""
    artifact_repository_registry._artifact_repository_registry.register("gs", BucketArtifacts)
