"""A server on the loopback interface that speaks the part of the hub's API that uploads need.

Statuses, headers and fields are those that huggingface_hub 1.0 to 2.4 reads.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlparse

OWNER, TOKEN, READ_TOKEN = "ada", "hf_SecretOfAda0123456789", "hf_ReadOnly0123456789"
"""A user, her token, and one that may only read."""

_ROUTES = [
    ("POST", r"/api/validate-yaml", "validate"),
    ("POST", r"/api/repos/create", "create"),
    ("GET", r"/api/models/(?P<repo>[^/]+/[^/]+)(/revision/(?P<branch>[^/]+))?", "info"),
    ("POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/branch/(?P<branch>[^/]+)", "new_branch"),
    ("POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/preupload/(?P<branch>[^/]+)", "preupload"),
    ("POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/commit/(?P<branch>[^/]+)", "commit"),
    ("POST", r"/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch", "batch"),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", "store"),
    ("GET", r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<branch>[^/]+)/(?P<file>.+)", "resolve"),
]
_WRITES = ("create", "new_branch", "preupload", "commit", "batch")


class Refusal(Exception):  # noqa: N818
    """An answer other than 200."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Repository:
    """A repository, with the content of each file in each branch."""

    def __init__(self, private: bool) -> None:
        self.private = private
        self.branches: dict[str, dict[str, bytes]] = {"main": {".gitattributes": b"*.bin lfs"}}
        self.commits: dict[str, list[str]] = {"main": ["initial commit"]}
        self.large: set[str] = set()

    def sha(self, branch: str) -> str:
        """Return the newest commit of a branch."""
        commits = "\n".join(self.commits[branch]).encode()
        return hashlib.sha1(commits, usedforsecurity=False).hexdigest()


class Hub:
    """The state of the server.

    Attributes:
        repositories: The repositories by name.
        requests: Method, route and `Authorization` header of each request.
        before: Called with the name of the route before each answer. It may raise `Refusal`, or
            `ConnectionError` to close the connection without an answer.
        echo: Whether errors repeat the headers of the request, as a careless proxy would.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, str]] = []
        self.before: Callable[[str], None] = lambda _: None
        self.echo = False
        self.endpoint = ""

    def answer(self, route: str, where: dict[str, str], body: bytes, token: str) -> Any:
        """Return the answer to a request, JSON or bytes, or raise `Refusal`."""
        if route in _WRITES and token != TOKEN:
            if token == READ_TOKEN:
                raise Refusal(403, "you must use a write token")
            raise Refusal(401, "Invalid credentials in Authorization header")
        if "repo" in where:
            repository = self.repositories.get(where["repo"])
            if repository is None or (repository.private and token not in (TOKEN, READ_TOKEN)):
                raise Refusal(404 if token else 401, "Repository not found", "RepoNotFound")
            if route not in ("new_branch", "batch"):
                where["branch"] = self._branch(repository, where.get("branch") or "main")
        return getattr(self, f"_{route}")(where, body)

    def _branch(self, repository: Repository, name: str) -> str:
        for branch in repository.branches:
            if name in (branch, repository.sha(branch)):
                return branch
        raise Refusal(404, "Invalid rev id", "RevisionNotFound")

    def _validate(self, where: dict[str, str], body: bytes) -> Any:
        del where
        errors = [] if json.loads(body)["content"].startswith("---\n") else [{"message": "no YAML"}]
        if errors:
            raise Refusal(400, "invalid metadata")
        return {"errors": errors, "warnings": []}

    def _create(self, where: dict[str, str], body: bytes) -> Any:
        del where
        fields = json.loads(body)
        if fields["organization"] not in (None, OWNER):
            raise Refusal(403, "You don't have the rights to create a model under the namespace")
        name = f"{OWNER}/{fields['name']}"
        if name in self.repositories:
            raise Refusal(409, "You already created this model repo")
        private = fields.get("visibility") == "private" or fields.get("private", False)
        self.repositories[name] = Repository(bool(private))
        return {"url": f"{self.endpoint}/{name}", "name": name}

    def _info(self, where: dict[str, str], body: bytes) -> Any:
        del body
        repository, branch = self.repositories[where["repo"]], where["branch"]
        siblings = []
        for name, content in repository.branches[branch].items():
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
            sibling: dict[str, Any] = {
                "rfilename": name,
                "size": len(content),
                "blobId": blob.hexdigest(),
            }
            if name in repository.large:
                sha = hashlib.sha256(content).hexdigest()
                sibling["lfs"] = {"sha256": sha, "size": len(content), "pointerSize": 130}
            siblings.append(sibling)
        return {
            "id": where["repo"],
            "sha": repository.sha(branch),
            "private": repository.private,
            "tags": [],
            "siblings": siblings,
        }

    def _new_branch(self, where: dict[str, str], body: bytes) -> Any:
        del body
        repository = self.repositories[where["repo"]]
        repository.branches[where["branch"]] = dict(repository.branches["main"])
        repository.commits[where["branch"]] = list(repository.commits["main"])
        return {}

    def _preupload(self, where: dict[str, str], body: bytes) -> Any:
        del where
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs"
                if file["path"].endswith((".safetensors", ".onnx"))
                else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        return {"files": files}

    def _batch(self, where: dict[str, str], body: bytes) -> Any:
        del where
        objects = []
        for item in json.loads(body)["objects"]:
            found = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.objects:
                found["actions"] = {"upload": {"href": f"{self.endpoint}/lfs/{item['oid']}"}}
            objects.append(found)
        return {"transfer": "basic", "objects": objects}

    def _store(self, where: dict[str, str], body: bytes) -> Any:
        if hashlib.sha256(body).hexdigest() != where["oid"]:
            raise Refusal(422, "the content does not have this digest")
        self.objects[where["oid"]] = body
        return {}

    def _commit(self, where: dict[str, str], body: bytes) -> Any:
        repository, branch = self.repositories[where["repo"]], where["branch"]
        lines = [json.loads(line) for line in body.splitlines()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        if header.get("parentCommit") not in (None, repository.sha(branch)):
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        files = dict(repository.branches[branch])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]
                repository.large.add(value["path"])
        repository.branches[branch] = files
        repository.commits[branch].append(header["summary"])
        sha = repository.sha(branch)
        return {
            "commitUrl": f"{self.endpoint}/{where['repo']}/commit/{sha}",
            "commitOid": sha,
            "pullRequestUrl": None,
            "success": True,
        }

    def _resolve(self, where: dict[str, str], body: bytes) -> bytes:
        del body
        repository = self.repositories[where["repo"]]
        content = repository.branches[where["branch"]].get(where["file"])
        if content is None:
            raise Refusal(404, "Entry not found", "EntryNotFound")
        return content


@contextmanager
def serve(hub: Hub) -> Iterator[str]:
    """Run the server, and yield its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.handle_request("GET")

        def do_HEAD(self) -> None:
            self.handle_request("GET", only_head=True)

        def do_POST(self) -> None:
            self.handle_request("POST")

        def do_PUT(self) -> None:
            self.handle_request("PUT")

        def handle_request(self, method: str, *, only_head: bool = False) -> None:
            path = unquote(urlparse(self.path).path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            authorization = self.headers.get("Authorization") or ""
            route, match = next(
                (route, match)
                for verb, pattern, route in _ROUTES
                if verb == method and (match := re.fullmatch(pattern, path))
            )
            hub.requests.append((method, route, authorization))
            headers: dict[str, str] = {}
            try:
                hub.before(route)
                token = authorization.removeprefix("Bearer ")
                where = {name: value for name, value in match.groupdict().items() if value}
                found = hub.answer(route, where, body, token)
                content = found if isinstance(found, bytes) else json.dumps(found).encode()
                if route == "resolve":
                    repository = hub.repositories[where["repo"]]
                    headers["X-Repo-Commit"] = repository.sha(where["branch"])
                    headers["ETag"] = f'"{hashlib.sha256(content).hexdigest()}"'
                status = 200
            except ConnectionError:
                self.close_connection = True
                self.connection.close()
                return
            except Refusal as refusal:
                status, message = refusal.status, str(refusal)
                if hub.echo:
                    message += f" {authorization}"
                headers = {"X-Error-Message": message, "X-Error-Code": refusal.code}
                content = json.dumps({"error": message}).encode()
            self.send_response(status)
            headers |= {"Content-Length": str(len(content)), "Content-Type": "application/json"}
            for name, value in headers.items():
                if value:
                    self.send_header(name, value)
            self.end_headers()
            if not only_head:
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    yield hub.endpoint
    server.shutdown()
    server.server_close()
