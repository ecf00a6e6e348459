"""What the models return: as in transformers, a mapping that is an object and, by number, a tuple.

Shapes: B images, N points of the last stage's grid, D its width, K classes.
"""

from collections import OrderedDict
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NoReturn

from torch import Tensor
from torch.utils import _pytree as pytree


class ModelOutput(OrderedDict):
    """Base of the three: fields as attributes, by name, by number and by slice.

    A field that is None is an attribute alone: it is no key, and numbers do not count it.
    """

    def __init_subclass__(cls) -> None:
        """`torch.export` and DistributedDataParallel look for tensors in what they know."""
        pytree.register_pytree_node(
            cls, lambda out: (list(out.values()), list(out)), lambda values, names: cls(**dict(zip(names, values, strict=True)))
        )

    def __getitem__(self, key: str | int | slice) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if value is not None and name in {field.name for field in fields(self)}:
            super().__setitem__(name, value)

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        super().__setattr__(name, value)

    def _refused(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(f"the keys of a {type(self).__name__} are its fields; make a dict of it to take some away")

    __delitem__ = pop = popitem = setdefault = update = clear = _refused

    def to_tuple(self) -> tuple:
        """The fields that are not None, in order."""
        return tuple(self.values())


@dataclass(eq=False)
class BackboneOutput(ModelOutput):
    """What `LevitModel` returns."""

    last_hidden_state: Tensor | None = None  # [B, N, D]
    pooler_output: Tensor | None = None  # [B, D]: the embedding
    hidden_states: tuple[Tensor, ...] | None = None  # the stem's output, then each stage's: [B, N, C] of that stage


@dataclass(eq=False)
class ClassifierOutput(ModelOutput):
    """What `LevitForImageClassification` returns. `pooler_output`, which transformers has not, is an attribute alone."""

    pooler_output: ClassVar[Tensor | None] = None  # [B, D]: the embedding
    loss: Tensor | None = None  # scalar, when labels were given
    logits: Tensor | None = None  # [B, K]
    hidden_states: tuple[Tensor, ...] | None = None


@dataclass(eq=False)
class TeacherOutput(ModelOutput):
    """What `LevitForImageClassificationWithTeacher` returns; transformers' has no loss, and no `pooler_output`."""

    pooler_output: ClassVar[Tensor | None] = None  # [B, D]: the embedding
    loss: Tensor | None = None  # scalar, when labels and teacher_labels were given
    logits: Tensor | None = None  # [B, K]: the mean of the two below
    cls_logits: Tensor | None = None  # [B, K]
    distillation_logits: Tensor | None = None  # [B, K]
    hidden_states: tuple[Tensor, ...] | None = None
