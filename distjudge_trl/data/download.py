"""Official files: fetched once into the cache, resumed after a cut, and checked against a recorded SHA-256.

Files on the Hugging Face hub are fetched by `huggingface_hub`, into its own cache: `HF_ENDPOINT`, `HF_TOKEN`,
`HF_HUB_OFFLINE` and `HF_HOME` work as everywhere. The others go through pooch.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distjudge_trl.errors import UserInputError, first_line
from distjudge_trl.files.atomic import write_json
from distjudge_trl.files.cache import cache_dir


if TYPE_CHECKING:
    import requests

# A server that sends nothing for this long counts as gone. The part received so far is kept for the next attempt.
TIMEOUT_SECONDS = 30
ATTEMPTS = 5
# Seconds before the next attempt, times the number of attempts so far.
BACKOFF_SECONDS = 0.5
# Responses of busy or broken servers after which urllib3 tries again.
_TRANSIENT = (429, 500, 502, 503, 504)
MANIFEST_NAME = "downloads.json"
_ON_THE_HUB = re.compile(
    r"https://huggingface\.co/datasets/(?P<repo_id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<filename>.+)"
)


@dataclass(frozen=True)
class RemoteFile:
    """An official file.

    Args:
        name (`str`): its name in the cache.
        url (`str`): its address.
        sha256 (`str`, *optional*): of its content. If neither its publisher nor this package gives one, that of the
            first download is recorded in the cache and later downloads are compared with it.
        about (`str`): a description for error messages: size, licence.
    """

    name: str
    url: str
    sha256: str | None = None
    about: str = ""


def download(file: RemoteFile, folder: Path | None = None) -> Path:
    """Local path of a remote file, which is downloaded if it is not in the cache yet.

    An interrupted download continues where it stopped, in this call (of other hosts than the hub up to five attempts)
    or a later one. Processes that ask at the same time wait for the first.

    Args:
        file ([`RemoteFile`]): what to fetch.
        folder (`Path`, *optional*): where to; by default `data/` below [`~distjudge_trl.files.cache.cache_dir`]. A
            file of the hub that is not there yet comes into the hub's cache.

    Raises:
        [`UserInputError`]: no network, a server error, a wrong checksum, or a cache folder that cannot be written; the
            message says which file to download by hand and how to pass it.
    """
    import pooch
    import requests
    from filelock import FileLock

    pooch.get_logger().setLevel("WARNING")  # the progress bar shows the same
    folder = folder if folder is not None else cache_dir() / "data"
    target = folder / file.name
    if (on_hub := _ON_THE_HUB.fullmatch(file.url)) and not target.is_file():
        return _from_hub(file, on_hub.groupdict())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(str(target) + ".lock"):
            known = file.sha256 or _recorded(folder, file)
            path = pooch.retrieve(
                file.url,
                known_hash=f"sha256:{known}" if known else None,
                fname=file.name,
                path=folder,
                downloader=_resuming(target.with_name(target.name + ".part")),
            )
            if known is None or not _recorded(folder, file):
                _record(folder, file, pooch.file_hash(path))
            return Path(path)
    except requests.RequestException as error:
        raise UserInputError(f"{file.url}: cannot be fetched ({_reason(error)}). {_by_hand(file)}") from None
    except ValueError:  # pooch's word for a wrong checksum
        raise UserInputError(_changed(file, known)) from None
    except OSError as error:
        raise UserInputError(
            f"{folder}: cannot be written ({error.strerror or error}). Point DISTJUDGE_CACHE at another folder."
        ) from None


def _from_hub(file: RemoteFile, place: dict[str, str]) -> Path:
    import pooch
    from huggingface_hub import constants, errors, hf_hub_download

    # Whatever the client is built on, its failures on the way are not all of its own kind.
    names = ("HfHubHTTPError", "HTTPError", "XetDownloadError")
    failures = tuple(getattr(errors, name) for name in names if hasattr(errors, name))

    def fetch(**options: Any) -> str:
        return hf_hub_download(
            repo_id=place["repo_id"],
            filename=place["filename"],
            revision=place["revision"],
            repo_type="dataset",
            **options,
        )

    try:
        path = fetch()
        if file.sha256 is not None and pooch.file_hash(path) != file.sha256 and not constants.HF_HUB_OFFLINE:
            path = fetch(force_download=True)  # damaged in the cache
    except errors.LocalEntryNotFoundError:
        raise UserInputError(
            f"{file.url}: is not in the hub's cache, and there is no connection to the hub. {_by_hand(file)}"
        ) from None
    except failures as error:
        raise UserInputError(f"{file.url}: cannot be fetched ({first_line(error)}). {_by_hand(file)}") from None
    except OSError as error:
        raise UserInputError(
            f"{file.url}: cannot be saved ({error.strerror or first_line(error)}). Point HF_HOME at another folder."
        ) from None
    if file.sha256 is not None and pooch.file_hash(path) != file.sha256:
        raise UserInputError(f"{_changed(file, file.sha256)} (It is {path}.)")
    return Path(path)


def _changed(file: RemoteFile, known: str | None) -> str:
    return (
        f"{file.url}: the download has another SHA-256 than the recorded {known}: the file was changed, or something"
        f" in between replaced it. Try again. {_by_hand(file)}"
    )


def _by_hand(file: RemoteFile) -> str:
    about = f" ({file.about})" if file.about else ""
    return f"Or fetch {file.url}{about} on a machine with network, and pass it with --data_path."


def _reason(error: Exception) -> str:
    """The cause in a few words, taken from the nested messages of requests and urllib3."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answers {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout):
        return f"no answer for {TIMEOUT_SECONDS} seconds"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return f"the connection was cut {ATTEMPTS} times; what came is kept, and the next run continues there"
    return "no connection"


def _resuming(part: Path) -> Callable[[str, str, Any], None]:
    """A downloader for pooch that continues `part` with HTTP range requests and moves it to its target when it is
    complete.
    """

    def fetch(url: str, output_file: str, _: Any) -> None:
        import requests

        for attempt in range(1, ATTEMPTS + 1):
            try:
                _continue(url, part)
                break
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
                if attempt == ATTEMPTS:
                    raise
                time.sleep(BACKOFF_SECONDS * attempt)
        os.replace(part, output_file)

    return fetch


def _session() -> requests.Session:
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    retry = Retry(
        connect=0,
        read=False,
        other=0,
        status=3,
        status_forcelist=_TRANSIENT,
        backoff_factor=0.5,
        raise_on_status=False,
    )
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    return session


def _continue(url: str, part: Path) -> None:
    import requests
    from tqdm.auto import tqdm

    have = part.stat().st_size if part.exists() else 0
    # Without `identity` a server may compress the response, and byte ranges would refer to the compressed text.
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    with (
        _session() as session,
        session.get(url, stream=True, timeout=TIMEOUT_SECONDS, headers=headers) as response,
    ):
        if have and response.status_code == requests.codes.range_not_satisfiable:
            # The part was complete, or it is of an older and longer version. The checksum decides; without one, start
            # again.
            total = response.headers.get("Content-Range", "").rpartition("/")[2]
            if total == str(have):
                return
            part.unlink()
            _continue(url, part)
            return
        response.raise_for_status()
        resumed = have > 0 and response.status_code == requests.codes.partial_content
        length = int(response.headers.get("Content-Length", 0))
        with (
            part.open("ab" if resumed else "wb") as output,
            tqdm(
                desc=f"Fetching {part.name.removesuffix('.part')}",
                initial=have if resumed else 0,
                total=(length + (have if resumed else 0)) or None,
                unit="B",
                unit_scale=True,
            ) as bar,
        ):
            # A chunk that is cut off is lost, so chunks are small.
            for chunk in response.iter_content(chunk_size=1 << 13):
                output.write(chunk)
                bar.update(len(chunk))


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _recorded(folder: Path, file: RemoteFile) -> str | None:
    """SHA-256 of an earlier download of the same URL."""
    entry = _manifest(folder).get(file.name)
    return entry["sha256"] if isinstance(entry, dict) and entry.get("url") == file.url else None


def _record(folder: Path, file: RemoteFile, sha256: str) -> None:
    from filelock import FileLock

    with FileLock(str(folder / MANIFEST_NAME) + ".lock"):
        size = (folder / file.name).stat().st_size
        entry = {"url": file.url, "sha256": sha256, "size": size}
        write_json(folder / MANIFEST_NAME, {**_manifest(folder), file.name: entry})
