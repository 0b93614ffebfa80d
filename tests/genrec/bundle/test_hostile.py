"""A bundle from an enemy, hashes and version right: nothing of it runs, nothing is fetched, no other file is read.

Rows D13 and D14 of the promises. What Python reports of itself is heard all the while.
"""

import json
import os
import pickle
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genrec.bundle import layout, load_bundle
from genrec.errors import BundleError
from genrec.recommender import Recommender
from tests.audit import Heard, listening
from tests.fakes import reseal

RUNS_NOTHING = (
    "pickle.find_class",
    "subprocess.Popen",
    "os.exec",
    "os.posix_spawn",
    "os.system",
    "os.fork",
    "ctypes.dlopen",
)
REACHES_NOBODY = (
    "socket.connect",
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "urllib.Request",
    "http.client.connect",
)


class Canary:
    """Unpickled, it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.file),)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


def payloads(canary: Path, scratch: Path) -> dict[str, bytes]:
    """The canary as the formats hold it that unpickle."""
    torch.save({"weight": Canary(canary)}, scratch / "torch")
    torch.save({"weight": Canary(canary)}, scratch / "legacy", _use_new_zipfile_serialization=False)
    np.save(scratch / "array.npy", np.array([Canary(canary)], dtype=object), allow_pickle=True)
    return {
        "pickle": pickle.dumps(Canary(canary)),
        "old pickle": pickle.dumps(Canary(canary), protocol=0),
        "torch": (scratch / "torch").read_bytes(),
        "legacy torch": (scratch / "legacy").read_bytes(),
        "numpy": (scratch / "array.npy").read_bytes(),
    }


def refused(bundle: Path, sentence: str) -> Heard:
    """The bundle is refused with that sentence, and nothing of it has run."""
    with listening() as heard, pytest.raises(BundleError, match=sentence):
        Recommender.load(bundle, device="cpu")
    assert heard.of(*RUNS_NOTHING, *REACHES_NOBODY) == []
    return heard


def test_the_canary_sings_when_it_is_unpickled(canary: Path, tmp_path: Path) -> None:
    for name, payload in payloads(canary, tmp_path).items():
        (tmp_path / "file").write_bytes(payload)
        with listening() as heard:
            if name == "numpy":
                np.load(tmp_path / "file", allow_pickle=True)
            elif "torch" in name:
                torch.load(tmp_path / "file", weights_only=False)
            else:
                pickle.loads(payload)
        assert heard.of("pickle.find_class"), name
        assert canary.is_dir(), name
        canary.rmdir()


@pytest.mark.parametrize("listed", [True, False], ids=["listed", "not listed"])
@pytest.mark.parametrize(
    "suffix", [".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".h5", ".gguf", ".msgpack"]
)
def test_a_file_that_could_hold_pickle_is_refused_unread(
    bundle_copy: Path, canary: Path, tmp_path: Path, suffix: str, listed: bool
) -> None:
    (tmp_path / "scratch").mkdir()
    payload = payloads(canary, tmp_path / "scratch")["torch"]
    for name in (
        f"model/pytorch_model{suffix}",
        f"catalog/items{suffix}",
        f"extra{suffix}",
        f"model/model.safetensors{suffix}",
    ):
        (bundle_copy / name).write_bytes(payload)
        if listed:
            reseal(bundle_copy)
        heard = refused(
            bundle_copy,
            f"file {name} is of a kind that a bundle never holds" if listed else f"file {name} is not listed",
        )
        assert not any(path.endswith(suffix) for path in heard.paths)
        (bundle_copy / name).unlink()
    assert not canary.exists()


@pytest.mark.parametrize("kind", ["pickle", "old pickle", "torch", "legacy torch", "numpy"])
@pytest.mark.parametrize(
    "name",
    [
        "model/model.safetensors",
        "model/model-00001-of-00001.safetensors",
        "quantizer/codebooks.safetensors",
        "model/config.json",
        "model/tokenizer.json",
        "model/tokenizer_config.json",
        layout.ITEMS,
        layout.ITEM_TRIE,
        layout.ID_TRIE,
        layout.GOLDEN,
    ],
)
def test_pickle_under_another_name_is_refused(
    bundle_copy: Path, canary: Path, tmp_path: Path, name: str, kind: str
) -> None:
    (tmp_path / "scratch").mkdir()
    (bundle_copy / name).parent.mkdir(exist_ok=True)
    (bundle_copy / name).write_bytes(payloads(canary, tmp_path / "scratch")[kind])
    refused(reseal(bundle_copy), Path(name).name.replace(".", r"\.") + "|the tokenizer in model/ cannot be loaded")
    assert not canary.exists()


# --- D14: code in a config -------------------------------------------------------------------------------------------

CONFIG, TOKENIZER, GENERATION = "config.json", "tokenizer_config.json", "generation_config.json"
CODE = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model", "AutoTokenizer": ["evil.Slow", "evil.Fast"]}
HOSTILE: dict[str, tuple[str, dict[str, Any]]] = {
    "classes of its own": (CONFIG, {"auto_map": CODE}),
    "classes of a repository": (CONFIG, {"auto_map": {"AutoConfig": "someone/repo--evil.Config"}}),
    "classes for a tokenizer": (TOKENIZER, {"auto_map": CODE}),
    "classes for a tokenizer as a list": (TOKENIZER, {"auto_map": ["evil.Slow", None]}),
    "an attention kernel": (CONFIG, {"_attn_implementation": "someone/kernel"}),
    "an attention kernel by its inner name": (CONFIG, {"_attn_implementation_internal": "someone/kernel"}),
    "an attention kernel by its outer name": (CONFIG, {"attn_implementation": "someone/kernel:f"}),
    "an expert kernel": (CONFIG, {"_experts_implementation": "someone/kernel"}),
    "an attention kernel within": (CONFIG, {"text_config": {"_attn_implementation_internal": "someone/kernel"}}),
    "classes deep within": (CONFIG, {"a": [{"b": {"c": [{"auto_map": CODE}]}}]}),
    "a pipeline": (CONFIG, {"custom_pipelines": {"text-generation": {"impl": "evil.Pipeline"}}}),
    "a custom loop": (GENERATION, {"custom_generate": "someone/repo"}),
    "trust": (CONFIG, {"trust_remote_code": True}),
    "trust in a tokenizer": (TOKENIZER, {"trust_remote_code": True}),
    "trust in generation": (GENERATION, {"trust_remote_code": True}),
    "a quantizer": (CONFIG, {"quantization_config": {"quant_method": "gptq", "modules_in_block_to_quantize": ["x"]}}),
    "a quantizer within": (CONFIG, {"text_config": {"quantization_config": {"quant_method": "aqlm"}}}),
    "weights from elsewhere": (CONFIG, {"transformers_weights": "../../../elsewhere.bin"}),
    "fused kernels": (CONFIG, {"fusion_config": {"a": "b"}}),
    "a base model": (CONFIG, {"base_model_name_or_path": "someone/base"}),
    "a tokenizer class of a repository": (TOKENIZER, {"tokenizer_class": "someone/repo--evil.Tokenizer"}),
    "a tokenizer class of a module": (TOKENIZER, {"tokenizer_class": "os.path"}),
    "a tokenizer class of no name": (TOKENIZER, {"tokenizer_class": ["a"]}),
    "a tokenizer class in the config": (CONFIG, {"tokenizer_class": "evil.Tokenizer"}),
    "a chat template": (TOKENIZER, {"chat_template": "{{ cycler.__init__.__globals__.os.mkdir('canary') }}"}),
    "chat templates": (TOKENIZER, {"chat_template": [{"name": "default", "template": "{{ 1 }}"}]}),
    "a vocabulary from elsewhere": (TOKENIZER, {"vocab_file": "/etc/passwd"}),
    "a tokenizer from elsewhere": (TOKENIZER, {"tokenizer_file": "/etc/passwd"}),
    "another file for the tokenizer": (TOKENIZER, {"fast_tokenizer_files": ["tokenizer.4.0.json"]}),
    "arguments by place": (TOKENIZER, {"init_inputs": ["/etc/passwd"]}),
    "a special token from elsewhere": ("special_tokens_map.json", {"merges_file": "/etc/passwd"}),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_config_that_would_run_or_fetch_is_refused_before_a_library_sees_it(bundle_copy: Path, name: str) -> None:
    file, changes = HOSTILE[name]
    path = bundle_copy / "model" / file
    before = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(before | changes))
    heard = refused(reseal(bundle_copy), rf"^model/{file} holds ")
    assert not any(tempfile.gettempdir() + "/genrec-" in one for one in heard.paths)  # nothing was unpacked for it


@pytest.mark.parametrize("key", ["trust_remote_code", "chat_template", "vocab_file"])
def test_a_key_that_says_nothing_is_harmless(bundle_copy: Path, key: str) -> None:
    path = bundle_copy / "model" / TOKENIZER
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: None}))
    Recommender.load(reseal(bundle_copy))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model/modeling_evil.py", "raise SystemExit"),
        ("model/custom_generate/generate.py", "raise SystemExit"),
        ("model/chat_template.jinja", "{{ 1 }}"),
        ("model/additional_chat_templates/x.jinja", "{{ 1 }}"),
        ("evil.pth", "import os"),
        ("evil.so", "\x7fELF"),
        ("model/__init__.pyc", "x"),
    ],
)
def test_code_is_refused_by_its_kind(bundle_copy: Path, name: str, content: str) -> None:
    (bundle_copy / name).parent.mkdir(exist_ok=True)
    (bundle_copy / name).write_text(content)
    refused(reseal(bundle_copy), f"file {name} is of a kind that a bundle never holds")


@pytest.mark.parametrize("name", ["chat_template.json", "processor_config.json", "preprocessor_config.json", "x.json"])
def test_a_file_that_no_model_needs_is_hashed_and_never_shown_to_a_library(bundle_copy: Path, name: str) -> None:
    (bundle_copy / "model" / name).write_text(json.dumps({"auto_map": CODE, "chat_template": "{{ 1 }}"}))
    reseal(bundle_copy)
    with listening() as heard:
        Recommender.load(bundle_copy)
    assert [path for path in heard.paths if path.endswith(name)] == [str(bundle_copy / "model" / name)]


def outside(path: str, bundle: Path) -> bool:
    """Whether a path is neither of the bundle, nor of Python and its libraries, nor what the system says of itself."""
    ours = (str(bundle), f"{tempfile.gettempdir()}/genrec-", "/proc/", "/sys/", "/dev/null", "/dev/urandom")
    libraries = {sys.prefix, sys.base_prefix, *(entry for entry in sys.path if entry), str(Path(os.__file__).parent)}
    removed = path == layout.MODEL  # shutil.rmtree opens what it removes relative to its parent
    return not path.startswith((*ours, *libraries)) and path != tempfile.gettempdir() and not removed


@pytest.mark.parametrize("engine", ["beam", "generate"])
def test_loading_reads_the_bundle_and_python_alone_and_reaches_nobody(
    bundle_path: Path, tmp_path: Path, engine: str
) -> None:
    bundle = Path(shutil.copytree(bundle_path, tmp_path / "tiny"))
    with listening() as heard:
        Recommender.load(bundle, engine=engine)
    assert heard.of("pickle.find_class", *REACHES_NOBODY, "subprocess", "os.exec", "os.system") == []
    assert [path for path in heard.paths if outside(path, bundle)] == []
    files = [path for path in heard.paths if path.startswith(str(bundle)) and Path(path).is_file()]
    assert sorted(files) == sorted(str(path) for path in layout.walk(bundle))  # each of them once


def test_nothing_is_written_but_what_a_library_reads_and_that_goes_away(
    bundle_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with listening() as heard:
        load_bundle(bundle_copy)
    written = [
        arguments[0]
        for name, arguments in heard.of("open")
        if isinstance(arguments[1], str) and set("wax+") & set(arguments[1])
    ]
    assert all(str(path).startswith(f"{tempfile.gettempdir()}/genrec-") for path in written), written
    assert {Path(str(path)).name for path in written} == {"config.json", "tokenizer.json", "tokenizer_config.json"}
    assert not list(tmp_path.glob("genrec-*"))
