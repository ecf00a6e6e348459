"""Where a job's time goes on this machine, how far that is from what the machine can do, and what is pending takes."""

import math
import os
from collections.abc import Callable
from typing import Any

from levit_batch.job.config import JobConfig
from levit_batch.levit.cost import cost
from levit_batch.results.page.formats import plural
from pipelines.bench.gpu import Machine, balance_words, before_model
from pipelines.bench.measure import enough, models, stages, take_sample
from pipelines.bench.peak import memory_speed, peak_macs
from pipelines.cluster.session import uses_gpu
from pipelines.label.prepare import Prepared, prepare
from pipelines.screen.console import console, table

STAGES = ("read", "decode", "resize", "model", "write")


def bench(
    config: JobConfig,
    images: int = 256,
    replicas: int | None = None,
    hours: float | None = None,
    price: float | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Everything measured and estimated, as JSON values. Raises UserError.

    replicas: what the estimate is for (default: one a core here, or one a GPU). hours: how many replicas finish in that time.
    price: of one machine like this one, an hour.
    """
    import torch

    compute = config.compute.model_copy(update={"address": None})  # what is measured is this machine
    prepared = prepare(config, gpu := uses_gpu(compute))
    torch.set_num_threads(1)
    images = enough(prepared, images)
    say(f"reading {plural(images, 'image')}")
    sample = take_sample(prepared, images)
    say("measuring the stages")
    spent = stages(prepared, sample)
    compared = models(prepared, sample, say)
    gpus = torch.cuda.device_count()
    machine = Machine.of(compute, os.cpu_count() or 1, gpus) if gpu else None
    here = machine.replicas if machine else os.cpu_count() or 1
    if machine:  # the stages run one beside the other
        spent["whole"] = 1000 * here / machine.rate(spent)
    limit = machine_limit(prepared, spent, here, machine)
    return {
        "rows": sample.rows,
        "bytes_per_image": sum(map(len, sample.images)) / sample.rows,
        "machine": {"cpus": os.cpu_count(), "gpus": gpus, "replicas": here},
        "backend": {
            "name": prepared.runnable.name,
            "dtype": prepared.dtype,
            "batch": prepared.runnable.runtime.batch,
        },
        "milliseconds": spent,
        "bottleneck": max(STAGES, key=lambda stage: spent[stage]),
        "models": compared,
        "limit": limit,
        "disturbed": disturbed(spent, limit, machine is not None),
        "balance": machine.balance(spent, memory_speed()) if machine else None,
        "estimate": estimate(prepared, 1000 / spent["whole"], replicas or here, here, hours, price),
    }


def machine_limit(
    prepared: Prepared, spent: dict[str, float], here: int, machine: Machine | None
) -> dict[str, float]:
    """What the machine would reach if the model ran at its matrix peak and the other stages as measured."""
    macs = cost(prepared.checkpoint.config, heads=1).macs  # two heads are folded into one
    peak = peak_macs(prepared.dtype, machine is not None)
    floor = 1000 * macs / peak
    one_replica = 1000 / (before_model(spent) + floor + spent["write"])
    most = machine.rate(spent | {"model": floor}) if machine else here * one_replica
    return {
        "peak_gmacs_per_second": peak / 1e9,
        "model_gmacs": macs / 1e9,
        "model_share_of_peak": floor / spent["model"],
        "images_per_second": most,
        "reached": 1000 * here / spent["whole"] / most,
    }


def disturbed(spent: dict[str, float], limit: dict[str, float], gpu: bool) -> bool:
    """Whether the figures contradict each other, as where the machine had other work during some of them.

    Beside a GPU the stages run at the same time on several CPUs: there one may take longer than all.
    """
    longer = not gpu and any(spent[stage] > spent["whole"] for stage in STAGES)
    return longer or max(limit["reached"], limit["model_share_of_peak"]) > 1.005


def estimate(
    prepared: Prepared, rate: float, replicas: int, here: int, hours: float | None, price: float | None
) -> dict[str, Any]:
    """Time and cost of what is pending, for replicas that each label `rate` images a second.

    None where only reading counts its rows.
    """
    plan = prepared.plan()
    uncounted = sum(chunk.stop is None for chunk in plan.pending)
    pending = None if uncounted else plan.rows - plan.done_rows
    took = pending and pending / rate
    machines = math.ceil(replicas / here)
    return {
        "images_per_second_per_replica": rate,
        "rows": plan.rows,
        "pending": pending,
        "uncounted_shards": uncounted,
        "replicas": replicas,
        "images_per_second": rate * replicas,
        "seconds": None if took is None else took / replicas,
        "replicas_for_hours": math.ceil(took / (hours * 3600)) if hours and took else None,
        "hours": hours,
        "price_per_hour": price,
        "cost": None if price is None or took is None else took / replicas / 3600 * machines * price,
    }


def print_bench(measured: dict[str, Any]) -> None:
    """The same for a reader at a terminal."""
    out = console()
    spent = measured["milliseconds"]
    rows = [(stage, f"{spent[stage]:.2f}", f"{_rate(spent[stage])}", _share(spent, stage)) for stage in STAGES]
    rows.append(("all", f"{spent['whole']:.2f}", _rate(spent["whole"]), ""))
    used = measured["backend"]
    way = f"{used['name']}, {used['dtype']}, batch {used['batch']}"
    title = f"One replica ({way}) on {measured['rows']} of the job's images"
    out.print(table(title, ("stage", "ms/image", "images/s", "share"), rows, (1, 2, 3)))
    out.print()
    cells = [(m["backend"], m["dtype"], str(m["batch"]), _model(m)) for m in measured["models"]]
    out.print(table("The model alone, one replica", ("backend", "dtype", "batch", "images/s"), cells, (2, 3)))
    out.print()
    for line in words(measured):
        out.print(line)


def words(measured: dict[str, Any]) -> list[str]:
    """The conclusions, one line each."""
    limit = measured["limit"]
    lines = [f"bottleneck  {measured['bottleneck']}"]
    if measured["disturbed"]:
        lines.append(
            "limit       these figures contradict each other: the machine was busy with something else meanwhile; do not rely on "
            "them, run bench again when it is not"
        )
    else:
        lines.append(
            f"limit       {limit['images_per_second']:.0f} images/s on this machine, were the model at the peak of "
            f"{limit['peak_gmacs_per_second']:.0f} GMAC/s a core or GPU; the model is at {limit['model_share_of_peak']:.0%} of "
            f"it, the job at {limit['reached']:.0%} of the limit"
        )
    if held := measured["balance"]:
        lines.append(f"balance     {balance_words(held)}")
    return lines + plan_words(measured["estimate"])


def plan_words(plan: dict[str, Any]) -> list[str]:
    """What is pending takes so long, and costs so much."""
    if plan["pending"] == 0:
        return [f"estimate    nothing is pending: {plural(plan['rows'], 'row')} done"]
    speed = f"with {plural(plan['replicas'], 'replica')} ({plan['images_per_second']:.0f} images/s)"
    if plan["pending"] is None:
        shards = plural(plan["uncounted_shards"], "shard")
        return [f"estimate    rows unknown, {shards} pending (rows are counted when they are read) {speed}"]
    lines = [f"estimate    {plan['pending']:,} of {plural(plan['rows'], 'row')} pending: {_time(plan['seconds'])} {speed}"]
    if plan["replicas_for_hours"] is not None:
        lines.append(f"replicas    {plural(plan['replicas_for_hours'], 'replica')} for {plan['hours']:g} h")
    if plan["cost"] is not None:
        lines.append(f"cost        {plan['cost']:,.2f} at {plan['price_per_hour']:g} an hour for a machine like this")
    return lines


def _rate(milliseconds: float) -> str:
    return f"{1000 / milliseconds:,.0f}" if milliseconds else "-"


def _share(spent: dict[str, float], stage: str) -> str:
    return f"{spent[stage] / sum(spent[name] for name in STAGES):.0%}"


def _model(one: dict[str, Any]) -> str:
    return f"{one['images_per_second']:.0f}" if one["error"] is None else "wrong results"


def _time(seconds: float) -> str:
    hours, minutes = divmod(math.ceil(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if seconds >= 60 else f"{seconds:.0f} s"
