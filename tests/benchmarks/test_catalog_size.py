import json

import pytest

from benchmarks import catalog_size
from benchmarks.synthetic import Shape


def test_every_step_of_loading_is_timed(tmp_path):
    bundle, writing = catalog_size.write(tmp_path, Shape(50, (4, 4, 8), model="tiny-t5"))
    assert writing.keys() == {"draft", "seal"}
    steps = catalog_size.load(bundle)
    assert {"hashing", "parquet", "trie", "item trie", "id trie", "model", "tokenizer", "golden"} <= steps.keys()
    assert all(seconds > 0 for seconds in steps.values())


@pytest.mark.soak
def test_a_real_server_is_measured_and_nothing_is_left(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", f"catalog_size --items 50 90 --output {tmp_path}".split())
    catalog_size.main()
    document = json.loads((tmp_path / "catalog_size.json").read_text())
    rows = {row[""]: row for row in document["rows"]}
    assert {"ready_s", "rss_mib", "search_common_ms", "popular_ms"} <= rows.keys()
    assert rows["rss_mib"]["90"] > 100
    assert [path.name for path in tmp_path.iterdir()] == ["catalog_size.json"]
    assert "ready_s" in capsys.readouterr().out
