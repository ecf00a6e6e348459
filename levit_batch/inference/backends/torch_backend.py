"""torch itself: always there, on every device and in every dtype."""

import copy

from torch import nn

from levit_batch.inference.backends.choose import Backend, Exported, Target
from levit_batch.inference.backends.device import DeviceModel

PACKAGE, EXTRA = "torch", ""


def refuses(target: Target) -> str | None:
    return None


def export(folded: nn.Module, target: Target) -> Exported | None:
    return None


def load(exported: Exported | None, folded: nn.Module, target: Target) -> Backend:
    # A copy: what comes out of Ray's shared memory is read-only, and stays the float32 reference.
    return DeviceModel(copy.deepcopy(folded), target)
