import numpy as np
import pytest

from benchmarks import synthetic
from benchmarks.synthetic import Shape, catalog, item_tokens, item_trie, random_model, semantic_ids, tokenizer
from genrec.item_tokens import spell_all
from genrec.recommender import Recommender
from genrec.requests import Request
from genrec.semantic_id import first_unordered


@pytest.mark.parametrize(
    "shape",
    [
        Shape(1, (4, 4)),
        Shape(16, (4, 4)),
        Shape(9, (4, 4)),
        Shape(700, (16, 8, 32)),
        Shape(700, (16, 8, 32), skew=3),
        Shape(20_000),
    ],
)
def test_semantic_ids_are_distinct_ascending_and_within_their_codebooks(shape):
    codes = semantic_ids(shape)
    assert (codes.shape, codes.dtype) == ((shape.num_items, len(shape.codebook_sizes)), np.int32)
    assert first_unordered(codes) is None
    assert codes.min() >= 0
    assert (codes.max(axis=0) < shape.codebook_sizes).all()
    assert np.array_equal(codes, semantic_ids(shape))


def test_a_skew_makes_branches_of_different_size():
    even, skewed = (np.bincount(semantic_ids(Shape(5000, skew=skew))[:, 0], minlength=256) for skew in (1, 3))
    assert even.max() < 2 * even.mean()
    assert skewed.max() > 10 * skewed.mean()


def test_more_items_than_semantic_ids_are_refused():
    with pytest.raises(ValueError, match="17 items need more than the 16 semantic IDs"):
        semantic_ids(Shape(17, (4, 4)))


def test_an_unknown_model_is_refused():
    with pytest.raises(ValueError, match="model 'gpt' is unknown; there are tiny-t5"):
        random_model("gpt", 10)


def test_token_ids_are_those_of_the_tokenizer():
    sizes = (3, 2, 5)
    ids = [token_id for level in item_tokens(sizes).token_ids for token_id in level]
    assert ids == tokenizer(sizes).convert_tokens_to_ids(spell_all(sizes))


def test_the_trie_alone_is_that_of_the_bundle():
    shape = Shape(300, (8, 8, 8))
    assert item_trie(shape).paths.tolist() == item_tokens(shape.codebook_sizes).paths(semantic_ids(shape)).tolist()


def test_a_catalog_has_metadata_of_every_kind_that_filters_know():
    items = catalog(Shape(500, (16, 16, 16)))
    assert items.columns == {"title": "string", "genres": "list of strings", "year": "integer", "price": "number"}
    assert items.metadata.column("price").null_count > 0
    assert len(items) == 500


@pytest.mark.parametrize("model", ["tiny-t5", "tiny-llama"])
def test_a_bundle_made_on_the_command_line_passes_every_check_and_answers(model, tmp_path, monkeypatch, capsys):
    words = f"synthetic --items 60 --codebooks 4 4 8 --skew 1.5 --beams 8 --model {model} --output {tmp_path / 'b'}"
    monkeypatch.setattr("sys.argv", words.split())
    synthetic.main()
    assert capsys.readouterr().out == f"{tmp_path / 'b'}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    recommender = Recommender.load(tmp_path / "b", device="cpu")
    (answer,) = recommender.recommend([Request(history=["item-00000003"], k=5)])
    assert len(answer.items) == 5
