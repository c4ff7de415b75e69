"""Does it answer? For health checks: ``python -m experiments.deploy.health HOST:PORT [CA]``; imports nothing heavy."""

import os
import ssl
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen


def healthy(address: str, ca: Path | None, timeout: float = 3.0) -> bool:
    """Whether Flower's HTTP server answers at ``address``.

    Args:
        ca: Whom to trust; ``None``: without TLS.
    """
    try:
        if ca is None:
            answer = urlopen(f"http://{address}/health", timeout=timeout)
        else:
            trust = ssl.create_default_context(cafile=str(ca))
            answer = urlopen(f"https://{address}/health", timeout=timeout, context=trust)
    except (URLError, OSError):
        return False
    with answer:
        return bool(answer.status == 200)


def wait(address: str, ca: Path | None, seconds: float) -> bool:
    """Whether it answers within ``seconds``."""
    ends = time.monotonic() + seconds
    while not healthy(address, ca):
        if time.monotonic() > ends:
            return False
        time.sleep(0.3)
    return True


if __name__ == "__main__":
    secure = len(sys.argv) > 2 and not os.environ.get("FL_SIM_INSECURE")
    sys.exit(0 if healthy(sys.argv[1], Path(sys.argv[2]) if secure else None) else 1)
