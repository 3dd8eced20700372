"""The ways to the API in words, in JSON and in the store, whatever a certificate says."""

from __future__ import annotations

from k3swatch.model.way import Answer, Way
from k3swatch.view.document import way as document
from k3swatch.view.ways import works

OWN = Way(
    "https://127.0.0.1:6444", Answer.VERIFIED, "/x/admin.kubeconfig", "k3s-server-ca@1735", ("127.0.0.1",)
)
CLUSTER = Way("https://10.43.0.1:443", Answer.VERIFIED, issuer="k3s-server-ca@1735")


def test_verified_ones_are_named_and_no_others() -> None:
    silent = Way("https://[fd00::1]:6443", Answer.SILENT, why="refused")
    assert works((silent, OWN, CLUSTER)) == (
        "kubectl works through https://127.0.0.1:6444 (KUBECONFIG=/x/admin.kubeconfig), https://10.43.0.1:443"
    )


def test_what_could_not_be_checked_is_not_said_to_work() -> None:
    said = works((Way(OWN.url, Answer.ANSWERS, issuer="k3s-server-ca@1735"),))
    assert said.startswith(
        "the API answers at https://127.0.0.1:6444 with a certificate issued by k3s-server-ca@1735"
    )
    assert "works" not in said


def test_none() -> None:
    stranger = Way(CLUSTER.url, Answer.STRANGER, issuer="other-ca")
    silent = Way(OWN.url, Answer.SILENT, why="refused")
    assert works((stranger, silent)) == (
        "no way to the API was found: https://10.43.0.1:443 is another cluster's (issuer other-ca), "
        "https://127.0.0.1:6444 refused"
    )
    assert works(()) == ""


def test_hostile_certificates_are_shown_as_escapes() -> None:
    evil = "x\x1b[2J\n\u202e" * 50
    for answer in Answer:
        said = works((Way(OWN.url, answer, evil, evil, (evil,), evil),))
        assert said.isprintable()
        assert len(said) < 700


def test_json() -> None:
    assert document(OWN) == {
        "url": "https://127.0.0.1:6444",
        "answer": "verified",
        "works": True,
        "kubeconfig": "/x/admin.kubeconfig",
        "issuer": "k3s-server-ca@1735",
        "names": ["127.0.0.1"],
        "why": None,
    }
