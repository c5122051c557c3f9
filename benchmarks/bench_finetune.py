"""What tuning pretrained text models is worth, task by task.

`make bench NAME=finetune DATASET=<part> DATA=<folder of the data sets>`, where the part is one of

    intents    27 shop intents by MiniLM and every method: f1_<method>, share_<method> (of the parameters, in percent),
               seconds_<method>, memory_mb_<method>
    finance    sentences of financial news, 6:2:2: f1_finance
    reviews    Chinese shopping reviews, 2,000 to learn from, 5,000 to test: acc_reviews_zh by multilingual-e5-small and
               LoRA, acc_reviews_zh_frozen by a linear model on the untuned vectors, acc_reviews_zh_tfidf without any
    interest   will a shopper whose last three titles are these take this one? One that was taken and four drawn by
               popularity, 1,500 shoppers kept out of training: auc_interest_frozen, _full, _lora, _cross, _best
    content    titles as content vectors, tuned on what was bought next: ndcg@10_content_tuned beside _frozen on the
               usual test, and Recall@10 of items that training never saw: recall@10_cold_tuned, recall@10_cold_frozen

Settings were chosen on validation parts; a test part is measured once. Every tuning runs in a process of its own.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks import tuning_texts, tuning_titles
from endcap.core.errors import CallerError

PARTS = {
    "intents": tuning_texts.intents,
    "finance": tuning_texts.finance,
    "reviews": tuning_texts.reviews,
    "interest": tuning_titles.interest,
    "content": tuning_titles.content,
}


def run(data: Path | None, dataset: str | None, seeds: int) -> dict[str, float]:
    if data is None or not data.is_dir():
        raise CallerError("No folder of data sets was named.", where="DATA", next_step="Add DATA=<folder>.")
    if dataset not in PARTS:
        raise CallerError(
            f"There is no part {dataset!r}.", where="DATASET", next_step=f"Choose one of: {', '.join(PARTS)}."
        )
    return PARTS[dataset](data, seeds)
