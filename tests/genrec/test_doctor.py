import shutil
from importlib.metadata import PackageNotFoundError, version
from types import SimpleNamespace

import pytest
import torch
import typer
from typer.testing import CliRunner

from genrec import doctor as doctor_module
from genrec.doctor import Finding, devices, doctor, extras, mixed_precision, passes, room, traps, versions


def levels(check: object) -> dict[str, str]:
    return {finding.text: finding.level for finding in check()}


def report() -> tuple[int, str]:
    app = typer.Typer()
    app.command()(doctor)
    result = CliRunner().invoke(app, [], catch_exceptions=False)
    return result.exit_code, result.output


def test_where_the_tests_run_nothing_is_broken():
    code, said = report()
    assert (code, "\n0 broken" in said) == (0, True)
    assert f"ok      torch {version('torch')}" in said
    assert "encoder-decoder model, float32" in said and "decoder-only model, bfloat16" in said


def test_something_broken_is_the_exit_code(monkeypatch):
    checks = [lambda: [Finding("ok", "one"), Finding("broken", "two")], lambda: [Finding("look", "three")]]
    monkeypatch.setattr(doctor_module, "CHECKS", checks)
    assert report() == (70, "ok      one\nbroken  two\nlook    three\n\n1 broken, 1 worth a look, 1 fine\n")


def test_what_every_install_needs_is_broken_where_it_is_absent_or_too_old(monkeypatch):
    def found(name):
        if name == "marisa-trie":
            raise PackageNotFoundError(name)
        return "1.0" if name == "torch" else version(name)

    monkeypatch.setattr(doctor_module, "version", found)
    told = levels(versions)
    assert told["marisa-trie is not installed: install genrec"] == "broken"
    assert told["torch 1.0 is not >=2.11: install genrec again"] == "broken"


def test_an_extra_is_whole_or_absent_or_worth_a_look(monkeypatch):
    def without(*names):
        def found(name):
            if name in names:
                raise PackageNotFoundError(name)
            return version(name)

        monkeypatch.setattr(doctor_module, "version", found)
        return levels(extras)

    assert without("tensorboard")["genrec[tensorboard] is not installed"] == "ok"
    assert without("peft")["peft is not installed: install genrec[training]"] == "look"


def test_a_package_that_is_there_and_does_not_import_is_broken(monkeypatch):
    def broken(name):
        if name == "peft":
            raise ImportError("built for another torch")

    monkeypatch.setattr(doctor_module, "import_module", broken)
    assert levels(extras)["peft is installed and peft does not import: built for another torch"] == "broken"


@pytest.mark.parametrize("name", ["tensorboard", "prometheus_client", "tomli_w"])
def test_each_package_is_imported_whatever_its_extra_and_spelling(monkeypatch, name):
    def broken(module):
        if module == name:
            raise ImportError("half of it")

    monkeypatch.setattr(doctor_module, "import_module", broken)
    assert "broken" in {level for told, level in levels(extras).items() if f"{name} does not import" in told}


def test_the_one_package_of_an_extra_that_is_too_old_is_broken_and_not_absent(monkeypatch):
    monkeypatch.setattr(doctor_module, "version", lambda name: "0.1" if name == "tensorboard" else version(name))
    assert [level for told, level in levels(extras).items() if told.startswith("tensorboard 0.1 is not")] == ["broken"]


def test_more_threads_than_cores_and_a_gpu_that_is_not_seen_are_told(monkeypatch):
    monkeypatch.setattr(doctor_module.os, "sched_getaffinity", lambda _: {0})
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    told = levels(devices)
    assert told["1 cores, 4 threads of PyTorch: more threads than cores wait for each other"] == "look"
    assert told["PyTorch is built for CUDA 13.0 and sees no GPU: check the driver"] == "look"


def test_little_room_is_told(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**20))
    assert set(levels(room).values()) == {"look"}


def test_traps_are_told(monkeypatch):
    assert levels(traps) == {}
    monkeypatch.setattr(torch, "get_default_dtype", lambda: torch.float16)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert set(levels(traps).values()) == {"look"} and len(levels(traps)) == 2


def test_a_processor_that_only_imitates_bfloat16_is_told(monkeypatch):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    seconds = {torch.float32: 0.01, torch.bfloat16: 0.3}
    monkeypatch.setattr("genrec.doctor._product_s", seconds.__getitem__)
    [(told, level)] = levels(mixed_precision).items()
    assert level == "look" and "take 30.0 times as long" in told
    seconds[torch.bfloat16] = 0.005
    assert set(levels(mixed_precision).values()) == {"ok"}
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    assert levels(mixed_precision) == {}


@pytest.mark.parametrize("fault", ["raises", "nan"])
def test_a_pass_that_fails_or_gives_no_number_is_broken(monkeypatch, fault):
    def one_pass(model, dtype):
        if fault == "raises":
            raise RuntimeError("no kernel image\nis available")
        return torch.tensor(float("nan"))

    monkeypatch.setattr(doctor_module, "_one_pass", one_pass)
    told = levels(passes)
    assert set(told.values()) == {"broken"} and len(told) == 4
    assert fault == "nan" or all(text.endswith(": no kernel image is available") for text in told)
