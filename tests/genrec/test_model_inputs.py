"""Extra inputs are a function of the ids; a function that gives others than it promised is named."""

from collections.abc import Mapping

import pytest
import torch

from genrec.errors import EngineError
from genrec.item_tokens import ItemTokens
from genrec.model_inputs import NO_INPUTS, ModelInputs, TokenLevels

LEVELS = TokenLevels(ItemTokens(((4, 5, 9), (6, 7), (8,))))
IDS = torch.tensor([[4, 7, 8, 3], [9, 6, 8, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])


def test_each_item_token_has_its_level_and_every_other_token_none() -> None:
    assert LEVELS.num_levels == 3
    assert LEVELS.of(IDS).tolist() == [[0, 1, 2, -1], [0, 1, 2, -1]]
    assert LEVELS.of(torch.tensor([[10, 10_000]])).tolist() == [[-1, -1]]


def test_plain_models_get_nothing_beside_ids_and_mask() -> None:
    assert NO_INPUTS(IDS, MASK) == {}


def filled(**inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    def fill(ids: torch.Tensor, mask: torch.Tensor, levels: TokenLevels) -> Mapping[str, torch.Tensor]:
        return inputs

    return ModelInputs(("ages",), fill, LEVELS)(IDS, MASK)


def test_inputs_come_by_name() -> None:
    assert filled(ages=MASK) == {"ages": MASK}


@pytest.mark.parametrize(
    ("inputs", "named"),
    [
        ({}, "ages"),
        ({"ages": MASK, "kinds": MASK}, "kinds"),
        ({"ages": MASK[:1]}, "ages"),
        ({"ages": MASK.float()}, "ages"),
    ],
)
def test_inputs_other_than_promised_are_refused(inputs: dict[str, torch.Tensor], named: str) -> None:
    with pytest.raises(EngineError, match=rf"must fill \['ages'\], .* otherwise for '{named}'; mend its fill"):
        filled(**inputs)
