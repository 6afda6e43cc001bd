"""A stand-in for Kubernetes with JobSet: the API over HTTP, and replicas as processes of this machine.

It takes the requests that the official client sends for JobSets, pods and logs, refuses a JobSet that the schemas
refuse, and does what JobSet's controller does as far as a training sees it: one pod for each Job, host names, labels,
success and failure policy, time to live, deletion with all pods. A container is a process with the command and the
environment that the manifest gives it; the host names that JobSet's DNS would know become ports of 127.0.0.1.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import http.server
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.parse

JOBSETS = "/apis/jobset.x-k8s.io/v1alpha2/namespaces/marco/jobsets"
PODS = "/api/v1/namespaces/marco/pods"
PREFIX = "jobset.sigs.k8s.io/"
# What the API says of every container.
CONTAINER = {"name": "training", "image": "marco", "imageID": "", "ready": True, "restartCount": 0}


def now():
    return datetime.datetime.now(datetime.timezone.utc)


def seconds(time_of):
    return time_of.strftime("%Y-%m-%dT%H:%M:%SZ")


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


class Pod:
    """A replica: a process, its lines with the time they came, and what the API says of it."""

    def __init__(self, jobset, job, index, attempt, template, start=None):
        self.jobset, self.job, self.index, self.attempt = jobset, job, index, attempt
        self.name = f"{jobset}-{job}-{index}-0-{attempt}abcd"
        self.replica = f"{job}-{index}"
        self.labels = {
            **template["metadata"]["labels"],
            f"{PREFIX}jobset-name": jobset,
            f"{PREFIX}replicatedjob-name": job,
            f"{PREFIX}job-index": str(index),
            f"{PREFIX}restart-attempt": str(attempt),
        }
        self.created, self.finished, self.oom, self.waiting = now(), None, False, None
        self.lines = []
        self.process = None
        if start:
            reader, writer = os.pipe()
            self.process = start(writer)
            os.close(writer)
            self._reader = threading.Thread(target=self._read, args=[reader], daemon=True)
            self._reader.start()

    def _read(self, output):
        with os.fdopen(output, errors="replace") as lines:
            for line in lines:
                stamp = now().strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"
                self.lines.append((now(), f"{stamp} {line.rstrip()}"))

    def status(self):
        """Returns the exit status as a container runtime has it, None while the process runs."""
        code = self.process.poll() if self.process else None
        if code is None:
            return None
        self._reader.join(10)
        self.finished = self.finished or now()
        return 128 - code if code < 0 else code

    def kill(self):
        self.process.kill()

    def end(self, grace):
        if not self.process:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(grace)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def body(self):
        status = self.status()
        phase = "Running" if status is None else "Succeeded" if status == 0 else "Failed"
        state = {"running": {"startedAt": seconds(self.created)}}
        if status is not None:
            reason = "OOMKilled" if self.oom else "Completed" if status == 0 else "Error"
            state = {"terminated": {"exitCode": status, "reason": reason, "finishedAt": seconds(self.finished)}}
        body = {
            "metadata": {"name": self.name, "creationTimestamp": seconds(self.created), "labels": self.labels},
            "status": {"phase": phase, "containerStatuses": [CONTAINER | {"state": state}]},
        }
        if self.waiting == "Unschedulable":
            message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
            condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
            body["status"] = {"phase": "Pending", "conditions": [condition]}
        elif self.waiting:
            waits = {"waiting": {"reason": self.waiting, "message": "no such image"}}
            body["status"] = {"phase": "Pending", "containerStatuses": [CONTAINER | {"state": waits}]}
        return body


class Cluster:
    """All that the API knows. `faults`: (method, part of the path, status or "cut", headers), each for one request.

    `start(command, environment, output)` starts a container as a process that leads its own session and writes to the
    file descriptor `output`. `problems`: a JobSet to what is wrong with it. `waiting`: replica to the reason that
    its pod does not start. `steps`: pods that are no replicas, by name, with their phase.
    """

    def __init__(self, start, problems, grace=30.0):
        self.start, self.problems, self.grace = start, problems, grace
        self.lock = threading.RLock()
        self.jobsets, self.pods, self.seen_pods = {}, [], []
        self.faults, self.requests, self.waiting, self.steps = [], [], {}, {}
        self.ended = threading.Event()
        threading.Thread(target=self._control, daemon=True).start()

    def replica(self, name):
        """Returns the newest pod of a replica, such as `worker-0`, None before there is one."""
        return next((pod for pod in reversed(self.pods) if pod.replica == name), None)

    def create(self, body):
        if found := self.problems(body):
            return 422, {"message": "; ".join(found)}
        name = body["metadata"]["name"]
        with self.lock:
            if name in self.jobsets:
                return 409, {"message": f'jobsets.jobset.x-k8s.io "{name}" already exists', "reason": "AlreadyExists"}
            body["status"] = {"restarts": 0, "conditions": []}
            self.jobsets[name] = body
            body["hosts"] = {}
            self._start(body)
        return 201, body

    def _start(self, jobset):
        name = jobset["metadata"]["name"]
        for replicated in jobset["spec"]["replicatedJobs"]:
            for index in range(replicated["replicas"]):
                template = replicated["template"]["spec"]["template"]
                pod = self._pod(jobset, name, replicated["name"], index, template)
                self.pods.append(pod)
                self.seen_pods.append(pod)

    def _pod(self, jobset, name, job, index, template):
        container = template["spec"]["containers"][0]
        environment = {key: os.environ[key] for key in os.environ if key.startswith(("PATH", "TF_", "KERAS"))}
        for variable in container["env"]:
            if "valueFrom" in variable:
                path = variable["valueFrom"]["fieldRef"]["fieldPath"]
                assert path == f"metadata.labels['{PREFIX}job-index']"
                environment[variable["name"]] = str(index)
            else:
                value = re.sub(r"\$\((\w+)\)", lambda match: environment[match[1]], variable["value"])
                environment[variable["name"]] = value
        environment["TF_CONFIG"] = self._resolved(jobset, environment["TF_CONFIG"])
        if f"{job}-{index}" in self.waiting:
            pod = Pod(name, job, index, jobset["status"]["restarts"], template)
            pod.waiting = self.waiting[f"{job}-{index}"]
            return pod
        start = functools.partial(self.start, container["command"], environment)
        return Pod(name, job, index, jobset["status"]["restarts"], template, start)

    def _resolved(self, jobset, tf_config):
        """Does what DNS would, for host names that JobSet gives to pods of this set and no others."""
        name, network = jobset["metadata"]["name"], jobset["spec"]["network"]
        assert network["enableDNSHostnames"]
        known = {
            f"{name}-{replicated['name']}-{index}-0.{network['subdomain']}"
            for replicated in jobset["spec"]["replicatedJobs"]
            for index in range(replicated["replicas"])
        }
        told = json.loads(tf_config)
        named = {host.rpartition(":")[0] for hosts in told["cluster"].values() for host in hosts}
        assert named == known, (named, known)
        for job, hosts in told["cluster"].items():
            told["cluster"][job] = [f"127.0.0.1:{jobset['hosts'].setdefault(host, free_port())}" for host in hosts]
        return json.dumps(told)

    def _control(self):
        while not self.ended.wait(0.1):
            with self.lock:
                for jobset in list(self.jobsets.values()):
                    self._reconcile(jobset)

    def _reconcile(self, jobset):
        name, spec, status = jobset["metadata"]["name"], jobset["spec"], jobset["status"]
        pods = [pod for pod in self.pods if pod.jobset == name]
        if status["conditions"]:
            if time.monotonic() - jobset["ended"] > spec["ttlSecondsAfterFinished"]:
                self.delete(name)
            return
        codes = {pod: pod.status() for pod in pods}
        if any(codes.values()):
            self._end([pod for pod in pods if codes[pod] is None])
            if status["restarts"] < spec["failurePolicy"]["maxRestarts"]:
                # A real controller takes about as long to notice.
                threading.Timer(1.0, self._restart, [jobset]).start()
                jobset["ended"] = time.monotonic()
                status["conditions"] = [{"type": "Restarting", "status": "True"}]
            else:
                self._finish(jobset, "Failed", "ReachedMaxRestarts")
            return
        targets = [pod for pod in pods if pod.job in spec["successPolicy"]["targetReplicatedJobs"]]
        if targets and all(codes[pod] == 0 for pod in targets):
            self._finish(jobset, "Completed", "AllJobsCompleted")
            self._end([pod for pod in pods if codes[pod] is None])

    def _restart(self, jobset):
        with self.lock:
            name = jobset["metadata"]["name"]
            if name not in self.jobsets:
                return
            self.pods = [pod for pod in self.pods if pod.jobset != name]
            jobset["status"]["conditions"] = []
            jobset["status"]["restarts"] += 1
            jobset["hosts"] = {}
            self._start(jobset)

    def _finish(self, jobset, kind, reason):
        jobset["ended"] = time.monotonic()
        jobset["status"]["conditions"] = [{"type": kind, "status": "True", "reason": reason, "message": "of the test"}]

    def _end(self, pods):
        """Ends running pods and takes them away, as JobSet does with the Jobs that are still active."""
        self.pods = [pod for pod in self.pods if pod not in pods]
        for pod in pods:
            threading.Thread(target=pod.end, args=(self.grace,)).start()

    def delete(self, name):
        """In the foreground: the JobSet is gone once its pods are."""
        with self.lock:
            jobset = self.jobsets.get(name)
            if jobset is None:
                return 404, {"message": "not found"}
            if "deletionTimestamp" not in jobset["metadata"]:
                jobset["metadata"]["deletionTimestamp"] = seconds(now())
                threading.Thread(target=self._delete, args=(name,)).start()
        return 200, jobset

    def _delete(self, name):
        ending = [threading.Thread(target=pod.end, args=(self.grace,)) for pod in self.pods if pod.jobset == name]
        for thread in ending:
            thread.start()
        for thread in ending:
            thread.join()
        with self.lock:
            self.jobsets.pop(name, None)
            self.pods = [pod for pod in self.pods if pod.jobset != name]

    def alive(self):
        """Returns the replicas whose process runs, be their pod there or not."""
        return [pod.replica for pod in self.seen_pods if pod.process and pod.process.poll() is None]

    def close(self):
        self.ended.set()
        for pod in self.seen_pods:
            if pod.process:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pod.process.pid, signal.SIGKILL)
                pod.process.wait()


class Handler(http.server.BaseHTTPRequestHandler):
    """The requests of a training; any other is answered 404 as an API without that resource does."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def _answer(self, status, body, headers=()):
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(body, str) else "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _handle(self):
        cluster, url = self.server.cluster, urllib.parse.urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        with cluster.lock:
            cluster.requests.append((self.command, url.path))
            fault = next((one for one in cluster.faults if one[0] == self.command and one[1] in url.path), None)
            if fault:
                cluster.faults.remove(fault)
        if fault and fault[2] == "cut after":  # Done, and the answer lost.
            self._route(cluster, url.path, {}, body)
        if fault and str(fault[2]).startswith("cut"):
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if fault:
            self._answer(fault[2], {"kind": "Status", "code": fault[2], "message": "a fault of the test"}, fault[3])
            return
        with cluster.lock:
            answer = self._route(cluster, url.path, dict(urllib.parse.parse_qsl(url.query)), body)
        self._answer(*answer)

    do_GET = do_POST = do_DELETE = _handle

    def _route(self, cluster, path, query, body):
        if path == JOBSETS and self.command == "POST":
            return cluster.create(body)
        if path.startswith(f"{JOBSETS}/"):
            name = path.removeprefix(f"{JOBSETS}/")
            if self.command == "DELETE":
                return cluster.delete(name)
            found = cluster.jobsets.get(name)
            return (200, found) if found else (404, {"message": "not found"})
        if path == PODS:
            key, _, value = query["labelSelector"].partition("=")
            pods = [pod.body() for pod in cluster.pods if pod.labels.get(key) == value]
            return 200, {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods}
        name, _, rest = path.removeprefix(f"{PODS}/").partition("/")
        if name in cluster.steps:
            return 200, {"metadata": {"name": name}, "status": {"phase": cluster.steps[name]}}
        pod = next((pod for pod in cluster.pods if pod.name == name), None)
        if pod is None:
            return 404, {"message": "not found"}
        if rest != "log":
            return 200, pod.body()
        if pod.waiting:
            return 400, {"message": f"container training in pod {name} is waiting to start: {pod.waiting}"}
        after = now() - datetime.timedelta(seconds=int(query.get("sinceSeconds", 10**6)))
        lines = [line for came, line in list(pod.lines) if came > after][-int(query.get("tailLines", 0)) :]
        return 200, "".join(f"{line}\n" for line in lines)


@contextlib.contextmanager
def running(folder, start, problems):
    """Yields a `Cluster` behind HTTP, with `kubeconfig`, the path of a configuration of kubectl for it."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.cluster = cluster = Cluster(start, problems)
    cluster.kubeconfig = folder / "kubeconfig"
    cluster.kubeconfig.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
                "users": [{"name": "test", "user": {}}],
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                "current-context": "test",
            }
        )
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield cluster
    finally:
        cluster.close()
        server.shutdown()
        server.server_close()
