"""The submitter of a RayJob: sends the entry point to the Ray cluster, and prints the job's log until the job has ended.

KubeRay's own submitter runs Ray's command line three times, 7 s of the 32 s from a RayJob to its entry point, and prints
the command line's words among the job's. Here nothing of Ray is imported, and only the job's log is printed: the entry
point's output, and a line or two of Ray's on how it starts.
"""

import asyncio
import os
import sys
import time
from typing import Any
from urllib.parse import quote

import aiohttp

PAUSE_SECONDS = 0.5
# Network policies may refuse a new pod for a minute, and the head has a moment to become ready.
PATIENCE_SECONDS = 300.0
ANSWER_SECONDS = 60.0
HEARTBEAT_SECONDS = 30.0  # of the log's connection: one that is dead is noticed, and opened again
REFUSED = frozenset({400, 401, 403})
OVER = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})


async def submit(address: str, submission_id: str, entrypoint: str, token: str = "") -> str:
    """Submit an entry point under an id, unless it was submitted already, and print its log to standard output.

    Args:
        address: Of the Ray dashboard, ``http://HOST:PORT``.
        submission_id: KubeRay's, which follows the job under it.
        entrypoint: A shell command.
        token: Where the cluster requires one.

    Returns:
        Ray's status of the job once it is over.

    Raises:
        TimeoutError: The dashboard did not answer for PATIENCE_SECONDS.
        aiohttp.ClientResponseError: It refuses the job, or the token.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    job = f"/api/jobs/{quote(submission_id)}"
    printed, answered = 0, time.monotonic()
    limit = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    async with aiohttp.ClientSession(address, headers=headers, timeout=limit) as session:
        while True:
            try:
                status = await _status(session, job)
                if status is None:
                    body = {"entrypoint": entrypoint, "submission_id": submission_id}
                    async with session.post("/api/jobs/", json=body) as answer:
                        answer.raise_for_status()
                    printed = 0  # a new head knows nothing of the job that the lost one ran
                else:
                    printed = await _print_log(session, job, printed)
                    if status in OVER:
                        return status
                answered = time.monotonic()
            except (aiohttp.ClientError, TimeoutError) as error:
                if isinstance(error, aiohttp.ClientResponseError) and error.status in REFUSED:
                    raise
                if time.monotonic() - answered > PATIENCE_SECONDS:
                    raise TimeoutError(f"{address} did not answer for {PATIENCE_SECONDS:.0f} s: {error}") from error
            await asyncio.sleep(PAUSE_SECONDS)


async def _status(session: aiohttp.ClientSession, job: str) -> str | None:
    """Of the job; None where it was not submitted."""
    async with session.get(job) as answer:
        if answer.status == 404:
            return None
        answer.raise_for_status()
        found: dict[str, Any] = await answer.json()
        return str(found["status"])


async def _print_log(session: aiohttp.ClientSession, job: str, printed: int) -> int:
    """Print what comes of the log after its first ``printed`` characters; returns how many are printed by then."""
    received = 0
    async with session.ws_connect(f"{job}/logs/tail", heartbeat=HEARTBEAT_SECONDS) as log:
        async for message in log:
            if message.type != aiohttp.WSMsgType.TEXT:
                break  # the connection is lost
            fresh = message.data[max(0, printed - received) :]
            received += len(message.data)
            sys.stdout.write(fresh)
            sys.stdout.flush()
    return max(printed, received)


if __name__ == "__main__":
    try:
        asyncio.run(
            submit(
                f"http://{os.environ['RAY_DASHBOARD_ADDRESS'].removeprefix('http://')}",
                os.environ["RAY_JOB_SUBMISSION_ID"],
                sys.argv[1],
                os.environ.get("RAY_AUTH_TOKEN", ""),
            )
        )
    except (TimeoutError, aiohttp.ClientResponseError) as error:
        sys.exit(f"hep2flow: the job could not be submitted to Ray: {error}")
