"""The gcloud commands for one TPU VM, or one slice of several: made, asked, used, deleted."""

import dataclasses
import pathlib
import shlex
import subprocess
from collections.abc import Sequence

from ctl_jax.errors import UserError

# A connection that hangs longer is a broken one.
_ASK_S = 300


@dataclasses.dataclass(frozen=True)
class Place:
    """Where machines are made, and which.

    Attributes:
      project: the Google Cloud project.
      zone: e.g. us-central2-b.
      accelerator: accelerator type, e.g. v4-8.
      version: software of the VM, e.g. tpu-ubuntu2204-base.
      spot: machines that are cheaper, and may be taken away at any time.
      service_account: whom the VM acts as; "" for the project's default.
    """

    project: str
    zone: str
    accelerator: str
    version: str
    spot: bool
    service_account: str = ""


class Slice:
    """One TPU VM or slice with a name. Every method is one command.

    With `dry_run` commands are printed and not run. The answers are those of a machine that comes
    when it is asked for, and of a program that ends well.
    """

    def __init__(self, place: Place, name: str, dry_run: bool = False) -> None:
        self.name = name
        self._place = place
        self._dry_run = dry_run
        self._dry_state = ""
        self._where = [f"--project={place.project}", f"--zone={place.zone}"]

    def create(self) -> None:
        """Asks for the machine; it comes when there is one.

        Raises:
          UserError: the request is refused.
        """
        place = self._place
        command = [
            *("gcloud", "compute", "tpus", "queued-resources", "create", self.name),
            f"--node-id={self.name}",
            *self._where,
            f"--accelerator-type={place.accelerator}",
            f"--runtime-version={place.version}",
        ]
        if place.spot:
            command.append("--spot")
        if place.service_account:
            command.append(f"--service-account={place.service_account}")
        done = self._run(command)
        if done.returncode:
            raise UserError(f"{self.name} was not created: {_last_line(done.stderr)}")
        self._dry_state = "ACTIVE"

    def state(self) -> str | None:
        """The state of the request, such as ACTIVE; None where there is none.

        Raises:
          UserError: gcloud cannot say.
        """
        done = self._run(
            [
                *("gcloud", "compute", "tpus", "queued-resources", "describe", self.name),
                *self._where,
                "--format=value(state.state)",
            ],
            answer=self._dry_state,
        )
        if done.returncode == 0:
            return done.stdout.strip() or None
        if "NOT_FOUND" in done.stderr or "not found" in done.stderr.lower():
            return None
        raise UserError(f"{self.name} cannot be described: {_last_line(done.stderr)}")

    def delete(self) -> None:
        """Deletes the machine and the request. What is not there is deleted already."""
        self._run(
            [
                *("gcloud", "compute", "tpus", "queued-resources", "delete", self.name),
                *self._where,
                "--force",
                "--quiet",
            ]
        )

    def copy(self, local: pathlib.Path, remote: str) -> bool:
        """Copies a file to the home folder on all hosts. Returns whether it arrived."""
        command = ["gcloud", "compute", "tpus", "tpu-vm", "scp", str(local)]
        done = self._run([*command, f"{self.name}:{remote}", "--worker=all", *self._where])
        return done.returncode == 0

    def shell(
        self, text: str, *, answer: str = "", ask: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Runs a shell text on all hosts.

        Args:
          text: for bash.
          answer: what a dry run has on standard output.
          ask: whether it is a question, to be answered at once.
        """
        command = ["gcloud", "compute", "tpus", "tpu-vm", "ssh", self.name, "--worker=all"]
        return self._run(
            [*command, *self._where, f"--command={text}"],
            answer=answer,
            timeout_s=_ASK_S if ask else None,
        )

    def _run(
        self, command: Sequence[str], answer: str = "", timeout_s: float | None = None
    ) -> subprocess.CompletedProcess[str]:
        if self._dry_run:
            print(shlex.join(command))
            return subprocess.CompletedProcess(command, 0, answer, "")
        try:
            return subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, 255, "", "no answer")
        except FileNotFoundError:
            raise UserError("gcloud: not found; expected the Google Cloud CLI on PATH") from None


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else "gcloud gave no reason"
