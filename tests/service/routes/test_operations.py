import pytest

from tests.service.fakes import serving

pytestmark = pytest.mark.anyio

DOCUMENTED_METRICS = {
    "genrec_batch_padding_ratio", "genrec_batch_size", "genrec_candidates", "genrec_catalog_version",
    "genrec_connections_refused_total", "genrec_engine_failures_total", "genrec_fallback_total",
    "genrec_gpu_memory_bytes", "genrec_history_items", "genrec_illegal_beams_total", "genrec_inflight_beam_rows",
    "genrec_items_off", "genrec_max_queue_rows", "genrec_model_info", "genrec_model_load_seconds",
    "genrec_queue_depth", "genrec_ready", "genrec_rejected_total", "genrec_reloads_total", "genrec_request_seconds",
    "genrec_requests_total", "genrec_results_short_total", "genrec_stage_seconds", "genrec_unknown_items_total",
}  # fmt: skip


@pytest.fixture
async def running():
    async with serving() as service:
        yield service


async def test_probes_say_one_word(running):
    assert (await running.client.get("/health")).json() == {"status": "ok"}
    assert (await running.client.get("/ready")).json() == {"status": "ready"}


async def test_info_tells_what_is_served_and_what_is_allowed(running):
    info = (await running.client.get("/info")).json()
    assert info["bundle"] == {"name": "small", "version": "0123456789ab"}
    assert (info["architecture"], info["num_levels"], info["codebook_sizes"]) == ("causal", 3, [3, 2, 2])
    assert (info["device"], info["dtype"], info["engine"], info["num_items"]) == ("cpu", "float32", "fake", 12)
    assert info["columns"] == {"title": "string", "year": "integer", "genres": "list of strings"}
    assert info["limits"]["max_k"] == 20
    assert (info["limits"]["max_candidates"], info["limits"]["max_proof_beams"]) == (10_000, 1024)
    assert info["limits"]["history_items_used"] == 5
    assert "bundles" not in str(info), "no path of the machine"


async def test_metrics_have_their_documented_names(running):
    await running.recommend("1")
    text = (await running.client.get("/metrics")).text
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert {name for name in names if name.startswith("genrec_")} == DOCUMENTED_METRICS
    assert "process_resident_memory_bytes" in names
    assert await running.metric("genrec_ready") == 1
    assert await running.metric('genrec_model_info{device="cpu",name="small",version="0123456789ab"}') == 1


async def test_scanners_cannot_grow_the_metrics(running):
    async def series() -> int:
        return len((await running.client.get("/metrics")).text.splitlines())

    await running.client.get("/nope")
    await running.client.get("/v1/items/x")
    await series()
    before = await series()
    for number in range(50):
        await running.client.get(f"/nope/{number}")
        await running.client.get(f"/v1/items/x{number}")
        await running.client.request(f"VERB{number}", "/nope")
    assert await series() <= before


async def test_docs_follow_their_setting():
    async with serving(docs=False) as running:
        assert (await running.client.get("/docs")).status_code == 404
        assert (await running.client.get("/openapi.json")).status_code == 404
    async with serving() as running:
        page = await running.client.get("/docs")
        assert page.status_code == 200
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert (await running.client.get("/openapi.json")).status_code == 200
