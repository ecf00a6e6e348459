"""A checkpoint of one's own: both ways of fine-tuning.

config, data, targets, augment, feed   from a source to batches
stored, probe                          a table's embeddings in place of images; heads alone
student, optimise, batch_norm          the model that learns
trainer, workers, state, curve         epochs, over several processes, killed and resumed
"""

from levit_batch import hands_on

__getattr__, __dir__, __all__ = hands_on(
    __name__,
    {
        "config": ["FinetuneConfig"],
        "feed": ["TrainPlan"],
        "trainer": ["Trainer"],
    },
)
