"""What tests of several rooms share."""

import pytest


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory):
    """A Hugging Face folder of a BERT of two layers, that knows the words it is given, each as one token."""

    def make(words, name="base", **changed):
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
        from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, set_seed

        specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        known = {word: place for place, word in enumerate([*specials, ";", *dict.fromkeys(words)])}
        vocabulary = Tokenizer(models.WordLevel(known, unk_token="[UNK]"))
        vocabulary.normalizer = normalizers.Lowercase()
        vocabulary.pre_tokenizer = pre_tokenizers.Whitespace()
        vocabulary.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
        named = {"unk": 1, "pad": 0, "cls": 2, "sep": 3, "mask": 4}
        tokeniser = PreTrainedTokenizerFast(
            tokenizer_object=vocabulary,
            model_input_names=["input_ids", "token_type_ids", "attention_mask"],
            **{f"{kind}_token": specials[place] for kind, place in named.items()},
        )
        set_seed(0)
        shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        sizes = {**shape, "max_position_embeddings": 64, "initializer_range": 0.3, **changed}
        folder = tmp_path_factory.mktemp("tiny") / name
        BertModel(BertConfig(vocab_size=len(known), **sizes)).save_pretrained(folder)
        tokeniser.save_pretrained(folder)
        return folder

    return make
