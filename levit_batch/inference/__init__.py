"""The model in its fast form: folded, exported, checked against float32, asked for predictions.

fold, fast_linear           batch norms folded, heads merged
runnable, backends/         what travels to a replica, and what runs it: torch, OpenVINO, ONNX Runtime
check, cache                is it right, and need it be exported again
predict                     pixels in; embeddings, logits and answers out
score                       stored embeddings in; answers out
"""

from levit_batch import hands_on

__getattr__, __dir__, __all__ = hands_on(
    __name__,
    {
        "fold": ["FoldedLevit"],
        "predict": ["Predictor"],
        "runnable": ["Runnable"],
    },
)
