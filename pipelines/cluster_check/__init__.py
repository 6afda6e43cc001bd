"""Whether a cluster has what a compiled package needs, before anything is submitted: `marco cluster check`.

`cluster` asks the Kubernetes API, with `network` for what policies let through, `inside` tries everything from a pod of
the pipeline's account, and `vertex` asks Google Cloud. Nothing is changed, but for an object and a file that `inside`
writes and removes again.
"""
