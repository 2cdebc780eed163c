"""The resumable states of a run on disk: a state is whole, holds finite weights, or is not there."""

from __future__ import annotations

import shutil
from pathlib import Path

from accelerate import Accelerator
from torch import nn

from training.engine.resuming import CONFIG


def whole_states(folder: Path) -> list[Path]:
    """The complete states of a run's folder, oldest first."""
    return sorted(p for p in folder.glob("state-*") if p.name.removeprefix("state-").isdigit())


def images_of(state: Path) -> int:
    """After how many images a state was saved."""
    return int(state.name.removeprefix("state-"))


class States:
    """States of one run, in `folder/state-<images>`; the newest two are kept.

    A state that is being written ends in `.part` and is never resumed. config: the settings of the run as JSON, which go
    into each.
    """

    def __init__(self, accelerator: Accelerator, folder: Path, parameters: list[nn.Parameter], config: str) -> None:
        self.accelerator, self.folder, self.parameters, self.config = accelerator, folder, parameters, config
        self.saved = -1   # images of the state last loaded or saved by this run

    def whole(self) -> list[Path]:
        """The complete states, oldest first."""
        return whole_states(self.folder)

    def load_newest(self) -> Path | None:
        """Loads the newest state into everything the accelerator knows; None when there is none."""
        newest = next(reversed(self.whole()), None)
        if newest:
            self.accelerator.load_state(str(newest))
            self.saved = images_of(newest)
        return newest

    def save(self, images: int) -> None:
        """Saves the state after `images` images, unless that has been done.

        States of more images can only be left from a run that this one replaces (resume=false): they go, as do older
        ones but one. Raises FloatingPointError, and keeps what is there, when a weight is not finite.
        """
        if images == self.saved:
            return
        if not all(bool(p.isfinite().all()) for p in self.parameters):
            raise FloatingPointError(f"weights are not finite after {images:,} images; {self.advice()}")
        final = self.folder / f"state-{images:010d}"
        part = self.folder / f"{final.name}.part"
        main = self.accelerator.is_main_process
        if main and part.exists():
            shutil.rmtree(part)
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(str(part))
        self.accelerator.wait_for_everyone()
        if main:
            (part / CONFIG).write_text(self.config, encoding="utf-8")
            if final.exists():
                shutil.rmtree(final)
            part.rename(final)
            before = [state for state in self.whole() if state.name < final.name][-1:]
            for old in set(self.folder.glob("state-*")) - {final, *before}:
                shutil.rmtree(old)
        self.saved = images

    def advice(self) -> str:
        """What to do when training went wrong."""
        whole = self.whole()
        return f"the last state is {whole[-1] if whole else 'the start'}: resume with a lower lr or precision=no"
