"""What tests of several formats share."""

import functools
import http.server
import threading

import pytest


class _Files(http.server.SimpleHTTPRequestHandler):
    """Files of a folder; what s3 asks for in one bucket is the same."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *words):
        pass

    def end_headers(self):
        self.send_header("ETag", '"as it was"')
        super().end_headers()

    def do_HEAD(self):
        if self.path == "/bucket":  # tensorstore asks an s3 server where the bucket is
            self.send_response(200)
            self.send_header("x-amz-bucket-region", "us-east-1")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            super().do_HEAD()


@pytest.fixture
def server(tmp_path):
    """A server of ``tmp_path`` on this machine."""
    handler = functools.partial(_Files, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
