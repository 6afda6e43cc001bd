"""Training on several nodes: the Trainer step makes a JobSet on Kubernetes, follows it and takes it away again."""
