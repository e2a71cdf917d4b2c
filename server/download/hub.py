"""Files on a Hugging Face hub: which a model needs, with sizes and checksums, and fetching one that was cut off.

Knows no model folder and no server. Whatever goes wrong is a ``DownloadError`` that says what to do.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import NoReturn

import httpx2
from huggingface_hub import HfApi, ModelInfo, get_token, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.hf_api import RepoSibling

DEFAULT_ENDPOINT = "https://huggingface.co"
SAFE_SUFFIXES = (".safetensors", ".json", ".model")
"""What holds data and can hold no program."""
_MODEL_FOLDERS = (".", "transformer", "vae", "text_encoder", "tokenizer")
"""Where a model in the diffusers layout, or ours, keeps what the server reads."""
_LIST_TIMEOUT_S = 30.0
_CHUNK_BYTES = 1 << 20
_MAX_LISTED = 8
_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND = 401, 403, 404


class DownloadError(Exception):
    """A model cannot be downloaded; the message is for a person and says what to do."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Part of a model: some files of one repository."""

    repo: str
    patterns: tuple[str, ...] = ()
    """Each must match a file, and ``*`` stays within a folder. None is whatever the server can read."""
    revision: str | None = None
    """Branch, tag or commit; None is the repository's main branch."""
    takes_pickles: bool = False
    """Whether files that can hold a program are taken where a pattern is their name."""


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """One file of a repository at one commit."""

    repo: str
    commit: str
    path: str
    num_bytes: int
    sha256: str | None
    """None for small files, which git keeps itself."""
    git_sha1: str
    """Of a file that git keeps itself: the SHA-1 of its blob."""

    @property
    def checksum(self) -> str:
        """What tells this content from any other."""
        return self.sha256 or self.git_sha1

    def is_intact(self, file: Path) -> bool:
        """Whether ``file`` is there and holds exactly this content."""
        if not file.is_file() or file.stat().st_size != self.num_bytes:
            return False
        return _checksum(file, self.sha256 is None) == self.checksum


@dataclass(frozen=True)
class Hub:
    """A hub at an address. Tokens are those of ``huggingface_hub``: ``HF_TOKEN``, or what ``hf auth login`` stored."""

    endpoint: str = DEFAULT_ENDPOINT

    def files(self, source: Source) -> list[HubFile]:
        """List what ``source`` names. Raises ``DownloadError``."""
        with self._explaining(source.repo, source.revision):
            api = HfApi(endpoint=self.endpoint)
            info = api.model_info(source.repo, revision=source.revision, files_metadata=True, timeout=_LIST_TIMEOUT_S)
        return [_hub_file(source.repo, info, item) for item in _chosen(source, info.siblings or [])]

    def fetch(self, file: HubFile, partial: Path) -> None:
        """Fetch into ``partial``, going on after the bytes it has; show progress on a terminal's stderr.

        Raises:
            DownloadError: a cut connection leaves ``partial`` to go on with; wrong content removes it.
        """
        url = hf_hub_url(file.repo, file.path, revision=file.commit, endpoint=self.endpoint)
        token = get_token()
        headers = {"Accept-Encoding": "identity", **({"Authorization": f"Bearer {token}"} if token else {})}
        with self._explaining(file.repo, file.commit), partial.open("ab") as out:
            if out.tell() < file.num_bytes:
                http_get(
                    url,
                    out,
                    resume_size=out.tell(),
                    headers=headers,
                    expected_size=file.num_bytes,
                    displayed_filename=file.path,
                )
            os.fsync(out.fileno())
        if not file.is_intact(partial):
            partial.unlink()
            raise DownloadError(
                f"{file.path} of {file.repo} arrived damaged: its checksum is not {file.checksum}; it was removed. "
                "Run the same command again; if that does not help, something on the way alters files"
            )

    @contextmanager
    def _explaining(self, repo: str, revision: str | None) -> Iterator[None]:
        try:
            yield
        except HFValidationError as error:
            raise DownloadError(f"{repo!r} is no hub id like owner/name: {error}") from error
        except OfflineModeIsEnabled as error:
            raise DownloadError("HF_HUB_OFFLINE is set; unset it to download") from error
        except RevisionNotFoundError as error:
            raise DownloadError(f"{repo} has no revision {revision!r}") from error
        except GatedRepoError as error:
            raise DownloadError(
                f"{repo} asks for consent: give it at {self.endpoint}/{repo}, then set HF_TOKEN to that account's token"
            ) from error
        except HfHubHTTPError as error:
            self._refused(error, repo)
        except httpx2.HTTPError as error:
            raise DownloadError(
                f"cannot reach {self.endpoint} ({_one_line(error)}); what has arrived is kept, run the same command "
                "again. HTTPS_PROXY names a proxy, HF_ENDPOINT a mirror"
            ) from error

    def _refused(self, error: HfHubHTTPError, repo: str) -> NoReturn:
        status = error.response.status_code
        if isinstance(error, RepositoryNotFoundError) or status in {_UNAUTHORIZED, _NOT_FOUND}:
            raise DownloadError(
                f"{self.endpoint} has no {repo}, or shows it to some accounts only: check the name, "
                "or set HF_TOKEN to a token that may read it"
            ) from error
        if status == _FORBIDDEN:
            raise DownloadError(
                f"{self.endpoint} does not let this account read {repo}: set another HF_TOKEN"
            ) from error
        raise DownloadError(
            f"{self.endpoint} answered {status} for {repo}; what has arrived is kept, run the same command again later"
        ) from error


def _chosen(source: Source, files: list[RepoSibling]) -> list[RepoSibling]:
    """Which files to take. Raises ``DownloadError`` where one is missing, is a pickle, or would leave its folder."""
    names = [item.rfilename for item in files]
    empty = [pattern for pattern in source.patterns if not any(_matches(name, pattern) for name in names)]
    taken = [item for item in files if _is_wanted(source, item.rfilename)]
    weights = [item for item in taken if item.rfilename.endswith((".safetensors", ".pt", ".pth"))]
    unsafe = [item.rfilename for item in taken if not _is_safe(source, item.rfilename)]
    if empty or not taken or not (weights or source.patterns):
        wanted = ", ".join(empty) or "safetensors that a server can read"
        raise DownloadError(f"{source.repo} has no {wanted}; it has {_some(names)}")
    if unsafe:
        raise DownloadError(f"{source.repo}: {_some(unsafe)} is not taken; only {', '.join(SAFE_SUFFIXES)} are")
    return taken


def _is_wanted(source: Source, name: str) -> bool:
    if source.patterns:
        return any(_matches(name, pattern) for pattern in source.patterns)
    return PurePosixPath(name).parent.as_posix() in _MODEL_FOLDERS and name.endswith(SAFE_SUFFIXES)


def _matches(name: str, pattern: str) -> bool:
    parts, patterns = name.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def _is_safe(source: Source, name: str) -> bool:
    """Whether the file holds data only, or is a pickle that the source may take, and stays in its folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or any(part in {"", ".", ".."} for part in name.split("/")) or "\\" in name:
        return False
    return name.endswith(SAFE_SUFFIXES) or (source.takes_pickles and name in source.patterns)


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:_MAX_LISTED]) + (
        f" and {len(listed) - _MAX_LISTED} more" if len(listed) > _MAX_LISTED else ""
    )


def _hub_file(repo: str, info: ModelInfo, item: RepoSibling) -> HubFile:
    if info.sha is None or item.size is None or item.blob_id is None:
        raise DownloadError(f"the hub tells no size or checksum of {item.rfilename} in {repo}, so it is not taken")
    return HubFile(
        repo=repo,
        commit=info.sha,
        path=item.rfilename,
        num_bytes=item.size,
        sha256=item.lfs.sha256 if item.lfs else None,
        git_sha1=item.blob_id,
    )


def _checksum(file: Path, is_git_blob: bool) -> str:
    digest = hashlib.sha1(usedforsecurity=False) if is_git_blob else hashlib.sha256()
    if is_git_blob:
        digest.update(b"blob %d\0" % file.stat().st_size)
    with file.open("rb") as content:
        while chunk := content.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
