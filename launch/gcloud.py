"""The gcloud commands for one TPU VM, or one slice of several: made, asked, used, deleted."""

import dataclasses
import pathlib
import shlex
import shutil
import subprocess
from collections.abc import Sequence

from ctl_jax.errors import UserError

# A command that hangs longer is given up: questions, and what moves files or machines.
_ASK_S, _WORK_S = 300, 900
# Else a connection to a machine that went away would hang for ever.
_ALIVE = "-oServerAliveInterval=30"


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

    Attributes:
      name: of the machine, and of the request for it.
      there: whether it may be there, as far as these commands know.
    """

    def __init__(self, place: Place, name: str, dry_run: bool = False) -> None:
        self.name = name
        self._place = place
        self._dry_run = dry_run
        self._dry_state = ""
        self.there = False
        self._where = [f"--project={place.project}", f"--zone={place.zone}"]

    def create(self) -> str:
        """Asks for the machine; it comes when there is one.

        Returns:
          "", or why it failed; the machine may be there all the same.
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
        self.there = True
        done = self._run(command, timeout_s=_ASK_S)
        self._dry_state = "ACTIVE"
        return reason(done) if done.returncode else ""

    def state(self) -> str | None:
        """The state of the request, such as ACTIVE, or "FAILED: why"; None where there is none.

        Raises:
          UserError: gcloud cannot say.
        """
        done = self._run(
            [
                *("gcloud", "compute", "tpus", "queued-resources", "describe", self.name),
                *self._where,
                "--format=value(state.state,state.failedData.error.message)",
            ],
            answer=self._dry_state,
            timeout_s=_ASK_S,
        )
        if done.returncode == 0:
            state, _, why = done.stdout.strip().partition("\t")
            self.there = bool(state)
            return ": ".join(filter(None, (state, " ".join(why.split())))) or None
        if self._is_not_found(done):
            self.there = False
            return None
        raise UserError(f"{self.name} cannot be described: {reason(done)}")

    @property
    def deletion(self) -> list[str]:
        """The command that deletes the machine and the request."""
        return [
            *("gcloud", "compute", "tpus", "queued-resources", "delete", self.name),
            *self._where,
            "--force",
            "--quiet",
        ]

    def delete(self) -> str:
        """Deletes the machine and the request. What is not there is deleted already.

        Returns:
          "", or why it failed.
        """
        done = self._run(self.deletion, timeout_s=_WORK_S)
        self.there = bool(done.returncode) and not self._is_not_found(done)
        return reason(done) if self.there else ""

    def copy(self, local: pathlib.Path, remote: str) -> str:
        """Copies a file to the home folder on all hosts. Returns "", or why it failed."""
        command = ["gcloud", "compute", "tpus", "tpu-vm", "scp", str(local)]
        command += [f"{self.name}:{remote}", "--worker=all", *self._where]
        done = self._run(command, timeout_s=_WORK_S)
        return reason(done) if done.returncode else ""

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
            [*command, *self._where, f"--ssh-flag={_ALIVE}", f"--command={text}"],
            answer=answer,
            timeout_s=_ASK_S if ask else None,
        )

    def _is_not_found(self, done: subprocess.CompletedProcess[str]) -> bool:
        """Whether it is this machine that gcloud does not find, and no file or project."""
        said = done.stderr.lower()
        return self.name in said and ("not_found" in said or "not found" in said)

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
            return subprocess.CompletedProcess(command, 255, "", f"no answer in {timeout_s:.0f} s")
        except OSError as error:
            # Such as too many processes of too many workers.
            return subprocess.CompletedProcess(command, 255, "", str(error))


def reason(done: subprocess.CompletedProcess[str]) -> str:
    """The last line that a command complained with."""
    lines = done.stderr.strip().splitlines()
    return lines[-1].strip() if lines else f"no reason given, status {done.returncode}"


def check_there() -> None:
    """Checks that there is a gcloud to run.

    Raises:
      UserError: there is none.
    """
    if shutil.which("gcloud") is None:
        raise UserError("gcloud: not found; expected the Google Cloud CLI on PATH")
