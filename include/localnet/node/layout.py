"""What a job's container has in ``/data``: everything is one volume that the algorithm may write to."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from include.localnet.operator_service.jobspace import Folders

if TYPE_CHECKING:
    from pathlib import Path

_FOLDERS = ("inputs", "ddos", "transformations", "outputs", "logs")


class NodeFolders(Folders):
    """The host's folders of one job in the layout of Ocean Node, which has no folder for each DID and no documents."""

    framed_log: ClassVar[bool] = True
    uid_inside: ClassVar[int | None] = 1000

    @property
    def data(self) -> Path:
        """The volume."""
        return self.root / "data"

    @property
    def inputs(self) -> Path:
        """The files of all datasets side by side, and the custom data."""
        return self.data / "inputs"

    @property
    def ddos(self) -> Path:
        """Empty; upstream makes it."""
        return self.data / "ddos"

    @property
    def transformations(self) -> Path:
        """The algorithm."""
        return self.data / "transformations"

    @property
    def outputs(self) -> Path:
        """What the algorithm makes."""
        return self.data / "outputs"

    @property
    def logs(self) -> Path:
        """Copies of the image's and the configuration's log."""
        return self.data / "logs"

    @property
    def image_log(self) -> Path:
        """How the image was fetched."""
        return self.root / "image.log"

    @property
    def configuration_log(self) -> Path:
        """How inputs and algorithm were fetched."""
        return self.root / "configuration.log"

    @property
    def outputs_tar(self) -> Path:
        """The outputs as they are handed out."""
        return self.root / "outputs.tar"

    @property
    def written(self) -> list[Path]:
        """Folders in ``/data`` that the algorithm can write to: all of them."""
        return [self.data]

    @property
    def handed_over(self) -> list[Path]:
        """Nothing: the folders are open to every user, as upstream's are."""
        return []

    def binds(self) -> list[str]:
        """Return bubblewrap's options that make ``/data``."""
        return ["--bind", str(self.data), "/data"]

    def create(self) -> None:
        """Make the folders anew, open to every user whatever the service's umask."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)
        for folder in (self.data, *(self.data / name for name in _FOLDERS)):
            folder.mkdir()
            folder.chmod(0o777)
        self.data.chmod(0o1777)
        self.algorithm_log.unlink(missing_ok=True)
        self.algorithm_log.touch(mode=0o600)
