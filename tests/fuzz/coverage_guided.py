"""The room of packets under Atheris, which steers towards code that was not reached yet. It is no dependency of ours:

    .venv/bin/pip install atheris
    .venv/bin/python tests/fuzz/coverage_guided.py -max_total_time=600 CORPUS_FOLDER

The folder begins with the datagrams of tests/vectors, and keeps what was found. What breaks becomes a vector.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

try:
    import atheris
except ImportError:
    sys.exit("atheris is not installed: .venv/bin/pip install atheris")

with atheris.instrument_imports(include=["sms_aaa.radius"]):
    import wire
    from drafts import VECTORS, read_vectors
    from judge import Sender, unworthy

    from sms_aaa.radius.credentials import read_credential
    from sms_aaa.radius.dictionary import describe
    from sms_aaa.radius.digest import SecretDigests, verify
    from sms_aaa.radius.faults import Malformed
    from sms_aaa.radius.packet import parse

NAS = Sender("127.0.0.1", b"a secret of the fuzz")
DIGESTS = SecretDigests(NAS.secret or b"")
SERVED = {
    "access": (wire.ACCESS_REQUEST, wire.STATUS_SERVER),
    "accounting": (wire.ACCOUNTING_REQUEST, wire.STATUS_SERVER),
}


def one(data: bytes) -> None:
    """As it comes, and signed anew so that it reaches what lies behind the signature."""
    _look(data)
    if len(data) >= wire.HEADER_OCTETS:
        _look(wire.sign(data[0], data[1], data[4:20], data[20:], NAS.secret or b""))


def _look(data: bytes) -> None:
    packet = parse(data)
    if isinstance(packet, Malformed):
        return
    describe(packet)
    fault = verify(packet, DIGESTS, message_authenticator_required=True)
    for port, codes in SERVED.items():
        if packet.code in codes:
            assert (fault is None) == (unworthy(data, NAS, port) is None), (fault, data.hex())
    if fault is None:
        read_credential(packet, DIGESTS)


def main(words: list[str]) -> None:
    folders = [Path(word) for word in words[1:] if not word.startswith("-")]
    for folder in folders[:1]:
        folder.mkdir(exist_ok=True)
        for path in sorted(VECTORS.glob("*.txt")):
            for number, message in enumerate(read_vectors(path)):
                (folder / f"{path.stem}-{number}").write_bytes(message.data)
    atheris.Setup(words, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
