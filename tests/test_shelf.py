"""What a load leaves in the books, whatever else happens on the device meanwhile."""

from pathlib import Path

import pytest

from engine.jobs import Family, ModelSpec
from engine.ledger import Ledger
from engine.model_registry import ModelRegistry
from engine.shelf import Shelf
from engine.worker_factory import WorkerFactory
from tests.single_file_kit import save_tiny


class ScriptedMemory(ModelRegistry):
    """Says of a GPU's memory what the test wants to be read: a CPU has no memory of its own."""

    def __init__(self, *used: int) -> None:
        super().__init__("cpu")
        self.used = list(used)

    def get_used_vram(self) -> int:
        return self.used.pop(0) if len(self.used) > 1 else self.used[0]

    def make_room(self, vram_bytes: int, model_path: Path | str) -> list[str]:
        return []


@pytest.mark.parametrize("beside", [-(2**30), -1, 0, 1000])
def test_a_model_counts_at_least_its_weights_whatever_others_let_go_of_while_it_is_loaded(
    tmp_path: Path, beside: int
) -> None:
    save_tiny(Family.SD15, tmp_path / "m")
    model = ModelSpec(tmp_path / "m")
    worker = WorkerFactory("cpu").create(model)
    before = 2**32
    registry = ScriptedMemory(before, before + worker.weight_bytes + beside)
    shelf = Shelf(
        "cuda:0",
        lambda _: worker,
        registry,
        Ledger("cuda:0"),
        drawn=lambda: (),
        note=lambda *_: None,
        clock=lambda: 0.0,
    )

    shelf.load(model, lambda: None)

    [loaded] = registry.get_loaded_models().values()
    assert loaded.vram_bytes == worker.weight_bytes + max(0, beside)
    with shelf.lease(model):
        assert registry.in_use(model.key)
