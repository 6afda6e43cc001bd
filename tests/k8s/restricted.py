"""The restricted Pod Security Standard, rule by rule: https://kubernetes.io/docs/concepts/security/pod-security-standards/

Each rule takes the `spec` of a pod and yields what it finds wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Item = dict[str, Any]


def containers(spec: Item) -> list[Item]:
    """Returns all containers of a pod."""
    return [
        container
        for kind in ("initContainers", "containers", "ephemeralContainers")
        for container in spec.get(kind, [])
    ]


def contexts(spec: Item) -> list[tuple[str, Item]]:
    """Returns name and security context of the pod and of each container."""
    named = [
        (f"container {container['name']}", container.get("securityContext") or {}) for container in containers(spec)
    ]
    return [("pod", spec.get("securityContext") or {}), *named]


def _effective(spec: Item, field: str) -> Iterator[tuple[str, Any]]:
    """Yields what holds for each container: its own value, otherwise the pod's."""
    (_, pod), *own = contexts(spec)
    for name, context in own:
        yield name, context.get(field, pod.get(field))


def host_process(spec: Item) -> Iterator[str]:
    """No Windows host processes."""
    for name, context in contexts(spec):
        if (context.get("windowsOptions") or {}).get("hostProcess"):
            yield f"{name} is a host process"


def host_namespaces(spec: Item) -> Iterator[str]:
    """No namespaces of the host."""
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield f"{field} is true"


def privileged(spec: Item) -> Iterator[str]:
    """No privileged containers."""
    for name, context in contexts(spec):
        if context.get("privileged"):
            yield f"{name} is privileged"


def capabilities(spec: Item) -> Iterator[str]:
    """All capabilities dropped, none but NET_BIND_SERVICE added."""
    for name, context in contexts(spec)[1:]:
        asked = context.get("capabilities") or {}
        if "ALL" not in asked.get("drop", []):
            yield f"{name} does not drop ALL capabilities"
        if set(asked.get("add", [])) - {"NET_BIND_SERVICE"}:
            yield f"{name} adds the capabilities {asked['add']}"


_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def volume_types(spec: Item) -> Iterator[str]:
    """Only volumes that hold no path of the host."""
    for volume in spec.get("volumes", []):
        if kinds := set(volume) - {"name"} - _VOLUMES:
            yield f"volume {volume['name']} is of {', '.join(sorted(kinds))}"


def host_ports(spec: Item) -> Iterator[str]:
    """No ports of the host."""
    for container in containers(spec):
        for port in container.get("ports", []):
            if port.get("hostPort"):
                yield f"container {container['name']} takes the host's port {port['hostPort']}"


def host_probes(spec: Item) -> Iterator[str]:
    """Probes and hooks go to the pod itself."""
    for container in containers(spec):
        hooks = {
            **(container.get("lifecycle") or {}),
            **{key: container[key] for key in container if key.endswith("Probe")},
        }
        for name, hook in hooks.items():
            for way in ("httpGet", "tcpSocket"):
                if (hook.get(way) or {}).get("host"):
                    yield f"container {container['name']}: {name} goes to the host {hook[way]['host']}"


def app_armor(spec: Item) -> Iterator[str]:
    """AppArmor stays on."""
    for name, context in contexts(spec):
        if (context.get("appArmorProfile") or {}).get("type", "RuntimeDefault") not in {"RuntimeDefault", "Localhost"}:
            yield f"{name} turns AppArmor off"


_SELINUX = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}


def se_linux(spec: Item) -> Iterator[str]:
    """SELinux types of containers, without a user or role of their own."""
    for name, context in contexts(spec):
        options = context.get("seLinuxOptions") or {}
        if options.get("type", "") not in _SELINUX or options.get("user") or options.get("role"):
            yield f"{name} has the SELinux options {options}"


def proc_mount(spec: Item) -> Iterator[str]:
    """The usual, masked /proc."""
    for name, context in contexts(spec):
        if context.get("procMount", "Default") != "Default":
            yield f"{name} unmasks /proc"


_SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
}


def sysctls(spec: Item) -> Iterator[str]:
    """Only sysctls of the pod's own namespaces."""
    for setting in (spec.get("securityContext") or {}).get("sysctls", []):
        if setting["name"] not in _SYSCTLS:
            yield f"sets the sysctl {setting['name']}"


def privilege_escalation(spec: Item) -> Iterator[str]:
    """No process gets more rights than its parent."""
    for name, context in contexts(spec)[1:]:
        if context.get("allowPrivilegeEscalation") is not False:
            yield f"{name} allows privilege escalation"


def non_root(spec: Item) -> Iterator[str]:
    """Root is refused."""
    for name, value in _effective(spec, "runAsNonRoot"):
        if value is not True:
            yield f"{name} does not say runAsNonRoot"


def root_user(spec: Item) -> Iterator[str]:
    """The user is not 0."""
    for name, context in contexts(spec):
        if context.get("runAsUser") == 0:
            yield f"{name} runs as user 0"


def seccomp(spec: Item) -> Iterator[str]:
    """System calls are filtered."""
    for name, value in _effective(spec, "seccompProfile"):
        if (value or {}).get("type") not in {"RuntimeDefault", "Localhost"}:
            yield f"{name} has no seccomp profile"


RESTRICTED = {
    rule.__name__: rule
    for rule in (
        host_process,
        host_namespaces,
        privileged,
        capabilities,
        volume_types,
        host_ports,
        host_probes,
        app_armor,
        se_linux,
        proc_mount,
        sysctls,
        privilege_escalation,
        non_root,
        root_user,
        seccomp,
    )
}
