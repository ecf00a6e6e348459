"""Batch norm over two real worker processes equals batch norm over the whole batch in one."""

import os
import socket
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing, nn

from levit_batch.levit.model import LevitForImageClassification
from levit_batch.training.batch_norm import set_training, sync_batch_norm
from levit_batch.training.workers import Workers
from tests.support.models import TINY


def data(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 3 + 50  # a mean far from zero loses digits


def norms() -> nn.ModuleDict:
    torch.manual_seed(0)
    made = nn.ModuleDict({"points": nn.BatchNorm1d(5), "images": nn.BatchNorm2d(5)})
    for norm in made.values():
        nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    return made


INPUTS = {"points": (24, 5), "images": (8, 5, 3, 3)}


def outcome(made: nn.ModuleDict, rank: int, count: int) -> dict[str, torch.Tensor]:
    """Outputs, input gradients, parameter gradients and running statistics, for this worker's part of the batch."""
    found = {}
    for name, norm in made.items():
        values = data(INPUTS[name]).chunk(count)[rank].clone().requires_grad_()
        out = norm(values)
        (out.sigmoid() * values.detach().cos()).sum().backward()
        found |= {f"{name}.out": out.detach(), f"{name}.gradient": values.grad}
        found |= {f"{name}.weight": norm.weight.grad, f"{name}.bias": norm.bias.grad}
        found |= {f"{name}.mean": norm.running_mean.clone(), f"{name}.var": norm.running_var.clone()}
    return found


def worker(rank: int, port: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    made = norms()
    sync_batch_norm(made)
    found = outcome(made, rank, 2)
    found["all"] = [Workers.current().all(True), Workers.current().all(rank == 0)]
    found["gathered"] = Workers.current().gather(f"worker {rank}")
    found["averaged"] = Workers.current().sum(torch.full((5,), float(rank))) / 2
    torch.save(found, Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture(scope="module")
def workers(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("workers")
    multiprocessing.spawn(worker, (free_port(), str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("name", list(INPUTS))
def test_two_workers_compute_what_one_does(workers, name):
    alone = outcome(norms().train(), 0, 1)
    for key in ("out", "gradient"):
        together = torch.cat([part[f"{name}.{key}"] for part in workers])
        torch.testing.assert_close(together, alone[f"{name}.{key}"], rtol=1e-4, atol=1e-5)
    for key in ("weight", "bias"):  # each worker has its part of the sum; torch.distributed adds them in training
        total = workers[0][f"{name}.{key}"] + workers[1][f"{name}.{key}"]
        torch.testing.assert_close(total, alone[f"{name}.{key}"], rtol=1e-4, atol=1e-4)
    for key in ("mean", "var"):
        assert torch.equal(workers[0][f"{name}.{key}"], workers[1][f"{name}.{key}"])
        torch.testing.assert_close(workers[0][f"{name}.{key}"], alone[f"{name}.{key}"], rtol=1e-5, atol=1e-5)


def test_workers_tell_each_other(workers):
    assert all(part["all"] == [True, False] for part in workers)
    assert all(part["gathered"] == ["worker 0", "worker 1"] for part in workers)
    assert all(torch.equal(part["averaged"], torch.full((5,), 0.5)) for part in workers)


def test_alone_and_in_eval_it_is_plain_batch_norm():
    one, other = norms(), norms()
    sync_batch_norm(other)
    assert one.state_dict().keys() == other.state_dict().keys()
    for mode in (True, False):
        one.train(mode), other.train(mode)
        for name, shape in INPUTS.items():
            torch.testing.assert_close(one[name](data(shape)), other[name](data(shape)))


@pytest.mark.parametrize(("backbone", "statistics"), [(False, False), (True, False), (False, True), (True, True)])
def test_what_is_frozen_is_in_eval_mode(backbone, statistics):
    model = LevitForImageClassification(TINY)
    set_training(model, backbone, statistics)
    head, trunk = model.classifier.batch_norm, model.levit.patch_embeddings.embedding_layer_1.batch_norm
    assert head.training == (not statistics) and trunk.training == (not backbone and not statistics)
    assert model.classifier.training and model.levit.encoder.training == (not backbone)
