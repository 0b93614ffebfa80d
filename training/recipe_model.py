"""The model sections of a recipe: model, prompt, pretrain, finetune, evaluate, bundle, base.

Frozen types with their defaults and the rules that one section can check by itself. Knows neither files nor TOML.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from training.recipe_data import Section, Strings
from training.recipe_tasks import Tasks

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


TASK_TYPES: dict[str, Literal["CAUSAL_LM", "SEQ_2_SEQ_LM"]] = {"causal": "CAUSAL_LM", "seq2seq": "SEQ_2_SEQ_LM"}
"""Architecture -> what PEFT calls the kind of model."""


class Model(Section):
    """The language model that items become tokens of.

    Attributes:
        architecture: `causal` for decoder-only models (Llama, Qwen, SmolLM), `seq2seq` for T5.
        checkpoint: A local directory or hub id to start from, or a file of llama.cpp that ends in `.gguf`.
        plugin: Read the checkpoint, a T5 say, as the family of this installed plug-in, such as `rect5`; what that adds
            begins as it says. A checkpoint of the plug-in's own needs no such key.
        config: Or a model from scratch: `model_type` and any key of its Hugging Face config. Beside `plugin`, the keys
            that the plug-in adds.
        semantic_start: Item tokens begin at the mean of the vectors of their items, which then spread by this standard
            deviation; not given, at random.
    """

    architecture: Literal["causal", "seq2seq"] = "causal"
    checkpoint: Name | None = None
    plugin: Name | None = None
    config: dict[str, Any] | None = None
    semantic_start: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if self.plugin is not None:
            if self.checkpoint is None or self.gguf_file is not None:
                raise ValueError("plugin reads a checkpoint of another family; [model.config] names its by model_type")
            return self
        if (self.checkpoint is None) == (self.config is None):
            raise ValueError("give either checkpoint or a table [model.config], not both and not neither")
        if self.config is not None and not isinstance(self.config.get("model_type"), str):
            raise ValueError('[model.config] needs model_type, such as "llama", "qwen3" or "t5"')
        if self.gguf_file is not None and self.architecture != "causal":
            raise ValueError('a checkpoint that is a .gguf file needs architecture = "causal"')
        return self

    @property
    def gguf_file(self) -> Path | None:
        """The checkpoint, if it is a GGUF file."""
        return Path(self.checkpoint) if self.checkpoint and self.checkpoint.endswith(".gguf") else None


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
        dropout: So much of each layer's contribution is dropped while training, for causal models, whose families have
            none of their own (T5 has `dropout_rate` in its config). Against overfitting.
        pad_to_multiple_of: Batches are padded to a multiple of so many tokens: fewer shapes, as `torch_compile` likes.
        early_stopping_on: `loss`: validation loss chooses the weights and says when to stop. `recall`: Recall@10 of the
            validation users, by constrained generation, does.
        early_stopping_patience: Stop when validation has not improved for so many evaluations.
        average_checkpoints: Up to so many of the best checkpoints are kept, and their weights averaged at the end, each
            as long as validation gets better by it. 1: the best one is taken as it is.
        validation_users: Validation loss, which chooses the weights, is measured on at most so many users; at the end
            Recall@10 too.
        recall_users: Recall@10 while training, which takes a search, on at most so many.
        stop_at_epoch: Stop there, with the weights of that moment: nothing is validated. The learning rate follows
            `num_train_epochs` all the same. `--refit` sets it to the best epoch of the measured run.
        tensorboard: Write event files for TensorBoard into `tensorboard/` of the work directory.
        tasks: Several tasks in place of the next item alone, for a model that can read text, if given.
        training_arguments: Any field of Hugging Face's TrainingArguments.
    """

    examples: Literal["window", "last"] = "last"
    reorder_ties: bool = False
    mask_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    pad_to_multiple_of: Count = 1
    early_stopping_on: Literal["loss", "recall"] = "loss"
    early_stopping_patience: Count = 10
    average_checkpoints: Count = 1
    validation_users: Count = 1_000
    recall_users: Count = 100
    stop_at_epoch: Annotated[float, Field(gt=0)] | None = None
    tensorboard: bool = False
    tasks: Tasks | None = None
    training_arguments: dict[str, Any] = Field(default_factory=dict)

    def decisive(self) -> dict[str, Any]:
        """What decides the weights: all but where the run may be watched."""
        return self.model_dump(mode="json", exclude={"tensorboard"})


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
        task_type: What PEFT calls the kind of model. It follows from `model.architecture`; where it is named it must
            agree.
        r: Rank of the two matrices.
        lora_alpha: Their product is scaled by lora_alpha / r.
        lora_dropout: Dropout before the first matrix.
        target_modules: One name, names separated by commas, a list, a regular expression matched against whole module
            names, `all-linear`, or `default` for what PEFT knows of the family (T5: q and v).
        modules_to_save: Further modules that are trained whole.
        use_rslora: Scale by lora_alpha / √r instead, so that a large r still learns.
        use_dora: Decompose each weight into length and direction, and train the lengths too (DoRA). Slower.
        train_item_tokens: Whether the rows of item tokens are trained; without it new tokens stay as they began.
    """

    task_type: Literal["CAUSAL_LM", "SEQ_2_SEQ_LM"] | None = None
    r: Count = 16
    lora_alpha: Count = 32
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: Annotated[str | Annotated[tuple[str, ...], Field(strict=False)], BeforeValidator(_split_names)] = (
        "all-linear"
    )
    modules_to_save: Strings = ()
    use_rslora: bool = False
    use_dora: bool = False
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


CUTOFFS = (1, 5, 10, 20)


class SasRec(Section):
    """A SASRec with full cross-entropy, trained on the same split as a further baseline; no part of the bundle.

    Attributes:
        dimensions: Of item embeddings and hidden states.
        layers: Transformer blocks.
        heads: Attention heads of a block.
        dropout: Everywhere in it.
        max_history_items: The newest that many items are read.
        batch_size: Windows a step.
        learning_rate: Of Adam.
        epochs: At most.
        patience: Stop when NDCG@10 on validation has not grown for so many epochs.
        full_softmax_items: Up to so many items each step scores the whole catalog; above, a sample of it, which the
            report says.
        negatives: Size of that sample.
    """

    dimensions: Count = 64
    layers: Count = 2
    heads: Count = 2
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    max_history_items: Count = 50
    batch_size: Count = 32
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    epochs: Count = 200
    patience: Count = 20
    full_softmax_items: Count = 50_000
    negatives: Count = 8_192

    @model_validator(mode="after")
    def _heads_divide_dimensions(self) -> Self:
        if self.dimensions % self.heads:
            raise ValueError(f"sasrec.dimensions = {self.dimensions} is not a multiple of heads = {self.heads}")
        return self


class Evaluate(Section):
    """Measuring the draft bundle, on validation and test users.

    Attributes:
        cutoffs: The k of Recall@k, NDCG@k and MRR@k.
        num_users: At most so many users a split, drawn by `evaluate.seed`; the report says when not all were asked.
        likelihood_users: Accuracy and log-likelihood of each level are measured on at most so many.
        examples: How many validation users the report shows with what they were recommended.
        seed: Of the users drawn and of the bootstrap, apart from the recipe's own: runs that differ by that seed are
            measured on the same users.
        batch_size: Users a search.
        bootstrap_samples: Of the 95 % intervals.
        sasrec: A SASRec, trained on the same split as a further baseline, if given.
    """

    cutoffs: Annotated[tuple[Count, ...], Field(strict=False, min_length=1)] = CUTOFFS
    num_users: Count = 50_000
    likelihood_users: Count = 1_000
    examples: Annotated[int, Field(ge=0)] = 6
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    batch_size: Count = 32
    bootstrap_samples: Count = 1_000
    sasrec: SasRec | None = None


class BundleFacts(Section):
    """Defaults that the bundle carries, and what it is called.

    Attributes:
        num_beams: Width of the search where a request does not say.
        length_penalty: A score is divided by L ** length_penalty.
        max_k: The most items that a request may ask for.
        exclude_history: Whether items of the history are left out where a request does not say.
        golden_requests: How many golden answers prove the bundle.
        dtype: Of the stored weights.
        prune_vocabulary: Keep only special tokens, the prompt's and the items', under new ids: a base model's tokens of
            text are of no use to a recommender. Scores change, probabilities do not.
    """

    num_beams: Count = 20
    length_penalty: Annotated[float, Field(ge=0, le=8)] = 1.0
    max_k: Count = 100
    exclude_history: bool = True
    golden_requests: Count = 16
    dtype: Literal["float32", "bfloat16"] = "float32"
    prune_vocabulary: bool = False


class Base(Section):
    """An earlier bundle to go on from: its semantic IDs are kept, its weights are where training starts.

    Attributes:
        bundle: Its directory, as `--from-bundle` sets it.
    """

    bundle: Name
