"""What a finished table says: metrics, drift, a page, exports.

metrics, accuracy, truth    sums over rows, and how good they are
drift, diff, diff_rows      tonight against the nights before; one labelling against another
select, where               rows picked by an expression
new_file                    what a command is told to write, refused where it would replace something
looks, best, naming         rows worth a look, and what names their files to people
near/                       what the stored embeddings tell: the nearest rows, copies, outliers, suspected labels
evaluate, page/             metrics.json, report.html and the card
export/, push               to other tools, and to the Hub
"""

from levit_batch import hands_on

__getattr__, __dir__, __all__ = hands_on(
    __name__,
    {
        "metrics": ["measure"],
        "truth": ["TruthTable"],
    },
)
