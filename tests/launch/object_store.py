"""Google's object store as `gcp-storage-emulator` plays it, with what the real one has besides.

The emulator knows no precondition, by which one process alone makes an object, and is never away.
"""

import io
import json
import threading
import time
from http import server
from urllib.parse import parse_qs, urlsplit

from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import buckets
from gcp_storage_emulator.server import RequestHandler
from gcp_storage_emulator.storage import Storage

BUCKET = "bucket"


class ObjectStore:
    """A store with one bucket, on a free port of this machine; a context manager.

    Attributes:
      address: for the environment variable STORAGE_EMULATOR_HOST.
      requests: method and path of each, in order.
      created: bodies of those that make an object only where there is none.
      away: whether each is answered with 503.
      delay_s: how long each takes.
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.created: list[str] = []
        self.away = False
        self.delay_s = 0.0
        self._storage, self._lock = Storage(use_memory_fs=True), threading.Lock()
        buckets.create_bucket(BUCKET, self._storage)
        store = self

        class Handler(RequestHandler):
            protocol_version = "HTTP/1.1"
            # Else an answer waits for the client to acknowledge its head.
            disable_nagle_algorithm = True

            def __init__(self, *args: object) -> None:
                super().__init__(store._storage, *args)

            def parse_request(self) -> bool:
                """Answers the request itself, so that the base class does not."""
                if super().parse_request():
                    connection = self.rfile
                    body = connection.read(int(self.headers.get("Content-Length", 0)))
                    self.rfile = io.BytesIO(body)
                    try:
                        store._answer(self, body)
                    finally:
                        self.rfile = connection
                return False

        class Server(server.ThreadingHTTPServer):
            def handle_error(self, *args: object) -> None:
                """Says nothing of clients that were killed."""

        self._server = Server(("localhost", 0), Handler)
        self.address = f"http://localhost:{self._server.server_port}"

    def __enter__(self) -> "ObjectStore":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, handler: RequestHandler, body: bytes) -> None:
        self.requests.append(f"{handler.command} {handler.path}")
        time.sleep(self.delay_s)
        with self._lock:
            if self.away:
                status = 503
            elif self._is_there_already(handler.path, body):
                status = 412
            else:
                getattr(handler, f"do_{handler.command}")()
                handler.wfile.flush()
                return
        handler.send_response(status)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    def _is_there_already(self, path: str, body: bytes) -> bool:
        """Whether an object is to be made only where there is none, and there is one."""
        query = parse_qs(urlsplit(path).query)
        if query.get("ifGenerationMatch") != ["0"]:
            return False
        self.created.append(body.decode(errors="replace"))
        # Of a multipart upload the name is in its first part.
        name = query["name"][0] if "name" in query else json.loads(body.split(b"\n")[3])["name"]
        try:
            self._storage.get_file_obj(BUCKET, name)
        except NotFound:
            return False
        return True
