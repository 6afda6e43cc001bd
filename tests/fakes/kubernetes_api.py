"""A stand-in for Kubernetes with JobSet v1alpha2: the API over HTTP, and replicas as processes of this machine.

Written from the requests of the client kubernetes 26.1.0, the schema of kubeflow-trainer-api 2.3.0
(`kubeflow_trainer_api/models/jobset_v1alpha2_job_set.py`), and kubernetes-sigs/jobset v0.12.0: labels, conditions and
reasons in `api/jobset/v1alpha2/jobset_types.go` and `pkg/constants/constants.go`, restarts in
`pkg/controllers/failure_policy.go` (`failurePolicyRecreateAll`), deletion in the foreground in
`pkg/controllers/ttl_after_finished.go`. What a pod's state says is in kubernetes/api v0.36.0, `core/v1/types.go`.

It answers what that client requests about JobSets, pods and logs, refuses a JobSet that the schemas refuse, and does
what a training sees of JobSet's controller: one pod per Job, host names, labels, success and failure policy, time to
live, deletion with all pods. A container is a process with the command and the environment that the manifest names;
the host names that JobSet's DNS would resolve become ports of 127.0.0.1.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import os
import re
import signal
import subprocess
import threading
import time

from tests import processes
from tests.fakes import http_server, jobset_rules

JOBSETS = "/apis/jobset.x-k8s.io/v1alpha2/namespaces/marco/jobsets"
PODS = "/api/v1/namespaces/marco/pods"
PREFIX = "jobset.sigs.k8s.io/"
# The part of a container's status that is the same for all.
CONTAINER = {"name": "training", "image": "marco", "imageID": "", "ready": True, "restartCount": 0}


def now():
    return datetime.datetime.now(datetime.timezone.utc)


def rfc3339(moment):
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


class Pod:
    """A replica: a process, its output lines with the time of each, and its body in the API."""

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
        self.disrupted, self.evicted = False, ""
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
        """Returns the exit status as a container runtime reports it, None while the process runs."""
        code = self.process.poll() if self.process else None
        if code is None:
            return None
        self._reader.join(10)
        self.finished = self.finished or now()
        return 128 - code if code < 0 else code

    def kill(self):
        self.process.kill()

    def preempt(self):
        """Ends the pod as Kubernetes does for a pod of higher priority: with the condition DisruptionTarget."""
        self.disrupted = True
        self.process.terminate()

    def evict(self, message):
        """Ends the pod as the kubelet does when its node runs out of disk or memory, which is a disruption too."""
        self.evicted = message
        self.preempt()

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
        state = {"running": {"startedAt": rfc3339(self.created)}}
        if status is not None:
            reason = "OOMKilled" if self.oom else "Completed" if status == 0 else "Error"
            state = {"terminated": {"exitCode": status, "reason": reason, "finishedAt": rfc3339(self.finished)}}
        body = {
            "metadata": {"name": self.name, "creationTimestamp": rfc3339(self.created), "labels": self.labels},
            "status": {"phase": phase, "containerStatuses": [CONTAINER | {"state": state}]},
        }
        if self.evicted and status is not None:
            body["status"] |= {"reason": "Evicted", "message": self.evicted}
        if self.waiting == "Unschedulable":
            message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
            condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
            body["status"] = {"phase": "Pending", "conditions": [condition]}
        elif self.waiting:
            waits = {"waiting": {"reason": self.waiting, "message": "no such image"}}
            body["status"] = {"phase": "Pending", "containerStatuses": [CONTAINER | {"state": waits}]}
        return body


class Cluster:
    """The objects of the API, and JobSet's controller.

    `start(command, environment, output)` starts a container as a process that leads its own session and writes to the
    file descriptor `output`. `problems(jobset)` lists what is wrong with a JobSet.
    `faults`: (method, part of the path, status, headers) of requests that fail once each; in place of the status, `cut`
    closes the connection, and `cut after` does so after the request was carried out. `waiting`: the reason why a pod
    does not start, by replica. `steps`: the phase of other pods than replicas, by name.
    """

    def __init__(self, start, problems, grace=30.0):
        self.start, self.problems, self.grace = start, problems, grace
        self.lock = threading.RLock()
        self.jobsets, self.pods, self.seen_pods = {}, [], []
        self.faults, self.requests, self.waiting, self.steps = [], [], {}, {}
        self.ended = threading.Event()
        threading.Thread(target=self._control, daemon=True).start()

    def replica(self, name):
        """Returns the newest pod of a replica such as `worker-0`, None if it has none yet."""
        return next((pod for pod in reversed(self.pods) if pod.replica == name), None)

    def respond(self, request):
        with self.lock:
            self.requests.append((request.method, request.path))
            fault = next((item for item in self.faults if item[0] == request.method and item[1] in request.path), None)
            if fault:
                self.faults.remove(fault)
            if not fault or fault[2] == "cut after":
                answer = self._answer(request)
        if not fault:
            return answer
        if str(fault[2]).startswith("cut"):
            return None
        body = {"kind": "Status", "code": fault[2], "message": "a fault of the test"}
        return http_server.json_answer(fault[2], body, dict(fault[3]))

    def _answer(self, request):
        """Answers 404, as an API without that resource does, where no route is known."""
        route = http_server.find_route(_ROUTES, request.method, request.path)
        if route is None:
            return http_server.json_answer(404, {"message": "not found"})
        name, groups = route
        status, body = getattr(self, name)(request, *groups)
        if isinstance(body, str):
            return http_server.Answer(status, body.encode(), {"Content-Type": "text/plain"})
        return http_server.json_answer(status, body)

    def create_jobset(self, request):
        return self.create(json.loads(request.body))

    def create(self, body):
        """Creates a JobSet; returns status and answer."""
        if problems := self.problems(body):
            return 422, {"message": "; ".join(problems)}
        name = body["metadata"]["name"]
        with self.lock:
            if name in self.jobsets:
                return 409, {"message": f'jobsets.jobset.x-k8s.io "{name}" already exists', "reason": "AlreadyExists"}
            body["status"] = {"restarts": 0, "restartsCountTowardsMax": 0, "conditions": []}
            self.jobsets[name] = body
            body["hosts"] = {}
            self._start(body)
        return 201, body

    def get_jobset(self, request, name):
        return (200, self.jobsets[name]) if name in self.jobsets else (404, {"message": "not found"})

    def delete_jobset(self, request, name):
        return self.delete(name)

    def list_pods(self, request):
        key, _, value = request.query["labelSelector"].partition("=")
        pods = [pod.body() for pod in self.pods if pod.labels.get(key) == value]
        return 200, {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods}

    def get_pod(self, request, name):
        if name in self.steps:
            return 200, {"metadata": {"name": name}, "status": {"phase": self.steps[name]}}
        pod = self._find_pod(name)
        return (200, pod.body()) if pod else (404, {"message": "not found"})

    def read_log(self, request, name):
        pod = self._find_pod(name)
        if pod is None:
            return 404, {"message": "not found"}
        if pod.waiting:
            return 400, {"message": f"container training in pod {name} is waiting to start: {pod.waiting}"}
        after = now() - datetime.timedelta(seconds=int(request.query.get("sinceSeconds", 10**6)))
        count = int(request.query.get("tailLines", 0))
        lines = [line for moment, line in list(pod.lines) if moment > after][-count:]
        return 200, "".join(f"{line}\n" for line in lines)

    def _find_pod(self, name):
        return next((pod for pod in self.pods if pod.name == name), None)

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
        environment["TF_CONFIG"] = self._resolve_hosts(jobset, environment["TF_CONFIG"])
        if f"{job}-{index}" in self.waiting:
            pod = Pod(name, job, index, jobset["status"]["restarts"], template)
            pod.waiting = self.waiting[f"{job}-{index}"]
            return pod
        start = functools.partial(self.start, container["command"], environment)
        return Pod(name, job, index, jobset["status"]["restarts"], template, start)

    def _resolve_hosts(self, jobset, tf_config):
        """Replaces host names in TF_CONFIG by local addresses; they must be the names that JobSet gives to the pods."""
        name, network = jobset["metadata"]["name"], jobset["spec"]["network"]
        assert network["enableDNSHostnames"]
        known = {
            f"{name}-{replicated['name']}-{index}-0.{network['subdomain']}"
            for replicated in jobset["spec"]["replicatedJobs"]
            for index in range(replicated["replicas"])
        }
        config = json.loads(tf_config)
        named = {host.rpartition(":")[0] for hosts in config["cluster"].values() for host in hosts}
        assert named == known, (named, known)
        for job, hosts in config["cluster"].items():
            ports = [jobset["hosts"].setdefault(host, processes.free_port()) for host in hosts]
            config["cluster"][job] = [f"127.0.0.1:{port}" for port in ports]
        return json.dumps(config)

    def _control(self):
        while not self.ended.wait(0.1):
            with self.lock:
                for jobset in list(self.jobsets.values()):
                    self._reconcile(jobset)

    def _reconcile(self, jobset):
        # JobSet leaves one that is being deleted as it is: kubernetes-sigs/jobset, jobset_controller.go, reconcile.
        if "deletionTimestamp" in jobset["metadata"]:
            return
        name, spec, status = jobset["metadata"]["name"], jobset["spec"], jobset["status"]
        pods = [pod for pod in self.pods if pod.jobset == name]
        met = {condition["type"] for condition in status["conditions"] if condition["status"] == "True"}
        if met & {"Completed", "Failed"} and time.monotonic() - jobset["ended"] > spec["ttlSecondsAfterFinished"]:
            self.delete(name)
        if met:
            return
        codes = {pod: pod.status() for pod in pods}
        if any(codes.values()):
            self._end([pod for pod in pods if codes[pod] is None])
            reasons = {jobset_rules.failure_reason(spec, pod.job, pod.disrupted) for pod in pods if codes[pod]}
            counted = jobset_rules.action(spec["failurePolicy"], reasons) == "RestartJobSet"
            if not counted or status["restartsCountTowardsMax"] < spec["failurePolicy"]["maxRestarts"]:
                status["restarts"] += 1
                status["restartsCountTowardsMax"] += counted
                # A real controller takes about as long to notice.
                threading.Timer(1.0, self._restart, [jobset]).start()
                _set_condition(jobset, "RestartingJobSet", "True", "DefaultFailurePolicy")
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
            _set_condition(jobset, "RestartingJobSet", "False", "JobsReady")
            jobset["hosts"] = {}
            self._start(jobset)

    def _finish(self, jobset, kind, reason):
        jobset["ended"] = time.monotonic()
        _set_condition(jobset, kind, "True", reason)

    def _end(self, pods):
        """Ends and removes running pods, as JobSet does with the Jobs that are still active."""
        self.pods = [pod for pod in self.pods if pod not in pods]
        for pod in pods:
            threading.Thread(target=pod.end, args=(self.grace,)).start()

    def delete(self, name):
        """Deletes in the foreground: the JobSet is gone when its pods are."""
        with self.lock:
            jobset = self.jobsets.get(name)
            if jobset is None:
                return 404, {"message": "not found"}
            if "deletionTimestamp" not in jobset["metadata"]:
                jobset["metadata"]["deletionTimestamp"] = rfc3339(now())
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
        """Returns the replicas whose process runs, whether their pod still exists or not."""
        return [pod.replica for pod in self.seen_pods if pod.process and pod.process.poll() is None]

    def close(self):
        self.ended.set()
        for pod in self.seen_pods:
            if pod.process:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pod.process.pid, signal.SIGKILL)
                pod.process.wait()


def _set_condition(jobset, kind, status, reason):
    """Sets one of a JobSet's conditions; others, and those that are no longer met, stay in its status."""
    others = [condition for condition in jobset["status"]["conditions"] if condition["type"] != kind]
    changed = {"type": kind, "status": status, "reason": reason, "message": "of the test"}
    jobset["status"]["conditions"] = [*others, changed | {"lastTransitionTime": rfc3339(now())}]


_NAME = "([^/]+)"
_ROUTES = [
    (f"POST {JOBSETS}", "create_jobset"),
    (f"GET {JOBSETS}/{_NAME}", "get_jobset"),
    (f"DELETE {JOBSETS}/{_NAME}", "delete_jobset"),
    (f"GET {PODS}", "list_pods"),
    (f"GET {PODS}/{_NAME}", "get_pod"),
    (f"GET {PODS}/{_NAME}/log", "read_log"),
]


@contextlib.contextmanager
def running(folder, start, problems):
    """Yields a `Cluster` behind HTTP, with `kubeconfig`, the path of a configuration of kubectl for it."""
    cluster = Cluster(start, problems)
    with http_server.serving(cluster) as url:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": url}}],
            "users": [{"name": "test", "user": {}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        cluster.kubeconfig = folder / "kubeconfig"
        cluster.kubeconfig.write_text(json.dumps(config))
        try:
            yield cluster
        finally:
            cluster.close()
