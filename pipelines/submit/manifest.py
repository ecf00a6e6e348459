"""A job as KubeRay runs it: a ConfigMap with the configuration, and a RayJob or a RayCronJob that mounts it.

The head runs the driver and no other work; workers come with the job and go with it. Written against KubeRay 1.6's CRDs, whose
RayCronJob has no concurrencyPolicy: the lock on the output keeps two nights apart.
"""

import json
import math
import posixpath
from dataclasses import dataclass
from typing import Any

import yaml

from levit_batch.errors import ConfigError
from levit_batch.job.config import JobConfig
from levit_batch.job.load import VARIABLE
from pipelines.cluster.session import NODE_GROUPS, local_paths
from pipelines.submit.ship import check_secrets

MOUNT = "/etc/levit-batch"
LOCK_WAIT = 300  # seconds; a claim of a pod that was killed expires after 120
GPU = "nvidia.com/gpu"


@dataclass(frozen=True)
class Kubernetes:
    """What a manifest says beyond the job's configuration. cpus, memory and gpus are those of one worker."""

    name: str
    image: str
    ray_version: str
    namespace: str | None = None
    gpus: int = 0
    cpus: int = 4
    memory: str = "16Gi"
    workers: tuple[int, int] = (0, 4)
    secret: str | None = None
    claim: str | None = None  # a volume claim and where it is mounted: labels-pvc:/mnt/labels
    deadline: int = 12 * 3600
    ttl: int = 3600
    fail_on_drift: bool = False


def ray_job(config: JobConfig, values: dict[str, Any], kube: Kubernetes, nightly: bool = False) -> str:
    """The YAML of a RayJob; `values` is the configuration as YAML has it, `config` the same validated. Raises ConfigError."""
    check(config, values, kube)
    return dump(config_map(values, kube), resource("RayJob", kube, job_spec(config, kube, nightly)))


def ray_cron_job(config: JobConfig, values: dict[str, Any], kube: Kubernetes, cron: str, timezone: str) -> str:
    """The YAML of a RayCronJob that runs the nightly recipe at `cron` (five fields) in `timezone`. Raises ConfigError."""
    check(config, values, kube)
    spec = {"schedule": cron, "timeZone": timezone, "suspend": False, "jobTemplate": job_spec(config, kube, True)}
    return dump(config_map(values, kube), resource("RayCronJob", kube, spec))


def dump(*documents: dict[str, Any]) -> str:
    return yaml.safe_dump_all(documents, sort_keys=False, width=math.inf, allow_unicode=True)


def resource(kind: str, kube: Kubernetes, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "ray.io/v1", "kind": kind, "metadata": metadata(kube.name, kube), "spec": spec}


def metadata(name: str, kube: Kubernetes) -> dict[str, Any]:
    place = {"namespace": kube.namespace} if kube.namespace else {}
    return {
        "name": name,
        **place,
        "labels": {"app.kubernetes.io/name": "levit-batch", "app.kubernetes.io/instance": kube.name},
    }


def config_map(values: dict[str, Any], kube: Kubernetes) -> dict[str, Any]:
    """The configuration, with `${NAME}` left to the secret, for a driver inside the cluster."""
    compute = {"compute": (values.get("compute") or {}) | {"address": "auto"}}
    text = yaml.safe_dump(values | compute, sort_keys=False, width=math.inf, allow_unicode=True)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(f"{kube.name}-config", kube),
        "data": {"job.yaml": text},
    }


def job_spec(config: JobConfig, kube: Kubernetes, nightly: bool) -> dict[str, Any]:
    command = f"levit-batch {'nightly' if nightly else 'run'} {MOUNT}/job.yaml --wait-for-lock {LOCK_WAIT}"
    if nightly and kube.fail_on_drift:
        command += " --fail-on-drift"
    return {
        "entrypoint": command,
        "submissionMode": "K8sJobMode",
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": kube.ttl,
        "activeDeadlineSeconds": kube.deadline,
        "backoffLimit": 1,
        "rayClusterSpec": {
            "rayVersion": kube.ray_version,
            "enableInTreeAutoscaling": True,
            "autoscalerOptions": {"version": "v2", "upscalingMode": "Aggressive", "idleTimeoutSeconds": 120},
            "headGroupSpec": head(config, kube),
            "workerGroupSpecs": [workers(config, kube)],
        },
    }


def head(config: JobConfig, kube: Kubernetes) -> dict[str, Any]:
    """The head: no CPU and no GPU for Ray's work, so that replicas never share it with the driver."""
    groups = json.dumps([[worker_resources(config, kube), kube.workers[1]]])
    container = {
        "name": "ray-head",
        "image": kube.image,
        "ports": [
            {"containerPort": port, "name": name}
            for port, name in ((6379, "gcs"), (8265, "dashboard"), (10001, "client"))
        ],
        "env": [{"name": NODE_GROUPS, "value": groups}],
        "resources": {"requests": {"cpu": "2", "memory": "8Gi"}, "limits": {"cpu": "2", "memory": "8Gi"}},
        **common(kube, [{"name": "config", "mountPath": MOUNT, "readOnly": True}]),
    }
    volume = {"name": "config", "configMap": {"name": f"{kube.name}-config"}}
    spec = {"restartPolicy": "Never", "containers": [container], "volumes": [volume, *claim_volumes(kube)]}
    return {
        "rayStartParams": {"num-cpus": "0", "num-gpus": "0", "dashboard-host": "0.0.0.0"},
        "template": {"spec": spec},
    }


def worker_resources(config: JobConfig, kube: Kubernetes) -> dict[str, int]:
    return {"CPU": kube.cpus} | ({"GPU": kube.gpus} if kube.gpus else {}) | accelerator(config, kube)


def accelerator(config: JobConfig, kube: Kubernetes) -> dict[str, int]:
    kind = config.compute.accelerator_type
    return {f"accelerator_type:{kind}": 1} if kind and kube.gpus else {}


def workers(config: JobConfig, kube: Kubernetes) -> dict[str, Any]:
    least, most = kube.workers
    amounts = {"cpu": str(kube.cpus), "memory": kube.memory} | ({GPU: str(kube.gpus)} if kube.gpus else {})
    container = {
        "name": "ray-worker",
        "image": kube.image,
        "resources": {"requests": amounts, "limits": amounts},
        **common(kube, []),
    }
    spec: dict[str, Any] = {"restartPolicy": "Never", "containers": [container]}
    if kube.claim:
        spec["volumes"] = claim_volumes(kube)
    if kube.gpus:
        spec["tolerations"] = [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}]
    params = {"num-cpus": str(kube.cpus)} | ({"num-gpus": str(kube.gpus)} if kube.gpus else {})
    if kind := accelerator(config, kube):
        params["resources"] = json.dumps(json.dumps(kind))  # quoted twice: it passes through a shell
    return {
        "groupName": "gpu" if kube.gpus else "cpu",
        "replicas": least,
        "minReplicas": least,
        "maxReplicas": most,
        "rayStartParams": params,
        "template": {"spec": spec},
    }


def common(kube: Kubernetes, mounts: list[dict[str, Any]]) -> dict[str, Any]:
    """What head and workers share: the secret's variables, and the volume."""
    if kube.claim:
        mounts = [*mounts, {"name": "data", "mountPath": kube.claim.split(":", 1)[1]}]
    secret: dict[str, Any] = {"envFrom": [{"secretRef": {"name": kube.secret}}]} if kube.secret else {}
    return secret | ({"volumeMounts": mounts} if mounts else {})


def claim_volumes(kube: Kubernetes) -> list[dict[str, Any]]:
    if not kube.claim:
        return []
    return [{"name": "data", "persistentVolumeClaim": {"claimName": kube.claim.split(":", 1)[0]}}]


def check(config: JobConfig, values: dict[str, Any], kube: Kubernetes) -> None:
    """Raises ConfigError for what no pod would find: a path of this machine, a variable that nothing sets."""
    mount = None
    if kube.claim:
        name, _, mount = kube.claim.partition(":")
        if not name or not mount.startswith("/"):
            raise ConfigError(f"--claim {kube.claim}: write it as NAME:/FOLDER")
    checkpoint = [("model.checkpoint", path) for path in [config.model.checkpoint] if path.startswith((".", "/"))]
    for key, path in [*local_paths(config), *checkpoint]:
        inside = mount and posixpath.normpath(path).startswith(posixpath.normpath(mount) + "/")
        if not inside:
            elsewhere = "in an object store, on hf://, or on a volume given with --claim NAME:/FOLDER"
            where = f"below {mount}" if mount else elsewhere
            raise ConfigError(f"{key}: {path} is a local path, which the pods do not have; put it {where}")
    if mount and list(local_paths(config)) and not config.output.shared:
        raise ConfigError("output.shared: say true, since --claim mounts the same volume in every pod")
    check_secrets(values)
    text = yaml.safe_dump(values, width=math.inf)
    missing = [match["name"] for match in VARIABLE.finditer(text) if match["default"] is None]
    if missing and not kube.secret:
        raise ConfigError(
            f"${{{missing[0]}}} in the configuration needs a Kubernetes secret that has it: add --secret NAME"
        )
    if kube.workers[0] > kube.workers[1] or kube.workers[1] < 1:
        raise ConfigError(f"--workers {kube.workers[0]} {kube.workers[1]}: at least one, and the fewest first")
