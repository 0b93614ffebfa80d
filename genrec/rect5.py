"""RecT5: T5 whose encoder is told which item of the history each token belongs to, and of which kind it is.

Two embeddings are added to those of the tokens. They begin at zero, so that a T5 checkpoint read as RecT5 gives what T5
gives until it is trained. A plug-in as any package can bring one (docs/models.md); entry point `rect5`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import T5Config, T5ForConditionalGeneration
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions, Seq2SeqLMOutput
from transformers.models.t5.modeling_t5 import T5Stack

from genrec.model_inputs import TokenLevels
from genrec.model_plugin import ModelPlugin


class RecT5Config(T5Config):  # type: ignore[misc]  # transformers is untyped here
    """T5's, and the sizes of the two embeddings.

    Attributes:
        num_item_positions: items that have a position of their own; those before them share the last one.
        num_meta_types: kinds of tokens; levels and one for all else.
    """

    model_type = "rect5"

    num_item_positions: int = 128
    num_meta_types: int = 32

    def __post_init__(self, **kwargs: Any) -> None:  # noqa: ANN401  (whatever config.json holds)
        kwargs.pop("model_type", None)  # of the T5 checkpoint that is read as this
        super().__post_init__(**kwargs)


class ZeroEmbedding(nn.Embedding):
    """An embedding that begins at zero, and whose row 0 stays there: what belongs to nothing adds nothing."""

    def __init__(self, rows: int, dimensions: int) -> None:
        super().__init__(rows, dimensions, padding_idx=0)


class RecT5Encoder(T5Stack):  # type: ignore[misc]  # transformers is untyped here
    """T5's encoder with two more embeddings. Here and not in the model: `generate` calls the encoder itself."""

    def __init__(self, config: RecT5Config) -> None:
        super().__init__(config)
        self.item_positions = ZeroEmbedding(config.num_item_positions + 1, config.d_model)
        self.meta_types = ZeroEmbedding(config.num_meta_types, config.d_model)
        self.post_init()

    @classmethod
    def is_custom_code(cls) -> bool:
        """No: these classes know the ways of transformers.

        Of others it (5.17 to 5.23) asks only modules that hold parameters directly how to begin, and so skips T5's rule
        for attention: queries begin 20 times too large, and nothing says so.
        """
        return False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, ZeroEmbedding):
            init.zeros_(module.weight)
        else:
            super()._init_weights(module)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        item_position_ids: Tensor | None = None,
        meta_type_ids: Tensor | None = None,
        **kwargs: Any,  # noqa: ANN401  (T5's)
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """As T5's encoder; without the two inputs exactly that.

        Args:
            input_ids, attention_mask, inputs_embeds, kwargs: T5's.
            item_position_ids: ``(B, T)`` int64: 1 for tokens of the newest item, 2 for the one before it, … and 0 for
                tokens of none.
            meta_type_ids: ``(B, T)`` int64: 1 + level for tokens of items, 0 for others.
        """
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        for ids, embedding in ((item_position_ids, self.item_positions), (meta_type_ids, self.meta_types)):
            if ids is not None:
                inputs_embeds = inputs_embeds + embedding(ids.clamp(max=embedding.num_embeddings - 1))
        return super().forward(inputs_embeds=inputs_embeds, attention_mask=attention_mask, **kwargs)


class RecT5ForConditionalGeneration(T5ForConditionalGeneration):  # type: ignore[misc]  # transformers is untyped here
    """T5 for generation with that encoder."""

    config_class = RecT5Config

    def __init__(self, config: RecT5Config) -> None:
        super().__init__(config)
        self.encoder: RecT5Encoder = RecT5Encoder(self.encoder.config)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        encoder_outputs: Any = None,  # noqa: ANN401  (a tuple or an output of the encoder)
        item_position_ids: Tensor | None = None,
        meta_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,  # noqa: ANN401  (T5's: decoder_input_ids and more)
    ) -> Seq2SeqLMOutput:
        """As T5's; `item_position_ids` and `meta_type_ids` go to the encoder, see there.

        `labels` is named because the Trainer looks for its name, and measures no validation loss without it.
        """
        if encoder_outputs is None:
            encoder_outputs = self.encoder(
                input_ids=input_ids,
                attention_mask=attention_mask,
                inputs_embeds=inputs_embeds,
                item_position_ids=item_position_ids,
                meta_type_ids=meta_type_ids,
            )
        return super().forward(attention_mask=attention_mask, encoder_outputs=encoder_outputs, labels=labels, **kwargs)


def fill(input_ids: Tensor, attention_mask: Tensor, levels: TokenLevels) -> Mapping[str, Tensor]:
    """Which item a token belongs to, counted from the newest, and which level it has.

    From the newest, because that is what predicts most: it is position 1 after any number of items, in every history
    that is trained on, and an older item more or less moves no other's. A token that stands in for hidden items in
    training is of no item and does not count, as an unknown item is left out where histories are answered.
    """
    level = levels.of(input_ids).masked_fill(attention_mask == 0, -1)
    last = (level == levels.num_levels - 1).long()  # of its item
    items_from_here = last.flip(1).cumsum(1).flip(1)
    return {"item_position_ids": items_from_here.masked_fill(level < 0, 0), "meta_type_ids": level + 1}


PLUGIN = ModelPlugin(
    config_class=RecT5Config,
    model_class=RecT5ForConditionalGeneration,
    architecture="seq2seq",
    inputs=("item_position_ids", "meta_type_ids"),
    fill=fill,
    config_keys=("num_item_positions", "num_meta_types"),
    trained_modules=("item_positions", "meta_types"),
)
