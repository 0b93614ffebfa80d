"""A GGUF file as llama.cpp lays it out, tiny, against the model that it was made of."""

import json
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from transformers import LlamaConfig, LlamaForCausalLM

from genrec.errors import InputError
from genrec.models import load_model
from tests.training.bench import recipe, run_stage
from training import vocabulary
from training.base_model import load_base
from training.gguf import load_gguf
from training.recipe_model import Model
from training.vocabulary import is_tied, save_checkpoint

WORDS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "a", "b", "c", "ab", "abc"]
HEADS, KV_HEADS, WIDTH = 2, 1, 64
NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip

Array = npt.NDArray[np.float32]


def model_of_weights_that_can_be_quantised() -> LlamaForCausalLM:
    """Tied; every matrix is what its quantised self unpacks to, so that nothing is lost in the file."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=WIDTH, intermediate_size=96, num_hidden_layers=2, num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS, max_position_embeddings=128, tie_word_embeddings=True, bos_token_id=1,
        eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                packed = gguf.quantize(torch.randn(parameter.shape).mul(0.2).numpy(), kind_of(name))
                parameter.copy_(torch.from_numpy(gguf.dequantize(packed, kind_of(name)).copy()))
    return model


def kind_of(name: str) -> Kind:
    return Kind.Q8_0 if "embed" in name else Kind.Q4_1


def as_llama_cpp_rotates(weight: Array, heads: int) -> Array:
    """llama.cpp keeps the two halves of a head that turn together side by side."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(path: Path, model: LlamaForCausalLM, without: str = "") -> Path:
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("a tiny llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(WORDS)
    writer.add_token_types([3, 3, 3, 1, 1, 1, 1, 1])
    writer.add_token_merges(["a b", "ab c"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template("{% for message in messages %}{{ message }}{% endfor %}")
    for name, parameter in model.named_parameters():
        weight, called = parameter.detach().numpy(), llama_cpp_name(name)
        if called == without:
            continue
        if "attn_q" in called or "attn_k" in called:
            weight = as_llama_cpp_rotates(weight, HEADS if "attn_q" in called else KV_HEADS)
        if weight.ndim == 1:
            writer.add_tensor(called, weight)
        else:
            kind = kind_of(name)
            writer.add_tensor(called, gguf.quantize(np.ascontiguousarray(weight), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def llama_cpp_name(name: str) -> str:
    if name.startswith("model.layers."):
        _, _, layer, rest = name.split(".", 3)
        return f"blk.{layer}.{NAMES[rest.removesuffix('.weight')]}.weight"
    return {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}[name]


@pytest.fixture(scope="module")
def original() -> LlamaForCausalLM:
    return model_of_weights_that_can_be_quantised()


@pytest.fixture(scope="module")
def file(original: LlamaForCausalLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.Q4_1.gguf", original)


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model.eval()(input_ids=torch.tensor([[1, 3, 6, 4, 5, 3]])).logits


def test_its_weights_are_unpacked_into_a_model_like_any_other(
    original: LlamaForCausalLM, file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model, words = load_gguf(file)
    assert capfd.readouterr().err == ""
    assert torch.allclose(logits(model), logits(original), atol=1e-5)
    assert is_tied(model) and model.dtype == torch.float32
    assert words.convert_tokens_to_ids(WORDS) == list(range(len(WORDS)))
    save_checkpoint(model, words, tmp_path / "plain")
    assert torch.equal(logits(load_model(tmp_path / "plain", "causal")), logits(model))
    config = json.loads((tmp_path / "plain" / "config.json").read_text())
    assert not {"quantization_config", "_model_name_or_path"} & set(config)


def test_a_recipe_names_it_as_its_checkpoint_and_items_become_tokens_of_it(file: Path, tmp_path: Path) -> None:
    (tmp_path / "quantize").mkdir()
    (tmp_path / "quantize" / "quantizer.json").write_text(json.dumps({"codebook_sizes": [4, 3]}))
    made = recipe(model={"checkpoint": str(file)}, prompt={"prefix": ["<|im_start|>"], "separator": ["ab"]})
    out = run_stage(vocabulary.STAGE, made, tmp_path)
    grown = load_model(out / "model", "causal")
    assert grown.get_input_embeddings().weight.shape == (len(WORDS) + 7, WIDTH)
    assert torch.allclose(logits(grown)[..., : len(WORDS)], logits(load_gguf(file)[0]), atol=1e-6)
    assert not list((out / "model").glob("*chat*")) and "chat_template" not in {
        key for key, value in json.loads((out / "model" / "tokenizer_config.json").read_text()).items() if value
    }


def test_a_file_that_is_not_there_or_no_gguf_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.gguf' is not there"):
        load_base(Model(checkpoint=str(tmp_path / "nowhere.gguf")))
    for content in (b"", b"no such format" * 99, b"GGUF" + bytes(200)):
        (tmp_path / "broken.gguf").write_bytes(content)
        with pytest.raises(InputError, match=r"broken\.gguf' cannot be read as GGUF"):
            load_base(Model(checkpoint=str(tmp_path / "broken.gguf")))


def test_without_the_package_the_extra_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.gguf.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"install genrec\[gguf\]"):
        load_gguf(file)


def test_a_file_that_lacks_a_weight_is_refused_and_not_filled_with_chance(
    original: LlamaForCausalLM, tmp_path: Path
) -> None:
    """transformers would draw it at random, and say so in passing."""
    write_gguf(tmp_path / "short.gguf", original, without="blk.1.ffn_up.weight")
    with pytest.raises(InputError, match=r"lacks weight 'model.layers.1.mlp.up_proj.weight'"):
        load_gguf(tmp_path / "short.gguf")


def test_it_is_a_decoder_only_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'\.gguf file needs architecture = "causal"'):
        Model(architecture="seq2seq", checkpoint="some.gguf")


def test_another_file_of_the_same_name_makes_another_vocabulary(file: Path) -> None:
    assert list(vocabulary.STAGE.reads(recipe(model={"checkpoint": str(file)}))) == [file]
    assert list(vocabulary.STAGE.reads(recipe(model={"checkpoint": "some/hub-id"}))) == []
    assert list(vocabulary.STAGE.reads(recipe())) == []
