"""What a Kubernetes cluster gives a step or a training: resources, volumes, secrets."""
