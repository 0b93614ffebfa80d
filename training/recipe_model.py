"""The model sections of a recipe: model, prompt, pretrain, finetune, evaluate, bundle.

Frozen types with their defaults and the rules that one section can check by itself. Knows neither files nor TOML.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from training.recipe_data import Section, Strings

Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(min_length=1)]


SMALL_LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "tie_word_embeddings": False,
}
"""A model that one CPU trains in minutes, for recipes that name none."""


class Model(Section):
    """The language model that items become tokens of.

    Attributes:
        architecture: `causal` for decoder-only models (Llama, Qwen, SmolLM), `seq2seq` for T5.
        checkpoint: A local directory or hub id to start from.
        config: Or a model from scratch: `model_type` and any key of its Hugging Face config.
    """

    architecture: Literal["causal", "seq2seq"] = "causal"
    checkpoint: Name | None = None
    config: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.checkpoint is None) == (self.config is None):
            raise ValueError("give either checkpoint or a table [model.config], not both and not neither")
        if self.config is not None and not isinstance(self.config.get("model_type"), str):
            raise ValueError('[model.config] needs model_type, such as "llama", "qwen3" or "t5"')
        return self


class PromptText(Section):
    """How a history is put before the model: prefix + items joined by separator + suffix, as tokens of its tokenizer.

    Attributes:
        prefix: Tokens before the first item.
        separator: Tokens between items.
        suffix: Tokens after the last item.
        max_history_items: The newest that many items are kept.
    """

    prefix: Strings = ()
    separator: Strings = ()
    suffix: Strings = ()
    max_history_items: Count = 20


class Fitting(Section):
    """How weights are fitted; shared by pretrain and finetune.

    Attributes:
        examples: `window`: consecutive items with a loss on each of them (causal models only). `last`: a history and
            the item that followed, sliding over the sequence.
        reorder_ties: Interactions of one user at one time, which have no order, are put in another one every epoch;
            for `window` only.
        mask_share: So many of the items in the input are hidden while training; labels stay. Against overfitting.
        early_stopping_patience: Stop when validation has not improved for so many evaluations.
        validation_users: Validation loss, which chooses the weights, is measured on at most so many users.
        recall_users: Recall@10 while training, which takes a search, on at most so many.
        training_arguments: Any field of Hugging Face's TrainingArguments.
    """

    examples: Literal["window", "last"] = "last"
    reorder_ties: bool = False
    mask_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    early_stopping_patience: Count = 10
    validation_users: Count = 1_000
    recall_users: Count = 100
    training_arguments: dict[str, Any] = Field(default_factory=dict)


class Pretrain(Fitting):
    """All parameters, to give a model from scratch the good starting point that LoRA needs."""


def _split_names(value: object) -> object:
    """``"q,v"`` means two modules; a regular expression may hold a comma only inside braces or brackets."""
    if isinstance(value, str) and "," in value and not set(value) & set("[]{}()|\\"):
        return [part.strip() for part in value.split(",")]
    return value


class Lora(Section):
    """LoRA as PEFT takes it.

    Attributes:
        r: Rank of the two matrices.
        lora_alpha: Their product is scaled by lora_alpha / r.
        lora_dropout: Dropout before the first matrix.
        target_modules: One name, names separated by commas, a list, a regular expression matched against whole module
            names, `all-linear`, or `default` for what PEFT knows of the family (T5: q and v).
        modules_to_save: Further modules that are trained whole.
        train_item_tokens: Whether the rows of item tokens are trained; without it new tokens stay as they began.
    """

    r: Count = 16
    lora_alpha: Count = 32
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: Annotated[str | Annotated[tuple[str, ...], Field(strict=False)], BeforeValidator(_split_names)] = (
        "all-linear"
    )
    modules_to_save: Strings = ()
    train_item_tokens: bool = True


class Finetune(Fitting):
    """From the base model to one that recommends.

    Attributes:
        method: `lora`, or `full` for all parameters.
        lora: Settings of LoRA.
    """

    method: Literal["lora", "full"] = "lora"
    lora: Lora = Lora()


class Merge(Section):
    """Which adapter becomes part of the model.

    Attributes:
        checkpoint: `best` on validation, or the name of a kept checkpoint such as ``checkpoint-120``.
    """

    checkpoint: Annotated[str, Field(pattern=r"^(best|checkpoint-\d+)$")] = "best"


class Evaluate(Section):
    """Measuring the draft bundle, on validation and test users.

    Attributes:
        cutoffs: The k of Recall@k and NDCG@k.
        num_users: At most so many users a split, drawn by the seed; none for all.
        batch_size: Users a search.
        bootstrap_samples: Of the 95 % intervals.
    """

    cutoffs: Annotated[tuple[Count, ...], Field(strict=False, min_length=1)] = (5, 10)
    num_users: Count | None = None
    batch_size: Count = 32
    bootstrap_samples: Count = 1_000


class BundleFacts(Section):
    """Defaults that the bundle carries, and what it is called.

    Attributes:
        num_beams: Width of the search where a request does not say.
        length_penalty: A score is divided by L ** length_penalty.
        max_k: The most items that a request may ask for.
        exclude_history: Whether items of the history are left out where a request does not say.
        golden_requests: How many golden answers prove the bundle.
        dtype: Of the stored weights.
    """

    num_beams: Count = 20
    length_penalty: Annotated[float, Field(ge=0, le=8)] = 1.0
    max_k: Count = 100
    exclude_history: bool = True
    golden_requests: Count = 16
    dtype: Literal["float32", "bfloat16"] = "float32"
