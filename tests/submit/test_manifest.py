"""The KubeRay manifests: complete, consistent in themselves, and only fields that KubeRay's CRDs have."""

import json
import re

import pytest
import yaml

from levit_batch.job.config import JobConfig
from levit_batch.job.load import load_config
from pipelines.cli import main, parser
from pipelines.cluster.session import NODE_GROUPS, capacity
from pipelines.cluster.sizing import Capacity

CLOUD = ["--set=source.path=hf://datasets/me/images", "--set=output.path=s3://labels/out",
         "--set=model.checkpoint=facebook/levit-128S", "--image=ghcr.io/me/levit-batch:1"]  # fmt: skip
GPU = ["--gpus=2", "--cpus=16", "--memory=64Gi", "--workers", "0", "3", "--set=compute.accelerator_type=A100"]
CRON = ["--kind=raycronjob", "--cron", "0 2 * * *", "--timezone", "Europe/Berlin"]

DNS = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
QUANTITY = re.compile(r"\d+(\.\d+)?(m|Ki|Mi|Gi|Ti)?")
# What KubeRay 1.6's CRDs call the fields that we use; Kubernetes drops others without a word.
FIELDS = {
    "RayCronJob": {"schedule": str, "timeZone": str, "suspend": bool, "jobTemplate": dict},
    "RayJob": {
        "entrypoint": str, "submissionMode": str, "shutdownAfterJobFinishes": bool, "ttlSecondsAfterFinished": int,
        "activeDeadlineSeconds": int, "backoffLimit": int, "rayClusterSpec": dict,
    },
    "rayClusterSpec": {
        "rayVersion": str, "enableInTreeAutoscaling": bool, "autoscalerOptions": dict, "headGroupSpec": dict,
        "workerGroupSpecs": list,
    },
    "headGroupSpec": {"rayStartParams": dict, "template": dict},
    "worker": {
        "groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int, "rayStartParams": dict, "template": dict,
    },
    "pod": {"restartPolicy": str, "containers": list, "volumes": list, "tolerations": list},
    "container": {
        "name": str, "image": str, "ports": list, "env": list, "envFrom": list, "resources": dict, "volumeMounts": list,
    },
}  # fmt: skip


def documents(capsys, *arguments: str) -> list[dict]:
    assert main(["manifest", "configs/nightly.yaml", *CLOUD, *arguments]) == 0
    return list(yaml.safe_load_all(capsys.readouterr().out))


def assert_fields(found: dict, kind: str) -> None:
    for key, value in found.items():
        assert key in FIELDS[kind], f"{kind} has no {key}"
        assert type(value) is FIELDS[kind][key], (kind, key, value)


def assert_sound(config_map: dict, resource: dict) -> dict:
    """Everything Kubernetes and KubeRay would refuse or drop, as far as it can be told without them; the RayJob's spec."""
    for document in (config_map, resource):
        assert DNS.fullmatch(document["metadata"]["name"]) and len(document["metadata"]["name"]) <= 63
    assert resource["apiVersion"] == "ray.io/v1"
    spec = resource["spec"]
    assert_fields(spec, resource["kind"])
    if resource["kind"] == "RayCronJob":
        spec = spec["jobTemplate"]
        assert_fields(spec, "RayJob")
    cluster = spec["rayClusterSpec"]
    assert_fields(cluster, "rayClusterSpec")
    assert_fields(cluster["headGroupSpec"], "headGroupSpec")
    assert_pod(cluster["headGroupSpec"], config_map)
    for group in cluster["workerGroupSpecs"]:
        assert_fields(group, "worker")
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        assert_pod(group, config_map)
    return spec


def assert_pod(group: dict, config_map: dict) -> None:
    assert all(type(value) is str for value in group["rayStartParams"].values())
    pod = group["template"]["spec"]
    assert_fields(pod, "pod")
    volumes = {volume["name"] for volume in pod.get("volumes", [])}
    for volume in pod.get("volumes", []):
        if "configMap" in volume:
            assert volume["configMap"]["name"] == config_map["metadata"]["name"]
    for container in pod["containers"]:
        assert_fields(container, "container")
        assert DNS.fullmatch(container["name"])
        assert {mount["name"] for mount in container.get("volumeMounts", [])} == volumes
        assert all(type(item["value"]) is str for item in container.get("env", []))
        for amounts in container["resources"].values():
            assert all(type(amount) is str and QUANTITY.fullmatch(amount) for amount in amounts.values())


@pytest.mark.parametrize("gpu", [[], GPU])
@pytest.mark.parametrize("more", [[], ["--secret=tokens"], ["--claim=labels-pvc:/mnt/labels", "--namespace=batch"]])
@pytest.mark.parametrize("kind", [[], CRON])
def test_every_manifest_is_sound(capsys, gpu, more, kind):
    config_map, resource = documents(capsys, *gpu, *more, *kind)
    spec = assert_sound(config_map, resource)
    assert spec["shutdownAfterJobFinishes"] and spec["activeDeadlineSeconds"] == 43_200


def test_cron_job_runs_the_nightly_command_that_this_program_takes(capsys):
    config_map, resource = documents(capsys, *CRON, "--fail-on-drift")
    assert (resource["spec"]["schedule"], resource["spec"]["timeZone"]) == ("0 2 * * *", "Europe/Berlin")
    words = resource["spec"]["jobTemplate"]["entrypoint"].split()
    arguments = parser().parse_args(words[1:])
    assert (words[:2], arguments.fail_on_drift, arguments.wait_for_lock) == (["levit-batch", "nightly"], True, 300)
    head = resource["spec"]["jobTemplate"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    mount = next(item["mountPath"] for item in head["volumeMounts"] if item["name"] == "config")
    assert arguments.config == f"{mount}/{next(iter(config_map['data']))}"


def test_configuration_in_the_map_is_the_job_and_holds_no_value_of_the_environment(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("LEVIT_BATCH_WEBHOOK", "https://hooks.example/swordfish")
    (config_map, _) = documents(capsys, "--secret=tokens")
    text = config_map["data"]["job.yaml"]
    assert "swordfish" not in text and "${LEVIT_BATCH_WEBHOOK:-}" in text
    (tmp_path / "job.yaml").write_text(text)
    config = load_config(str(tmp_path / "job.yaml"), schema=JobConfig)
    assert (config.compute.address, config.output.path) == ("auto", "s3://labels/out")
    assert config.notify.on == ["failure", "drift"]


def test_head_does_no_work_and_gpu_workers_scale(capsys):
    spec = assert_sound(*documents(capsys, *GPU, "--secret=tokens"))
    cluster = spec["rayClusterSpec"]
    head, (group,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert head["rayStartParams"]["num-cpus"] == head["rayStartParams"]["num-gpus"] == "0"
    assert "nvidia.com/gpu" not in json.dumps(head)
    worker = group["template"]["spec"]["containers"][0]
    assert worker["resources"]["limits"] == {"cpu": "16", "memory": "64Gi", "nvidia.com/gpu": "2"}
    assert worker["envFrom"] == [{"secretRef": {"name": "tokens"}}]
    assert (group["minReplicas"], group["maxReplicas"], cluster["enableInTreeAutoscaling"]) == (0, 3, True)
    assert json.loads(json.loads(group["rayStartParams"]["resources"])) == {"accelerator_type:A100": 1}


def test_driver_in_the_head_knows_what_the_autoscaler_can_start(capsys, monkeypatch):
    spec = assert_sound(*documents(capsys, *GPU))
    (env,) = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["env"]
    monkeypatch.setenv(env["name"], env["value"])
    monkeypatch.setattr("ray.nodes", lambda: [])  # no cluster here: only what the variable says counts
    found: Capacity = capacity()
    assert env["name"] == NODE_GROUPS and found.grows
    assert str(found) == "up to 3 nodes, 48 CPUs, 6 GPUs (A100)"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set=output.path=out/here"], "output.path: out/here is a local path"),
        (["--set=model.checkpoint=./weights"], "model.checkpoint: ./weights is a local path"),
        (["--set=output.path=/mnt/x/out", "--claim=c:/mnt/x"], "output.shared: say true"),
        (["--set=output.path=/mnt/y/out", "--claim=c:/mnt/x"], "put it below /mnt/x"),
        (["--claim=c"], "write it as NAME:/FOLDER"),
        (["--set=source.root=s3://${LB_TEST_BUCKET}/x"], "add --secret NAME"),
        (["--set=notify.webhook=https://hooks/x"], "notify.webhook: it holds a secret"),
        (["--set=source.path=s3://key:word@b/x"], "source.path: it holds a secret"),
        (["--workers", "3", "1"], "the fewest first"),
        (["--kind=raycronjob"], "--cron: a raycronjob needs one"),
        (["--kind=raycronjob", "--cron", "0 25 * * *"], "25 is not an hour"),
        (["--kind=raycronjob", "--cron", "0 2 */2 * mon"], "this scheduler those that are right in one of them"),
    ],
)
def test_what_no_pod_would_find_is_refused(capsys, monkeypatch, arguments, said):
    monkeypatch.setenv("LB_TEST_BUCKET", "x")
    assert main(["manifest", "configs/nightly.yaml", *CLOUD, *arguments]) == 2
    assert said in capsys.readouterr().err
